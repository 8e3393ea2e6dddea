package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/app"
	"millrace.dev/internal/controller"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// world is a controller that runs on a store of its own.
type world struct {
	nats      stream.ConnOptions
	conn      *stream.Conn
	filter    string // the URL of the filter's admin port
	namespace string // of the test's objects
	system    string
}

// startWorld starts a store, a filter and a controller with the rights that they are installed with.
func startWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	_, w.filter = w.startFilter(t)
	w.startController(t, nil)
	return w
}

// newWorld starts a store.
func newWorld(t *testing.T) *world {
	t.Helper()
	needsCluster(t)
	w := &world{nats: stream.ConnOptions{InProcess: startStore(t)}, namespace: kube.Namespace(t), system: kube.Namespace(t)}
	var err error
	if w.conn, err = stream.Dial(w.nats); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.conn.Close)
	return w
}

func startStore(t *testing.T) *devserver.Server {
	t.Helper()
	s, err := devserver.Start(devserver.Options{Dir: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// startController runs a controller until the test ends or stop is called.
func (w *world) startController(t *testing.T, configure func(*controller.Options)) (stop func()) {
	t.Helper()
	out := &harness.Output{}
	limits, err := app.LimitDefaults{MaxBytes: eventingv1.MinStoreBytes}.Complete()
	if err != nil {
		t.Fatal(err)
	}
	o := controller.Options{
		Config:    installRights(t, w.system, "broker-controller"),
		Namespace: w.system,
		Admin:     "127.0.0.1:0",
		NATS:      w.nats,
		Limits: func(b *eventingv1.Broker) stream.Limits {
			l, _ := limits.Resolve(b)
			return l
		},
		Logger: slog.New(slog.NewTextHandler(out, nil)),
	}
	if configure != nil {
		configure(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- controller.Run(ctx, o) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the controller ended with %v", err)
			}
		case <-time.After(harness.Patience):
			t.Error("the controller does not stop")
		}
		if t.Failed() {
			t.Logf("the controller's log:\n%s", out)
		}
	}
	t.Cleanup(stop)
	return stop
}

// broker and trigger read an object of the test.
func (w *world) broker(t *testing.T, name string) *eventingv1.Broker {
	t.Helper()
	b := &eventingv1.Broker{}
	if err := kube.Client.Get(t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) trigger(t *testing.T, name string) *eventingv1.Trigger {
	t.Helper()
	tr := &eventingv1.Trigger{}
	if err := kube.Client.Get(t.Context(), types.NamespacedName{Namespace: w.namespace, Name: name}, tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

// waitBroker and waitTrigger wait until a condition is as wanted: status, reason, and a part of the message.
func (w *world) waitBroker(t *testing.T, name, condition string, want ...string) *eventingv1.Broker {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("Broker %s is %s %v", name, condition, want), func() error {
		return conditionIs(&w.broker(t, name).Status.Status, condition, want)
	})
	return w.broker(t, name)
}

func (w *world) waitTrigger(t *testing.T, name, condition string, want ...string) *eventingv1.Trigger {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("Trigger %s is %s %v", name, condition, want), func() error {
		return conditionIs(&w.trigger(t, name).Status.Status, condition, want)
	})
	return w.trigger(t, name)
}

func conditionIs(s *eventingv1.Status, kind string, want []string) error {
	c := meta.FindStatusCondition(s.Conditions, kind)
	if c == nil {
		return errors.New("it has no such condition")
	}
	got := []string{string(c.Status), c.Reason, c.Message}
	for i := range want {
		if i < 2 && got[i] != want[i] || !strings.Contains(got[i], want[i]) {
			return fmt.Errorf("it is %q", got)
		}
	}
	return nil
}

const ready = eventingv1.ConditionReady

// brokerYAML is a Broker of our class.
func brokerYAML(name, spec string) string {
	return "{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: " + name +
		", annotations: {eventing.knative.dev/broker.class: Millrace}}, spec: " + spec + "}\n---\n"
}

func triggerYAML(name, spec string) string {
	return "{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: " + name + "}, spec: " + spec + "}\n---\n"
}

func serviceYAML(name string) string {
	return "{apiVersion: v1, kind: Service, metadata: {name: " + name + "}, spec: {ports: [{port: 80}]}}\n---\n"
}

func deref(s *string) string {
	if s == nil {
		return "(none)"
	}
	return *s
}

// TestBrokerBecomesReady checks all that is said of a Broker, and that its streams are there.
func TestBrokerBecomesReady(t *testing.T) {
	w := startWorld(t)
	name := strings.Repeat("a.b-", 15) + "xyz" // 63 characters
	kube.Apply(t, w.namespace, brokerYAML(name, "{}"))
	b := w.waitBroker(t, name, ready, "True")
	if want := "http://broker-ingress." + w.system + ".svc.cluster.local/" + w.namespace + "/" + name; b.Status.Address == nil || deref(b.Status.Address.URL) != want {
		t.Errorf("address %+v, want %s", b.Status.Address, want)
	}
	if b.Status.ObservedGeneration != b.Generation {
		t.Errorf("observed generation %d of %d", b.Status.ObservedGeneration, b.Generation)
	}
	for _, condition := range []string{ready, "Addressable", "TriggerChannelReady", "DeadLetterSinkResolved"} {
		c := meta.FindStatusCondition(b.Status.Conditions, condition)
		if c == nil || c.Status != metav1.ConditionTrue || c.Reason == "" || c.ObservedGeneration != b.Generation {
			t.Errorf("condition %s is %+v", condition, c)
		}
	}
	if exist, err := w.conn.Exist(t.Context(), stream.NewNames(b.Namespace, b.Name, string(b.UID))); !exist {
		t.Errorf("the Broker is Ready without its streams (%v)", err)
	}
	if len(b.Finalizers) > 0 {
		t.Errorf("the Broker has finalizers %v, which would keep it from being deleted while we are down", b.Finalizers)
	}
}

// TestControllerProbes asks as a kubelet and a Prometheus do.
func TestControllerProbes(t *testing.T) {
	w := newWorld(t)
	admin := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	w.startController(t, func(o *controller.Options) { o.Admin, o.LogLevel = admin, &slog.LevelVar{} })
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/log-level"} {
		harness.WaitReady(t, "http://"+admin+path)
	}
}

func TestBrokersOfOtherClassesAreIgnored(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, w.namespace, `
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: other, annotations: {eventing.knative.dev/broker.class: Other}}}
---
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: none}}
---
`+triggerYAML("of-other", "{broker: other, subscriber: {uri: 'http://x.example'}}")+triggerYAML("ours", "{broker: ours, subscriber: {uri: 'http://x.example'}}")+brokerYAML("ours", "{}"))
	w.waitTrigger(t, "ours", ready, "True") // by now the others were looked at, too
	for _, name := range []string{"other", "none"} {
		if b := w.broker(t, name); len(b.Status.Conditions) > 0 || b.Status.Address != nil {
			t.Errorf("Broker %s got the status %+v", name, b.Status)
		}
	}
	if tr := w.trigger(t, "of-other"); len(tr.Status.Conditions) > 0 {
		t.Errorf("the Trigger of a Broker of another class got the status %+v", tr.Status)
	}
}

// TestTriggerBeforeItsBroker has everything come after what refers to it.
func TestTriggerBeforeItsBroker(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, w.namespace, triggerYAML("gifts", `{broker: shop, subscriber: {ref: {kind: Service, name: gifts}, uri: /hook},
		delivery: {deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: letters}}}}`))
	w.waitTrigger(t, "gifts", "BrokerReady", "False", eventingv1.ReasonBrokerDoesNotExist, "there is no Broker "+w.namespace+"/shop: add one")
	tr := w.waitTrigger(t, "gifts", "SubscriberResolved", "False", eventingv1.ReasonSubscriberUnresolved, "there is no Service "+w.namespace+"/gifts: add it")
	w.waitTrigger(t, "gifts", ready, "False")
	if tr.Status.SubscriberURI != nil {
		t.Errorf("subscriberUri is %s", *tr.Status.SubscriberURI)
	}
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}"))
	w.waitTrigger(t, "gifts", "BrokerReady", "True")
	kube.Apply(t, w.namespace, serviceYAML("gifts"))
	w.waitTrigger(t, "gifts", "SubscriberResolved", "True")
	w.waitTrigger(t, "gifts", ready, "False", eventingv1.ReasonDeadLetterSinkUnresolved, "there is no Service "+w.namespace+"/letters")
	kube.Apply(t, w.namespace, serviceYAML("letters"))
	tr = w.waitTrigger(t, "gifts", ready, "True")
	if got, want := deref(tr.Status.SubscriberURI), "http://gifts."+w.namespace+".svc.cluster.local/hook"; got != want {
		t.Errorf("subscriberUri %s, want %s", got, want)
	}
	if got, want := deref(tr.Status.DeadLetterSinkURI), "http://letters."+w.namespace+".svc.cluster.local"; got != want {
		t.Errorf("deadLetterSinkUri %s, want %s", got, want)
	}
	for _, condition := range []string{"BrokerReady", "DependencyReady", "SubscriberResolved", "DeadLetterSinkResolved", "SubscriptionReady"} {
		if !meta.IsStatusConditionTrue(tr.Status.Conditions, condition) {
			t.Errorf("the Trigger is Ready without %s", condition)
		}
	}

	// And everything goes before it.
	if err := kube.Client.Delete(t.Context(), w.broker(t, "shop")); err != nil {
		t.Fatal(err)
	}
	w.waitTrigger(t, "gifts", ready, "False", eventingv1.ReasonBrokerDoesNotExist)
}

