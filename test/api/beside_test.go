package api

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/controller"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// useKnativeCRDs has the API server serve Brokers and Triggers by Knative's schemas until the test ends.
func useKnativeCRDs(t *testing.T, namespace string) {
	t.Helper()
	needsCluster(t)
	if !kube.Bare() {
		t.Skip("this changes CRDs, which a cluster that is not the tests' own may need")
	}
	text, err := os.ReadFile("testdata/knative-crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { knowsCEL(t, namespace, true) }) // after the cleanups to come
	for _, theirs := range cluster.Decode(t, string(text)) {
		before := swapSpec(t, theirs)
		t.Cleanup(func() { swapSpec(t, before) })
	}
	knowsCEL(t, namespace, false)
}

// swapSpec gives the CRD of that name another spec, and returns it as it was.
func swapSpec(t *testing.T, crd *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(crd.GroupVersionKind())
	var before *unstructured.Unstructured
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error { // the API server writes its status
		if err := kube.Client.Get(context.Background(), client.ObjectKeyFromObject(crd), live); err != nil {
			return err
		}
		before = live.DeepCopy()
		live.Object["spec"] = crd.DeepCopy().Object["spec"]
		return kube.Client.Update(context.Background(), live)
	})
	if err != nil {
		t.Fatalf("change the CRD %s: %v", crd.GetName(), err)
	}
	return before
}

// knowsCEL waits until the API server keeps the field cel, or drops it.
func knowsCEL(t *testing.T, namespace string, want bool) {
	t.Helper()
	harness.Eventually(t, "the schemas are in force", func() error {
		o := cluster.Decode(t, triggerYAML("probe", "{broker: b, subscriber: {uri: 'http://x.example'}, filter: {cel: 'true'}}"))[0]
		o.SetNamespace(namespace)
		if err := kube.Client.Create(context.Background(), o, client.DryRunAll); err != nil {
			return err
		}
		if _, has, _ := unstructured.NestedString(o.Object, "spec", "filter", "cel"); has != want {
			return errors.New("they are not")
		}
		return nil
	})
}

// TestBesideKnative runs Millrace where Knative's own CRDs serve Brokers and Triggers. These do not know the fields that
// Millrace adds, and drop them from specs and from status.
func TestBesideKnative(t *testing.T) {
	w := newWorld(t)
	useKnativeCRDs(t, w.namespace)
	_, w.filter = w.startFilter(t)
	log := &harness.Output{}
	w.startController(t, func(o *controller.Options) { o.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	url, _ := w.startIngress(t)
	ledger := harness.NewLedger(t)
	t.Cleanup(func() { // our own CRDs would not take some of them
		for _, o := range []client.Object{&eventingv1.Trigger{}, &eventingv1.Broker{}} {
			if err := kube.Client.DeleteAllOf(context.Background(), o, client.InNamespace(w.namespace)); err != nil {
				t.Error(err)
			}
		}
	})
	kube.Apply(t, w.namespace, brokerYAML("shop", "{delivery: {retry: 1, timeout: PT5S, retryAfterMax: PT1S, format: binary}}")+
		triggerYAML("standard", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/standard'}, filters: [{exact: {type: sent}}, {any: [{prefix: {source: /shop}}]}, {cesql: \"id = '1'\"}]}")+
		`
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: annotated, annotations: {millrace.dev/cel-filter: 'data.value > 5 && ce.type == "sent"'}}
spec: {broker: shop, subscriber: {uri: '`+ledger.URL+`/annotated'}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: unsuited, annotations: {millrace.dev/cel-filter: 'data.value > 100'}}
spec: {broker: shop, subscriber: {uri: '`+ledger.URL+`/unsuited'}, filter: {attributes: {type: sent}}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: nested}
spec: {broker: shop, subscriber: {uri: '`+ledger.URL+`/nested'}, filters: [{all: [{cel: 'data.value > 5'}]}]}
---
`+triggerYAML("nobody", "{broker: shop}"))
	// Server-side apply refuses a field that is not in the schema; others do not.
	dropped := cluster.Decode(t, triggerYAML("dropped", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/dropped'}, filters: [{cel: 'data.value > 100'}]}"))[0]
	if err := applyOne(t, w.namespace, triggerYAML("refused", "{broker: shop, filters: [{cel: 'true'}]}")); err == nil || !strings.Contains(err.Error(), "field not declared") {
		t.Errorf("applying a field that the CRDs do not have gave %v", err)
	}
	dropped.SetNamespace(w.namespace)
	if err := kube.Client.Create(t.Context(), dropped); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"standard", "annotated", "unsuited", "nested"} {
		w.waitTrigger(t, name, ready, "True")
	}
	w.waitTrigger(t, "nobody", ready, "False", eventingv1.ReasonSubscriberUnresolved, "it has neither a ref nor a uri") // our CRD would refuse it
	w.waitTrigger(t, "dropped", ready, "False", eventingv1.ReasonInvalidSpec, "write the annotation millrace.dev/cel-filter instead")

	w.post(t, url, "shop", "1", "sent")
	w.post(t, url, "shop", "2", "lost")
	ledger.WaitQuiet(t, 4, 300*time.Millisecond)
	for path, want := range map[string]string{
		"/standard": "1", "/annotated": "1", "/unsuited": "", "/nested": "1 2",
		"/dropped": "", // what is left of the filter is not taken for one that holds for every event
	} {
		var got []string
		for _, id := range []string{"1", "2"} {
			if ledger.Path(path)[id] > 0 {
				got = append(got, id)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s got events %v, want %q", path, got, want)
		}
	}

	harness.Eventually(t, "the controller says whose CRDs there are", func() error {
		if !strings.Contains(log.String(), "keeps no field cel") {
			return errors.New(log.String())
		}
		return nil
	})

	// The status that these CRDs keep is not taken for a changed one: nothing is written without a cause.
	before := w.trigger(t, "standard").ResourceVersion
	kube.Apply(t, w.namespace, serviceYAML("unrelated"))
	kube.Apply(t, w.namespace, brokerYAML("later", "{}"))
	w.waitBroker(t, "later", ready, "True")
	if after := w.trigger(t, "standard").ResourceVersion; after != before {
		t.Errorf("resource version %s became %s although nothing has changed", before, after)
	}
}
