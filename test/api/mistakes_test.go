package api

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

var update = flag.Bool("update", false, "rewrite testdata/mistakes.txtar with what users see now")

// mistakesFile holds, for each mistake, the manifests and what users see of it.
const mistakesFile = "testdata/mistakes.txtar"

// settleTime is how long what users see must stay the same before -update takes it for final.
const settleTime = 4 * time.Second

// TestMistakes makes the mistakes of testdata/mistakes.txtar and compares what users see of them with the file. The first
// part of a case's name is the world it happens in, see [mistakes].
func TestMistakes(t *testing.T) {
	needsCluster(t)
	archive, err := txtar.ParseFile(mistakesFile)
	if err != nil {
		t.Fatal(err)
	}
	cases := readMistakes(t, archive)
	for world, start := range map[string]func(*testing.T, *mistakes){
		"sound": startSound, "no-filter": startNoFilter, "store-away": startStoreAway, "delivery": startDelivery,
	} {
		t.Run(world, func(t *testing.T) {
			m := &mistakes{client: warned(t)}
			start(t, m)
			for _, c := range cases[world] {
				m.make(t, c)
			}
			m.check(t, cases[world])
		})
		delete(cases, world)
	}
	if len(cases) > 0 {
		t.Errorf("%s has cases of worlds that do not exist: %v", mistakesFile, cases)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(filepath.FromSlash(mistakesFile), txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// mistake is one case.
type mistake struct {
	name, manifests string
	// want is the part of the file that says what users see.
	want *txtar.File

	namespace string
	// answers are what the API server says to the manifests as they are applied.
	answers []string
	objects []*unstructured.Unstructured

	// seen is what users see now, or err why that is not known, since when it has been the same.
	seen  string
	err   error
	since time.Time
}

// readMistakes returns the cases by world. A case is WORLD/NAME.yaml, followed by WORLD/NAME.says.
func readMistakes(t *testing.T, archive *txtar.Archive) map[string][]*mistake {
	t.Helper()
	if *update { // a new case needs no more than its manifests
		var files []txtar.File
		for i, file := range archive.Files {
			files = append(files, file)
			says := strings.TrimSuffix(file.Name, ".yaml") + ".says"
			if says != file.Name+".says" && (i+1 == len(archive.Files) || archive.Files[i+1].Name != says) {
				files = append(files, txtar.File{Name: says})
			}
		}
		archive.Files = files
	}
	cases, count := map[string][]*mistake{}, 0
	for i := 0; i+1 < len(archive.Files); i += 2 {
		manifests, says := archive.Files[i], &archive.Files[i+1]
		name := strings.TrimSuffix(manifests.Name, ".yaml")
		world, short, ok := strings.Cut(name, "/")
		if !ok || manifests.Name != name+".yaml" || says.Name != name+".says" {
			t.Fatalf("%s holds %s and %s, where WORLD/NAME.yaml and WORLD/NAME.says belong (-update adds the latter)", mistakesFile, manifests.Name, says.Name)
		}
		cases[world] = append(cases[world], &mistake{name: short, manifests: string(manifests.Data), want: says})
		count++
	}
	if count < 20 {
		t.Fatalf("found only %d mistakes", count)
	}
	return cases
}

// mistakes is what runs while mistakes are made.
type mistakes struct {
	*world
	// client is an administrator's that notes warnings as kubectl shows them.
	client *warningClient
	// places are words in the file and what stands for them here, in turn.
	places []string
	// see, where there is something to see beside the objects, returns it.
	see func(*testing.T, *mistake) (string, error)
}

// startSound has everything run as it should, and a kind Conveyor that subscribers may be of.
func startSound(t *testing.T, m *mistakes) {
	m.world = startWorld(t)
	m.startSources(t)
	installPolicies(t)
	waitPolicies(t, m.namespace)
	kube.Apply(t, "", conveyorCRD)
	aggregate(t)
	t.Cleanup(func() { deleteCRD(t, "conveyors.test.example") })
	harness.Eventually(t, "the kind is served", func() error {
		return applyOne(t, m.namespace, "{apiVersion: test.example/v1, kind: Conveyor, metadata: {name: belt}}")
	})
}

// startNoFilter has neither a filter run nor sources.
func startNoFilter(t *testing.T, m *mistakes) {
	m.world = newWorld(t)
	m.startController(t, nil)
}

// startStoreAway has NATS go before anything is applied.
func startStoreAway(t *testing.T, m *mistakes) {
	store, err := devserver.Start(devserver.Options{Dir: filepath.Join(t.TempDir(), "store"), Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	m.world = &world{nats: stream.ConnOptions{URL: store.ClientURL()}, namespace: kube.Namespace(t), system: kube.Namespace(t)}
	m.startFilter(t)
	m.startController(t, nil)
	kube.Apply(t, m.namespace, brokerYAML("before", "{}"))
	m.waitBroker(t, "before", ready, "True")
	store.Stop()
}

// startDelivery has events posted to the Broker "shop" of each case, and dead letters seen.
func startDelivery(t *testing.T, m *mistakes) {
	m.world = startWorld(t)
	url, _ := m.startIngress(t)
	var letters sync.Map
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		data, _ := base64.StdEncoding.DecodeString(r.Header.Get("Ce-Knativeerrordata"))
		letters.Store(r.URL.Path, fmt.Sprintf("dead letter: knativeerrorcode %s, knativeerrordest %s, knativeerrordata %s\n",
			r.Header.Get("Ce-Knativeerrorcode"), r.Header.Get("Ce-Knativeerrordest"), data))
	}))
	t.Cleanup(sink.Close)
	m.places = []string{"SINK", sink.URL}
	posted := map[string]bool{}
	m.see = func(t *testing.T, c *mistake) (string, error) {
		for _, o := range c.objects {
			if err := conditionIs(statusOf(t, o), ready, []string{"True"}); err != nil {
				return "", err
			}
		}
		if !posted[c.name] {
			there := *m.world
			there.namespace = c.namespace
			there.post(t, url, "shop", "1", "sent")
			posted[c.name] = true
		}
		letter, ok := letters.Load("/" + c.name)
		if !ok {
			return "", errors.New("no dead letter")
		}
		return letter.(string), nil
	}
}

// make applies the manifests of a case, as kubectl apply does, in a namespace of its own.
func (m *mistakes) make(t *testing.T, c *mistake) {
	t.Helper()
	c.namespace = kube.Namespace(t)
	for _, o := range cluster.Decode(t, strings.NewReplacer(m.places...).Replace(c.manifests)) {
		o.SetNamespace(c.namespace)
		kind, name := o.GetKind(), o.GetName()
		m.client.warnings = nil
		err := m.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership)
		for _, warning := range m.client.warnings {
			c.answers = append(c.answers, fmt.Sprintf("%s %s: warning: %s\n", kind, name, warning))
		}
		if err != nil {
			c.answers = append(c.answers, fmt.Sprintf("%s %s: refused: %v\n", kind, name, err))
			continue
		}
		known := slices.ContainsFunc(c.objects, func(k *unstructured.Unstructured) bool { return k.GetKind() == kind && k.GetName() == name })
		if group := o.GroupVersionKind().Group; (group == eventingv1.Group || group == sourcesv1.Group) && !known {
			c.objects = append(c.objects, o)
		}
	}
}

// check waits until users see what the file says, or, with -update, until what they see does not change any more.
func (m *mistakes) check(t *testing.T, cases []*mistake) {
	for deadline := time.Now().Add(harness.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		open := 0
		for _, c := range cases {
			if !m.asWanted(t, c) {
				open++
			}
		}
		if open == 0 {
			break
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case c.err != nil:
				t.Error(c.err)
			case *update:
				c.want.Data = []byte(c.seen)
			case c.seen != string(c.want.Data):
				t.Errorf("want(-) got(+), after \"go test -update\" see git diff:\n%s", cmp.Diff(string(c.want.Data), c.seen))
			}
		})
	}
}

