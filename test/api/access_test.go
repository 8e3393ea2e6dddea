package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.dev/internal/access"
	"millrace.dev/internal/adminapi"
	"millrace.dev/test/harness"
)

// account makes a service account in the test's namespace, binds the roles of install.yaml to it there, and returns a token
// of it for the audiences, or for the API server.
func (w *world) account(t *testing.T, name string, roles []string, audiences ...string) string {
	t.Helper()
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	if err := kube.Client.Create(t.Context(), sa); err != nil {
		t.Fatal(err)
	}
	for _, role := range roles {
		kube.Apply(t, w.namespace, "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: "+name+"-"+role+"}, "+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "+role+"}, "+
			"subjects: [{kind: ServiceAccount, name: "+name+", namespace: "+w.namespace+"}]}")
	}
	return w.token(t, sa, audiences...)
}

func (w *world) token(t *testing.T, sa *corev1.ServiceAccount, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if err := kube.Client.SubResource("token").Create(t.Context(), sa, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// as is a client of the filter's admin API with the token.
func (w *world) as(token string) *adminapi.Client {
	return &adminapi.Client{URL: w.filter, Namespace: w.namespace, Token: func(context.Context) (string, error) { return token, nil }}
}

// checkStatus has the admin API's refusal be of the status; 0 is none.
func checkStatus(t *testing.T, what string, err error, status int) {
	t.Helper()
	var p *adminapi.Problem
	errors.As(err, &p)
	if status == 0 && err != nil || status != 0 && (p == nil || p.Status != status) {
		t.Errorf("%s: got %v, want status %d", what, err, status)
	}
}

// TestAdminAPIAsksTheCluster has users with the roles that come with the installation, and others, use a filter's admin API.
func TestAdminAPIAsksTheCluster(t *testing.T) {
	w := startWorld(t)
	ingress, _ := w.startIngress(t)
	ledger := harness.NewLedger(t)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+
		triggerYAML("taken", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/taken'}}")+
		triggerYAML("refused", "{broker: shop, subscriber: {uri: '"+w.filter+"/nobody-takes-this'}, delivery: {retry: 0}}"))
	w.waitTrigger(t, "taken", ready, "True")
	w.waitTrigger(t, "refused", ready, "True")
	w.post(t, ingress, "shop", "event-1", "sent")
	ledger.WaitQuiet(t, 1, 0)

	viewer := w.as(w.account(t, "viewer", []string{"millrace-view"}))
	editor := w.as(w.account(t, "editor", []string{"millrace-view", "millrace-edit"}, access.Audience))
	broker := w.namespace + "/shop"
	harness.Eventually(t, "the viewer sees what became of the event", func() error {
		trace, err := viewer.Trace(t.Context(), "event-1", "", "")
		if err != nil {
			t.Fatal(err)
		}
		if len(trace.Events) != 1 || trace.Events[0].Fate != "settled" {
			return errors.New("not settled yet")
		}
		return nil
	})
	page, err := viewer.Events(t.Context(), broker, adminapi.Selection{}, 0)
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != "event-1" {
		t.Fatalf("the viewer lists %+v, %v", page, err)
	}
	sequence := page.Items[0].Sequence
	dry := adminapi.RedriveRequest{Selection: adminapi.Selection{All: true, DryRun: true}}
	redrive := func(c *adminapi.Client) error {
		_, err := c.Redrive(t.Context(), broker, dry, func(adminapi.Line[adminapi.RedriveResult]) {})
		return err
	}
	detail := func(c *adminapi.Client) error {
		_, err := c.Event(t.Context(), broker, sequence)
		return err
	}
	brokers := func(c *adminapi.Client) error {
		infos, err := c.Brokers(t.Context())
		if err == nil && (len(infos) != 1 || infos[0].Name != "shop") {
			t.Errorf("Brokers are %+v", infos)
		}
		return err
	}
	checkStatus(t, "the viewer lists Brokers", brokers(viewer), 0)
	checkStatus(t, "the viewer looks at data", detail(viewer), http.StatusForbidden)
	checkStatus(t, "the viewer redrives", redrive(viewer), http.StatusForbidden)
	checkStatus(t, "the editor looks at data", detail(editor), 0)
	checkStatus(t, "the editor redrives", redrive(editor), 0)

	for name, token := range map[string]string{
		"nobody": "", "garbage": "garbage", "a forged token": forge(editor), "too long a token": strings.Repeat("x", 17<<10),
		"a token for others": w.account(t, "other-audience", []string{"millrace-view"}, "vault"),
	} {
		checkStatus(t, name, brokers(w.as(token)), http.StatusUnauthorized)
	}
	checkStatus(t, "an account without roles", brokers(w.as(w.account(t, "nothing", nil))), http.StatusForbidden)
	all := *viewer
	all.Namespace = ""
	checkStatus(t, "the viewer asks for all namespaces", brokers(&all), http.StatusForbidden)

	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		harness.WaitReady(t, w.filter+path)
	}
}

// forge changes the signature of the token that a client has.
func forge(c *adminapi.Client) string {
	token, _ := c.Token(context.Background())
	i := len(token) - 20
	return token[:i] + strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, token[i:i+1]) + token[i+1:]
}

// TestReviewsAreRemembered counts what the API server is asked when one user asks for the same again and again.
func TestReviewsAreRemembered(t *testing.T) {
	w := newWorld(t)
	reviewer, err := access.New(installRights(t, w.system, "broker-filter"))
	if err != nil {
		t.Fatal(err)
	}
	token := w.account(t, "viewer", []string{"millrace-view"})
	may := func(token, verb, resource, namespace string) error {
		_, err := reviewer.Allow(t.Context(), token, adminapi.Action{Right: adminapi.Right{Verb: verb, Resource: resource}, Namespace: namespace})
		return err
	}
	var denied *adminapi.Denied
	for range 5 {
		if err := may(token, "list", "parkedevents", w.namespace); err != nil {
			t.Fatal(err)
		}
		if err := may(token, "get", "parkedevents/data", w.namespace); !errors.As(err, &denied) {
			t.Fatalf("got %v", err)
		}
		if err := may("nobody's", "list", "parkedevents", w.namespace); !errors.Is(err, adminapi.ErrUnauthenticated) {
			t.Fatalf("got %v", err)
		}
	}
	if got := w.reviews(t); kube.Bare() && got != [2]int{2, 2} {
		t.Errorf("the API server was asked %v times who somebody is and what they may do, want 2 and 2", got)
	}
}

// reviews counts the TokenReviews and SubjectAccessReviews that the test's filter asked for.
func (w *world) reviews(t *testing.T) (n [2]int) {
	t.Helper()
	if !kube.Bare() {
		return n
	}
	f, err := os.Open(kube.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			ImpersonatedUser struct{ Username string }
			ObjectRef        struct{ Resource string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.ImpersonatedUser.Username != "system:serviceaccount:"+w.system+":broker-filter" {
			continue
		}
		switch e.ObjectRef.Resource {
		case "tokenreviews":
			n[0]++
		case "subjectaccessreviews":
			n[1]++
		}
	}
	return n
}