// TestAddressables has subscribers of kinds that the controller learns of from Triggers alone.
func TestAddressables(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+brokerYAML("audit", "{}")+
		triggerYAML("to-broker", "{broker: shop, subscriber: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: audit}}}")+
		triggerYAML("to-belt", "{broker: shop, subscriber: {ref: {apiVersion: test.example/v1, kind: Conveyor, name: belt}}}")+
		triggerYAML("to-side", "{broker: shop, subscriber: {ref: {apiVersion: test.example/v1, kind: Conveyor, name: belt, address: side}}}"))
	w.waitTrigger(t, "to-broker", ready, "True")
	if got := deref(w.trigger(t, "to-broker").Status.SubscriberURI); !strings.HasSuffix(got, "/"+w.namespace+"/audit") {
		t.Errorf("subscriberUri %s, want the Broker's address", got)
	}
	w.waitTrigger(t, "to-belt", ready, "False", eventingv1.ReasonSubscriberUnresolved, "the cluster knows no kind Conveyor of test.example/v1")

	kube.Apply(t, "", conveyorCRD)
	aggregate(t)
	t.Cleanup(func() { deleteCRD(t, "conveyors.test.example") })
	harness.Eventually(t, "the kind is served", func() error {
		return applyOne(t, w.namespace, "{apiVersion: test.example/v1, kind: Conveyor, metadata: {name: belt}}")
	})
	w.waitTrigger(t, "to-belt", ready, "False", eventingv1.ReasonSubscriberUnresolved, "has no status.address.url")
	for _, port := range []string{"1", "2"} { // the second time it is a watch that tells
		w.setAddress(t, "belt", "http://belt.example:"+port+"/")
		harness.Eventually(t, "the address is taken up", func() error {
			if got := deref(w.trigger(t, "to-belt").Status.SubscriberURI); got != "http://belt.example:"+port+"/" {
				return errors.New("subscriberUri is " + got)
			}
			if got := deref(w.trigger(t, "to-side").Status.SubscriberURI); got != "http://belt.example:"+port+"/side" {
				return errors.New("subscriberUri of the other address is " + got)
			}
			return nil
		})
	}
	if got := deref(w.trigger(t, "to-belt").Status.SubscriberCACerts); got != "certificates" {
		t.Errorf("subscriberCACerts %s, want the address's", got)
	}
}

const conveyorCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: conveyors.test.example}
spec:
  group: test.example
  scope: Namespaced
  names: {kind: Conveyor, plural: conveyors, singular: conveyor, listKind: ConveyorList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-conveyors, labels: {duck.knative.dev/addressable: "true"}}
rules: [{apiGroups: [test.example], resources: [conveyors], verbs: [get, list, watch]}]
`

// setAddress gives a Conveyor its address as its own controller would.
func (w *world) setAddress(t *testing.T, name, url string) {
	t.Helper()
	patch := fmt.Sprintf(`{"status": {"address": {"url": %q, "CACerts": "certificates"}, "addresses": [{"name": "side", "url": %q}]}}`, url, url+"side")
	o := conveyor(w.namespace, name)
	if err := kube.Client.Status().Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

func TestDependency(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, "", conveyorCRD)
	aggregate(t)
	t.Cleanup(func() { deleteCRD(t, "conveyors.test.example") })
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+`
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: waits, annotations: {knative.dev/dependency: '{"apiVersion":"test.example/v1","kind":"Conveyor","name":"belt"}'}}
spec: {broker: shop, subscriber: {uri: "bad://nobody"}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: malformed, annotations: {knative.dev/dependency: belt}}
spec: {broker: shop, subscriber: {uri: "bad://nobody"}}
`)
	w.waitTrigger(t, "malformed", ready, "False", eventingv1.ReasonDependencyNotReady, "must be JSON")
	w.waitTrigger(t, "waits", ready, "False", eventingv1.ReasonDependencyNotReady)
	harness.Eventually(t, "the kind is served", func() error {
		return applyOne(t, w.namespace, "{apiVersion: test.example/v1, kind: Conveyor, metadata: {name: belt}}")
	})
	for _, status := range []string{"True", "False", "True"} {
		patch := `{"status": {"conditions": [{"type": "Ready", "status": "` + status + `"}]}}`
		if err := kube.Client.Status().Patch(t.Context(), conveyor(w.namespace, "belt"), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		w.waitTrigger(t, "waits", "DependencyReady", status)
		w.waitTrigger(t, "waits", ready, status)
	}
}

// TestMistakesAreReported has what the API server lets through.
func TestMistakesAreReported(t *testing.T) {
	w := startWorld(t)
	subscribed := func(name, more string) string {
		return triggerYAML(name, "{broker: shop, subscriber: {uri: 'http://x.example'}, "+more+"}")
	}
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+
		subscribed("cel", `filters: [{cel: "ce.type == "}]`)+
		subscribed("nested", `filters: [{any: [{exact: {type: 5}}]}]`)+
		subscribed("cesql", `filters: [{cesql: "type LIKE"}]`)+
		subscribed("duration", `delivery: {timeout: P9999D}`)+
		triggerYAML("thief", "{brokerRef: {apiVersion: eventing.knative.dev/v1, kind: Broker, namespace: elsewhere, name: shop}, subscriber: {uri: 'http://x.example'}}")+
		subscribed("sound", "filters: [{cel: 'ce.type == \"a\"'}]")+`
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: huge, annotations: {eventing.knative.dev/broker.class: Millrace, millrace.dev/max-bytes: 10GB}}}
`)
	for name, want := range map[string]string{
		"cel": "spec.filters[0].cel", "nested": "spec.filters[0].any[0]", "cesql": "spec.filters[0].cesql",
		"duration": "must be at most P365D",
	} {
		w.waitTrigger(t, name, "SubscriptionReady", "False", eventingv1.ReasonInvalidSpec, want)
		w.waitTrigger(t, name, ready, "False", eventingv1.ReasonInvalidSpec, want)
	}
	w.waitTrigger(t, "thief", "SubscriptionReady", "False", eventingv1.ReasonInvalidSpec, "may not take the events of another namespace")
	w.waitTrigger(t, "sound", ready, "True")
	w.waitBroker(t, "huge", ready, "False", eventingv1.ReasonInvalidSpec, "write 10Gi")

	// A corrected mistake is forgotten.
	kube.Apply(t, w.namespace, subscribed("cel", `filters: [{cel: 'ce.type == "a"'}]`))
	tr := w.waitTrigger(t, "cel", ready, "True")
	if tr.Status.ObservedGeneration != tr.Generation {
		t.Errorf("observed generation %d of %d", tr.Status.ObservedGeneration, tr.Generation)
	}
}

// TestEventsTell reads the Events that kubectl describe shows.
func TestEventsTell(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, w.namespace, triggerYAML("gifts", "{broker: shop, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "gifts", ready, "False")
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}"))
	w.waitTrigger(t, "gifts", ready, "True")
	harness.Eventually(t, "the Events are there", func() error {
		out := kubectl(t, "get", "events", "-n", w.namespace, "--field-selector", "involvedObject.name=gifts",
			"-o", `jsonpath={range .items[*]}{.type} {.reason}: {.message}{"\n"}{end}`)
		for _, want := range []string{"Warning BrokerDoesNotExist: there is no Broker", "Normal Ready: "} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no Event %q in:\n%s", want, out)
			}
		}
		return nil
	})
}

// TestStatusIsWrittenOnce shows that the controller and the API server do not go round in circles: nothing changes
// without a cause.
func TestStatusIsWrittenOnce(t *testing.T) {
	w := startWorld(t)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{delivery: {deadLetterSink: {uri: 'http://letters.example'}}}")+
		triggerYAML("gifts", "{broker: shop, subscriber: {ref: {kind: Service, name: nobody}}}")+
		triggerYAML("orphan", "{broker: nobody, subscriber: {uri: 'http://x.example'}}")+triggerYAML("good", "{broker: shop, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "good", ready, "True")
	w.waitTrigger(t, "gifts", "BrokerReady", "True")
	w.waitTrigger(t, "orphan", ready, "False")
	versions := func() string {
		return w.broker(t, "shop").ResourceVersion + " " + w.trigger(t, "gifts").ResourceVersion + " " +
			w.trigger(t, "orphan").ResourceVersion + " " + w.trigger(t, "good").ResourceVersion
	}
	before := versions()
	// Annotations make the controller look at each again.
	for _, o := range []client.Object{w.broker(t, "shop"), w.trigger(t, "gifts"), w.trigger(t, "orphan"), w.trigger(t, "good")} {
		if err := kube.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"x":"y"}}}`))); err != nil {
			t.Fatal(err)
		}
	}
	touched := versions()
	if before == touched {
		t.Fatal("the objects were not touched")
	}
	kube.Apply(t, w.namespace, triggerYAML("later", "{broker: shop, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "later", ready, "True") // the controller has got to everything that came before
	if after := versions(); after != touched {
		t.Errorf("resource versions %s became %s although nothing has changed", touched, after)
	}
	if got := deref(w.trigger(t, "good").Status.DeadLetterSinkURI); got != "http://letters.example" {
		t.Errorf("deadLetterSinkUri %s, want the Broker's", got)
	}
}

// TestStoreOutage takes the store away and brings it back.
func TestStoreOutage(t *testing.T) {
	needsCluster(t)
	dir := filepath.Join(t.TempDir(), "store")
	store, err := devserver.Start(devserver.Options{Dir: dir, Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{nats: stream.ConnOptions{URL: store.ClientURL()}, namespace: kube.Namespace(t), system: kube.Namespace(t)}
	w.startFilter(t)
	w.startController(t, nil)
	kube.Apply(t, w.namespace, brokerYAML("before", "{}")+triggerYAML("gifts", "{broker: during, subscriber: {uri: 'http://x.example'}}"))
	w.waitBroker(t, "before", ready, "True")
	port := store.Addr().String()
	store.Stop()
	kube.Apply(t, w.namespace, brokerYAML("during", "{}"))
	w.waitBroker(t, "during", ready, "False", eventingv1.ReasonStoreUnavailable, "NATS JetStream does not answer")
	w.waitTrigger(t, "gifts", ready, "False", eventingv1.ReasonBrokerNotReady, "NATS JetStream does not answer")
	if store, err = devserver.Start(devserver.Options{Dir: dir, Listen: true, Port: portOf(t, port)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Stop)
	w.waitBroker(t, "during", ready, "True")
	w.waitTrigger(t, "gifts", ready, "True")
}

// TestOnlyTheLeaderWorks runs two controllers and stops the one that works.
func TestOnlyTheLeaderWorks(t *testing.T) {
	w := newWorld(t)
	w.startFilter(t)
	first := w.startController(t, nil)
	kube.Apply(t, w.namespace, brokerYAML("one", "{}"))
	w.waitBroker(t, "one", ready, "True")
	w.startController(t, func(o *controller.Options) { o.IngressService = "second" })
	first()
	kube.Apply(t, w.namespace, brokerYAML("two", "{}"))
	b := w.waitBroker(t, "two", ready, "True")
	if got := deref(b.Status.Address.URL); !strings.HasPrefix(got, "http://second.") {
		t.Errorf("address %s, want that of the second controller, which has taken over", got)
	}
	w.waitBroker(t, "one", ready, "True")
}

// TestDeletionNeedsNobody deletes objects with everything down, and has the streams swept when the controller is back.
func TestDeletionNeedsNobody(t *testing.T) {
	w := newWorld(t)
	w.startFilter(t)
	sweeping := func(o *controller.Options) { o.SweepGrace = 200 * time.Millisecond }
	stop := w.startController(t, sweeping)
	kube.Apply(t, w.namespace, brokerYAML("gone", "{}")+brokerYAML("stays", "{}")+triggerYAML("gifts", "{broker: gone, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "gifts", ready, "True")
	stays, gone := w.waitBroker(t, "stays", ready, "True"), w.broker(t, "gone")
	stop()
	for _, o := range []client.Object{gone, w.trigger(t, "gifts")} {
		if err := kube.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := kube.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); client.IgnoreNotFound(err) != nil || err == nil {
			t.Errorf("after its deletion %T is still there (%v)", o, err)
		}
	}
	exist := func(b *eventingv1.Broker) bool {
		exist, err := w.conn.Exist(t.Context(), stream.NewNames(b.Namespace, b.Name, string(b.UID)))
		if err != nil {
			t.Fatal(err)
		}
		return exist
	}
	if !exist(gone) {
		t.Fatal("the streams went although nobody was there to delete them")
	}
	w.startController(t, sweeping)
	harness.Eventually(t, "the streams are swept", func() error {
		if exist(gone) {
			return errors.New("they are there")
		}
		return nil
	})
	if !exist(stays) {
		t.Error("the streams of a Broker that is there were swept")
	}
}

// portOf returns the port of an address.
func portOf(t *testing.T, address string) int {
	t.Helper()
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return int(a.Port())
}

func conveyor(namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("test.example/v1")
	o.SetKind("Conveyor")
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func applyOne(t *testing.T, namespace, text string) error {
	return kube.TryApply(t.Context(), namespace, cluster.Decode(t, text)[0])
}

// deleteCRD deletes a CRD with its objects and waits until it is gone.
func deleteCRD(t *testing.T, name string) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("apiextensions.k8s.io/v1")
	o.SetKind("CustomResourceDefinition")
	o.SetName(name)
	harness.Eventually(t, "the CRD is gone", func() error {
		err := kube.Client.Delete(context.Background(), o)
		if client.IgnoreNotFound(err) == nil && err != nil {
			return nil
		}
		return fmt.Errorf("deleting it gave %w", err)
	})
}