// asWanted looks at what users see of a case and says whether that is as wanted.
func (m *mistakes) asWanted(t *testing.T, c *mistake) bool {
	seen, err := m.says(t, c)
	c.err = err
	if seen != c.seen {
		c.seen, c.since = seen, time.Now()
	}
	if *update {
		return err == nil && time.Since(c.since) > settleTime
	}
	return err == nil && seen == string(c.want.Data)
}

// says returns what users see of a mistake.
func (m *mistakes) says(t *testing.T, c *mistake) (string, error) {
	var b strings.Builder
	for _, answer := range c.answers {
		b.WriteString(answer)
	}
	for _, o := range c.objects {
		if err := kube.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return "", err
		}
		sayConditions(&b, o, statusOf(t, o).Conditions)
	}
	if m.see != nil {
		seen, err := m.see(t, c)
		if err != nil {
			return "", err
		}
		b.WriteString(seen)
	}
	words := []string{c.namespace, "NAMESPACE", m.system, "SYSTEM"}
	for i := 0; i < len(m.places); i += 2 {
		words = append(words, m.places[i+1], m.places[i])
	}
	return strings.NewReplacer(words...).Replace(b.String()), nil
}

// statusOf returns the part of a status that all our objects have.
func statusOf(t *testing.T, o *unstructured.Unstructured) *eventingv1.Status {
	t.Helper()
	var object struct {
		Status eventingv1.Status `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &object); err != nil {
		t.Fatal(err)
	}
	return &object.Status
}

// sayConditions writes Ready, and each condition that has something to say.
func sayConditions(b *strings.Builder, o *unstructured.Unstructured, conditions []metav1.Condition) {
	what := o.GetKind() + " " + o.GetName()
	if len(conditions) == 0 {
		fmt.Fprintf(b, "%s: has no status\n", what)
		return
	}
	slices.SortFunc(conditions, func(a, b metav1.Condition) int { return strings.Compare(a.Type, b.Type) })
	for _, c := range conditions {
		switch {
		case c.Type == ready:
			fmt.Fprintf(b, "%s: %s is %s: %s\n", what, c.Type, c.Status, c.Reason)
		case c.Status != metav1.ConditionTrue || c.Message != "":
			fmt.Fprintf(b, "%s: %s is %s: %s: %s\n", what, c.Type, c.Status, c.Reason, c.Message)
		}
	}
}

// warningClient is a client that notes the API server's warnings.
type warningClient struct {
	client.Client
	warnings []string
}

// HandleWarningHeaderWithContext notes a warning.
func (c *warningClient) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	c.warnings = append(c.warnings, text)
}

// warned makes a client that checks fields as kubectl does.
func warned(t *testing.T) *warningClient {
	t.Helper()
	w := &warningClient{}
	config := rest.CopyConfig(kube.Config)
	config.WarningHandlerWithContext = w
	c, err := client.New(config, client.Options{Scheme: cluster.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	w.Client = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	return w
}
