package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// buildModel builds the model of manifests as they stand in one file.
func buildModel(t *testing.T, manifests string) *model {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(path, []byte(manifests), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBuilder(LimitDefaults{}.withDefaults(), openSource)
	if err != nil {
		t.Fatal(err)
	}
	return b.build(set)
}

// trigger returns the Trigger of that name as the dispatcher gets it, and the Broker it belongs to.
func (m *model) trigger(t *testing.T, name string) (*dispatch.Trigger, string) {
	t.Helper()
	for _, b := range m.brokers {
		for _, tr := range b.dispatch.Triggers {
			if tr.Name == name {
				return tr, b.key()
			}
		}
	}
	t.Fatalf("the dispatcher gets no Trigger %s", name)
	return nil, ""
}

func TestBuildServesTriggersOfOtherNamespaces(t *testing.T) {
	m := buildModel(t, `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: team-b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t, namespace: team-a}
spec:
  brokerRef: {kind: Broker, name: b, namespace: team-b}
  subscriber: {uri: http://s.team-a.svc/}
`)
	tr, broker := m.trigger(t, "t")
	if broker != "team-b/b" || tr.Namespace != "team-a" {
		t.Errorf("Trigger of namespace %s belongs to Broker %s, want team-a and team-b/b", tr.Namespace, broker)
	}
}

func TestBuildTakesBackoffMaxFromTheBroker(t *testing.T) {
	m := buildModel(t, `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {millrace.dev/backoff-max: PT2S}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: plain}
spec: {broker: b, subscriber: {uri: http://s/}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: own, annotations: {millrace.dev/backoff-max: PT3S}}
spec: {broker: b, subscriber: {uri: http://s/}}
`)
	for name, want := range map[string]time.Duration{"plain": 2 * time.Second, "own": 3 * time.Second} {
		if tr, _ := m.trigger(t, name); tr.Policy.BackoffMax != want {
			t.Errorf("%s: BackoffMax = %v, want %v", name, tr.Policy.BackoffMax, want)
		}
	}
}

// The API server does not count a changed annotation as a new generation.
func TestBuildCompilesAChangedAnnotation(t *testing.T) {
	b, err := newBuilder(LimitDefaults{}.withDefaults(), openSource)
	if err != nil {
		t.Fatal(err)
	}
	uri := "http://s/"
	matches := func(expr string) bool {
		m := b.build(&objects.Set{
			Brokers: []*eventingv1.Broker{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b", UID: "broker"}}},
			Triggers: []*eventingv1.Trigger{{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: "default", Name: "t", UID: "trigger", Generation: 1,
					Annotations: map[string]string{eventingv1.CELFilterAnnotation: expr},
				},
				Spec:   eventingv1.TriggerSpec{Broker: "b"},
				Status: eventingv1.TriggerStatus{SubscriberURI: &uri},
			}},
		})
		tr, _ := m.trigger(t, "t")
		return tr.Filter.Match(trigger.NewInput(&event.Event{}))
	}
	if matches("false") || !matches("true") || matches("false") {
		t.Error("the filter does not follow the annotation")
	}
}

func TestBuildNamesTriggersWithoutBroker(t *testing.T) {
	m := buildModel(t, `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: live}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: slip}
spec: {broker: life, subscriber: {uri: http://s/}}
`)
	want := []triggerStatus{{
		key: "default/slip", reason: "BrokerDoesNotExist",
		message: "there is no Broker default/life: add one, or correct spec.broker",
	}}
	if diff := cmp.Diff(want, m.notInEffect(), cmp.AllowUnexported(triggerStatus{})); diff != "" {
		t.Errorf("Triggers not in effect (-want +got):\n%s", diff)
	}
}

func TestConsole(t *testing.T) {
	server, err := newHTTPServer(t.Context(), ":0", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.listener.Close() })
	var out strings.Builder
	c := &console{out: &out, process: &process{ingress: &ingress{server: server}, adminHTTP: server}}

	m := buildModel(t, `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: slip}
spec: {broker: bx, subscriber: {uri: http://s/}}
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: other, annotations: {eventing.knative.dev/broker.class: Other}}
`)
	c.print(m)
	for _, want := range []string{
		"http://127.0.0.1:", "default/slip", "there is no Broker default/bx", "curl -i",
		"1 Broker of class Other; to have it served here annotate it eventing.knative.dev/broker.class: Millrace",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the first output lacks %q:\n%s", want, &out)
		}
	}

	out.Reset()
	c.print(m)
	if strings.Contains(out.String(), "curl") {
		t.Errorf("the help is repeated:\n%s", &out)
	}

	out.Reset()
	c.problems([]objects.Problem{{File: "a.yaml", Line: 3, Column: 5, Detail: "unknown field", Hint: "write x", Kept: true}})
	c.problems(nil)
	want := "Mistake a.yaml:3:5: unknown field (write x); the last good version stays in use\nMended  a.yaml:3:5: unknown field\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
