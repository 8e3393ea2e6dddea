package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// restClient makes the requests that typed clients of Knative's API make, among them the program kn.
type restClient struct {
	base   string
	client *http.Client
}

func newRESTClient(t *testing.T, namespace string) *restClient {
	t.Helper()
	c, err := rest.HTTPClientFor(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := rest.DefaultServerUrlFor(kube.Config)
	if err != nil {
		t.Fatal(err)
	}
	return &restClient{base: strings.TrimSuffix(host.String(), "/") + "/apis/eventing.knative.dev/v1/namespaces/" + namespace + "/", client: c}
}

// call makes a request, which must be answered with the status, and returns the object in the answer.
func (c *restClient) call(t *testing.T, method, path string, body any, status int) map[string]any {
	t.Helper()
	response := c.open(t, method, path, body)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, response.StatusCode, status, text)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// open makes a request and leaves the answer to the caller.
func (c *restClient) open(t *testing.T, method, path string, body any) *http.Response {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, c.base+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// at returns what is in an object at a path of fields.
func at[T any](t *testing.T, object map[string]any, path ...string) T {
	t.Helper()
	value, _, err := unstructured.NestedFieldNoCopy(object, path...)
	found, ok := value.(T)
	if err != nil || !ok {
		t.Fatalf("%s is %v (%v) in %v", strings.Join(path, "."), value, err, object)
	}
	return found
}

// set changes what is in an object at a path of fields.
func set(t *testing.T, object map[string]any, value any, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(object, value, path...); err != nil {
		t.Fatal(err)
	}
}

// TestTypedClients goes through what kn does with Brokers and Triggers: objects as its types encode them, with null and
// empty fields, updates of what was read, watches that wait for a deletion.
func TestTypedClients(t *testing.T) {
	w := startWorld(t)
	c := newRESTClient(t, w.namespace)
	c.call(t, http.MethodPost, "brokers", map[string]any{
		"kind": "Broker", "apiVersion": "eventing.knative.dev/v1",
		"metadata": map[string]any{
			"name": "shop", "namespace": w.namespace, "creationTimestamp": nil,
			"annotations": map[string]any{eventingv1.BrokerClassAnnotation: eventingv1.BrokerClass},
		},
		"spec": map[string]any{"delivery": map[string]any{
			"retry": 5, "backoffPolicy": "linear", "backoffDelay": "PT1S", "timeout": "PT10S", "retryAfterMax": "PT30S",
			"deadLetterSink": map[string]any{"uri": "http://letters.example/"},
		}},
		"status": map[string]any{"address": map[string]any{}},
	}, http.StatusCreated)
	c.call(t, http.MethodPost, "triggers", map[string]any{
		"kind": "Trigger", "apiVersion": "eventing.knative.dev/v1",
		"metadata": map[string]any{"name": "gifts", "namespace": w.namespace, "creationTimestamp": nil},
		"spec": map[string]any{
			"broker": "shop", "filter": map[string]any{"attributes": map[string]any{"type": "sent"}},
			"subscriber": map[string]any{"ref": map[string]any{"kind": "Broker", "namespace": w.namespace, "name": "shop", "apiVersion": "eventing.knative.dev/v1"}},
		},
		"status": map[string]any{},
	}, http.StatusCreated)
	kubectl(t, "wait", "-n", w.namespace, "--for=condition=Ready", "--timeout="+harness.Patience.String(), "broker/shop", "trigger/gifts")

	for path, want := range map[string]string{"brokers": "BrokerList", "triggers": "TriggerList"} {
		list := c.call(t, http.MethodGet, path, nil, http.StatusOK)
		if kind, items := at[string](t, list, "kind"), at[[]any](t, list, "items"); kind != want || len(items) != 1 {
			t.Errorf("%s are a %s of %d", path, kind, len(items))
		}
	}
	broker := c.call(t, http.MethodGet, "brokers/shop", nil, http.StatusOK)
	if url := at[string](t, broker, "status", "address", "url"); !strings.HasSuffix(url, "/"+w.namespace+"/shop") {
		t.Errorf("the Broker's address is %s", url)
	}

	// What was read is sent back, changed; what others have changed meanwhile is a conflict.
	set(t, broker, float64(7), "spec", "delivery", "retry")
	updated := c.call(t, http.MethodPut, "brokers/shop", broker, http.StatusOK)
	if retry := at[float64](t, updated, "spec", "delivery", "retry"); retry != 7 {
		t.Errorf("retry is %v after the update", retry)
	}
	conflict := c.call(t, http.MethodPut, "brokers/shop", broker, http.StatusConflict)
	if reason := at[string](t, conflict, "reason"); reason != "Conflict" {
		t.Errorf("an update of what is out of date is refused as %s", reason)
	}
	w.waitBroker(t, "shop", ready, "True")
	harness.Eventually(t, "the Trigger's update gets through", func() error { // its status is written at any time
		trigger := c.call(t, http.MethodGet, "triggers/gifts", nil, http.StatusOK)
		set(t, trigger, map[string]any{"type": "lost"}, "spec", "filter", "attributes")
		delete(trigger, "status") // is not for this request to change
		response := c.open(t, http.MethodPut, "triggers/gifts", trigger)
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", response.StatusCode)
		}
		return nil
	})
	tr := w.waitTrigger(t, "gifts", ready, "True")
	if tr.Spec.Filter.Attributes["type"] != "lost" || tr.Status.SubscriberURI == nil {
		t.Errorf("after the update the Trigger is %+v", tr)
	}

	watch := c.open(t, http.MethodGet, "brokers?watch=true&timeoutSeconds=60&fieldSelector=metadata.name%3Dshop&resourceVersion="+w.broker(t, "shop").ResourceVersion, nil)
	defer watch.Body.Close()
	c.call(t, http.MethodDelete, "triggers/gifts", nil, http.StatusOK)
	c.call(t, http.MethodDelete, "brokers/shop", map[string]any{"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}, http.StatusOK)
	for events := json.NewDecoder(watch.Body); ; {
		var event struct{ Type string }
		if err := events.Decode(&event); err != nil {
			t.Fatalf("the watch ended before it told of the deletion: %v", err)
		}
		if event.Type == "DELETED" {
			break
		}
	}
	c.call(t, http.MethodGet, "brokers/shop", nil, http.StatusNotFound)
}

// gitops are manifests as somebody keeps them, with much left to defaults.
const gitops = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata:
  name: shop
  labels: {team: gifts}
  annotations: {eventing.knative.dev/broker.class: Millrace, millrace.dev/max-bytes: 32Mi}
spec:
  delivery: {retry: 3, backoffDelay: PT1S}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: gifts}
spec:
  broker: shop
  filters:
  - exact: {type: sent}
  - any:
    - prefix: {source: /shop}
    - cel: data.value > 5
  subscriber: {ref: {apiVersion: v1, kind: Service, name: gifts}, uri: hook}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: plain}
spec:
  broker: shop
  subscriber: {uri: 'http://plain.example/'}
  delivery: {deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: gifts}}}
`

// TestRoundTrips applies manifests as kubectl and GitOps controllers do, again and again: once applied and Ready there is no
// difference to be seen, and applying them again changes nothing.
func TestRoundTrips(t *testing.T) {
	w := startWorld(t)
	manifests := filepath.Join(t.TempDir(), "manifests.yaml")
	harness.WriteFile(t, manifests, gitops)
	for name, flags := range map[string][]string{"server-side": {"--server-side"}, "client-side": nil} {
		t.Run(name, func(t *testing.T) {
			there := *w
			there.namespace = kube.Namespace(t)
			kube.Apply(t, there.namespace, serviceYAML("gifts"))
			in := func(args ...string) []string { return append(args, "-n", there.namespace, "-f", manifests) }
			kubectl(t, append(in("apply"), flags...)...)
			kubectl(t, "wait", "-n", there.namespace, "--for=condition=Ready", "--timeout="+harness.Patience.String(), "broker/shop", "trigger/gifts", "trigger/plain")

			before := there.versions(t)
			if diff, err := tryKubectl(t, append(in("diff"), flags...)...); err != nil {
				t.Errorf("there is a difference (%v): %s", err, diff)
			}
			kubectl(t, append(in("apply"), flags...)...)
			if after := there.versions(t); !maps.Equal(before, after) {
				t.Errorf("applying again changed generations and resource versions from %v to %v", before, after)
			}
			for _, want := range cluster.Decode(t, gitops) {
				got := there.read(t, want)
				checkSpecIsTheAuthors(t, want, got)
				checkManagers(t, got)
			}
		})
	}
}

// versions returns the generation and resource version of each object of gitops.
func (w *world) versions(t *testing.T) map[string]string {
	t.Helper()
	versions := map[string]string{}
	for _, o := range cluster.Decode(t, gitops) {
		got := w.read(t, o)
		versions[o.GetName()] = fmt.Sprint(got.GetGeneration(), " ", got.GetResourceVersion())
	}
	return versions
}

func (w *world) read(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	got := &unstructured.Unstructured{}
	got.SetGroupVersionKind(o.GroupVersionKind())
	if err := kube.Client.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: o.GetName()}, got); err != nil {
		t.Fatal(err)
	}
	return got
}

// checkSpecIsTheAuthors compares a spec with the manifest. The API server adds the one default of the schema.
func checkSpecIsTheAuthors(t *testing.T, want, got *unstructured.Unstructured) {
	t.Helper()
	spec := at[map[string]any](t, want.Object, "spec")
	if want.GetKind() == eventingv1.KindTrigger && spec["filter"] == nil {
		spec["filter"] = map[string]any{}
	}
	if got, want := asJSON(t, got.Object["spec"]), asJSON(t, spec); got != want {
		t.Errorf("the spec reads %s, was written %s", got, want)
	}
}

// checkManagers has whoever writes status own nothing else, and nobody but who applied own the rest.
func checkManagers(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	statuses := 0
	for _, entry := range o.GetManagedFields() {
		var fields map[string]any
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			t.Fatal(err)
		}
		owned := slices.Sorted(maps.Keys(fields))
		switch {
		case entry.Subresource == "status":
			statuses++
			if !slices.Equal(owned, []string{"f:status"}) {
				t.Errorf("%s %s: who writes status as %s owns %v", o.GetKind(), o.GetName(), entry.Manager, owned)
			}
		case !strings.HasPrefix(entry.Manager, "kubectl"):
			t.Errorf("%s %s: %s owns %v", o.GetKind(), o.GetName(), entry.Manager, owned)
		case slices.Contains(owned, "f:status"):
			t.Errorf("%s %s: %s owns %v", o.GetKind(), o.GetName(), entry.Manager, owned)
		}
	}
	if statuses != 1 {
		t.Errorf("%s %s: %d write its status, want one", o.GetKind(), o.GetName(), statuses)
	}
}

// TestSeveralManagers has two parties own different fields of the same objects. Neither takes the other's away, each gives
// up its own, and what both want is a conflict that names the other.
func TestSeveralManagers(t *testing.T) {
	w := startWorld(t)
	apply := func(manager, text string) error {
		t.Helper()
		o := cluster.Decode(t, text)[0]
		o.SetNamespace(w.namespace)
		return kube.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner(manager))
	}
	must := func(manager, text string) {
		t.Helper()
		if err := apply(manager, text); err != nil {
			t.Fatalf("%s applies %s: %v", manager, text, err)
		}
	}
	team := triggerYAML("gifts", "{broker: shop, filters: [{exact: {type: sent}}], subscriber: {uri: 'http://gifts.example/'}}")
	tuning := func(spec string) string {
		return "{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: gifts, annotations: {millrace.dev/max-concurrency: '5'}}, spec: " + spec + "}"
	}
	must("team", brokerYAML("shop", "{}"))
	must("team", team)
	must("tuning", tuning("{delivery: {retry: 9, timeout: PT5S}}"))
	must("team", team)
	tr := w.waitTrigger(t, "gifts", ready, "True")
	if d := tr.Spec.Delivery; d == nil || *d.Retry != 9 || len(tr.Spec.Filters) != 1 || tr.Annotations[eventingv1.MaxConcurrencyAnnotation] != "5" {
		t.Errorf("what two parties applied reads %+v %v", tr.Spec, tr.Annotations)
	}
	err := apply("tuning", tuning("{filters: [{exact: {type: other}}], delivery: {retry: 9}}"))
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "team"`) || !strings.Contains(err.Error(), ".spec.filters") {
		t.Errorf("applying another's field gave %v, want a conflict that names it", err)
	}
	must("tuning", tuning("{delivery: {retry: 9}}"))
	if d := w.trigger(t, "gifts").Spec.Delivery; d == nil || d.Timeout != nil || *d.Retry != 9 {
		t.Errorf("after its manager gave timeout up, delivery reads %+v", d)
	}
	must("team", brokerYAML("shop", "{delivery: {retry: 1}}"))
	w.waitBroker(t, "shop", ready, "True")
	w.waitTrigger(t, "gifts", ready, "True")
}
