package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/access"
	"millrace.dev/internal/app"
	kubesource "millrace.dev/internal/objects/kube"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// startIngress runs an ingress with the rights that it is installed with, and returns the URL that Brokers' paths follow
// and that of its admin port.
func (w *world) startIngress(t *testing.T) (url, admin string) {
	t.Helper()
	return w.start(t, "broker-ingress", kubesource.NewBrokers, app.RunIngress)
}

// startFilter runs a filter likewise, until the test ends or stop is called.
func (w *world) startFilter(t *testing.T) (stop func(), admin string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	_, admin = w.start(t, "broker-filter", kubesource.New, func(whole context.Context, o app.Options) error {
		defer close(done)
		context.AfterFunc(whole, cancel)
		return app.RunFilter(ctx, o)
	})
	return func() { cancel(); <-done }, admin
}

// start runs a program of the data plane under a service account until the test ends.
func (w *world) start(t *testing.T, account string,
	open func(*rest.Config, *slog.Logger) (*kubesource.Source, error), run func(context.Context, app.Options) error,
) (listen, admin string) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(&harness.Output{}, nil))
	source, err := open(installRights(t, w.system, account), log)
	if err != nil {
		t.Fatal(err)
	}
	o := app.Options{
		Cluster: source, Logger: log, AllowLoopback: true, DrainTimeout: 20 * time.Second,
		Listen: "127.0.0.1:" + strconv.Itoa(harness.FreePort(t)), Admin: "127.0.0.1:" + strconv.Itoa(harness.FreePort(t)),
		NATS: w.nats,
	}
	if account == "broker-filter" { // as its main does
		if o.Access, err = access.New(installRights(t, w.system, account)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s ended with %v", account, err)
		}
	})
	harness.WaitReady(t, "http://"+o.Admin+"/healthz")
	return "http://" + o.Listen, "http://" + o.Admin
}

// post posts an event of the type to the Broker until it is accepted; the ingress may not know the Broker yet.
func (w *world) post(t *testing.T, url, broker, id, kind string) {
	t.Helper()
	harness.Eventually(t, "event "+id+" is accepted", func() error {
		status, body := harness.Post(t, url+"/"+w.namespace+"/"+broker, "application/json", []byte(`{"value": 6}`),
			ceHeaders(id, kind)...)
		if status != http.StatusAccepted {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
}

// TestEventsFollowTheCluster has events go where the objects in the cluster say, through changes of these.
func TestEventsFollowTheCluster(t *testing.T) {
	w := startWorld(t)
	url, admin := w.startIngress(t)
	ledger := harness.NewLedger(t)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+
		triggerYAML("all", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/all'}}")+
		triggerYAML("some", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/some'}, filters: [{exact: {type: sent}}, {cel: data.value > 5}]}")+
		triggerYAML("broken", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/broken'}, filters: [{any: [{exact: 5}]}]}")+
		triggerYAML("lost", "{broker: shop, subscriber: {ref: {kind: Service, name: nobody}}}"))
	w.waitTrigger(t, "all", ready, "True")
	w.waitTrigger(t, "some", ready, "True")
	w.waitTrigger(t, "broken", ready, "False")
	harness.WaitReady(t, admin+"/readyz")

	w.post(t, url, "shop", "1", "sent")
	w.post(t, url, "shop", "2", "lost")
	ledger.WaitQuiet(t, 3, 300*time.Millisecond)
	if got := fmt.Sprint(ledger.Path("/all"), ledger.Path("/some"), ledger.Path("/broken")); got != "map[1:1 2:1] map[1:1] map[]" {
		t.Errorf("subscribers got %s", got)
	}

	// A changed annotation takes effect, though it is no new generation; so does a changed spec.
	for id, change := range map[string]string{
		"annotation": `{"metadata": {"annotations": {"millrace.dev/cel-filter": "ce.type == 'lost'"}}}`,
		"spec":       `{"metadata": {"annotations": {"millrace.dev/cel-filter": null}}, "spec": {"filters": [{"exact": {"type": "nothing"}}]}}`,
	} {
		if err := kube.Client.Patch(t.Context(), w.trigger(t, "all"), client.RawPatch(types.MergePatchType, []byte(change))); err != nil {
			t.Fatal(err)
		}
		n := 0
		harness.Eventually(t, "the new "+id+" is in effect", func() error {
			n++
			event := id + strconv.Itoa(n)
			w.post(t, url, "shop", event, "sent")
			harness.Eventually(t, "the other Trigger gets "+event, func() error {
				if ledger.Path("/some")[event] == 0 {
					return fmt.Errorf("it has %v", ledger.Path("/some"))
				}
				return nil
			})
			time.Sleep(100 * time.Millisecond) // for this one, if it still wants it
			if ledger.Path("/all")[event] > 0 {
				return fmt.Errorf("event %s was delivered", event)
			}
			return nil
		})
	}

	// A Broker that is gone is not found, and its name can be taken again: without the old Broker's events.
	if err := kube.Client.Delete(t.Context(), w.broker(t, "shop")); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the Broker is gone", func() error {
		status, body := harness.Post(t, url+"/"+w.namespace+"/shop", "application/json", []byte("{}"), ceHeaders("gone", "sent")...)
		if status != http.StatusNotFound {
			return fmt.Errorf("status %d: %s", status, body)
		}
		return nil
	})
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}"))
	w.waitTrigger(t, "some", ready, "True")
	w.post(t, url, "shop", "anew", "sent")
	harness.Eventually(t, "the new Broker's event is delivered", func() error {
		if ledger.Path("/some")["anew"] != 1 {
			return fmt.Errorf("got %v", ledger.Path("/some"))
		}
		return nil
	})
}

// TestOneBrokerOutOfOrder has a Broker whose streams the store refuses, and one of another class.
func TestOneBrokerOutOfOrder(t *testing.T) {
	w := startWorld(t)
	url, admin := w.startIngress(t)
	ledger := harness.NewLedger(t)
	kube.Apply(t, w.namespace, `
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: greedy, annotations: {eventing.knative.dev/broker.class: Millrace, millrace.dev/replicas: "3"}}}
---
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: other, annotations: {eventing.knative.dev/broker.class: Other}}}
---
`+triggerYAML("gifts", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/gifts'}}"))
	w.waitBroker(t, "greedy", ready, "False", eventingv1.ReasonStreamRefused, "replicas")
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}"))
	w.waitTrigger(t, "gifts", ready, "True")
	w.post(t, url, "shop", "1", "sent")
	ledger.WaitQuiet(t, 1, 100*time.Millisecond)
	harness.WaitReady(t, admin+"/readyz")
	harness.WaitReady(t, w.filter+"/readyz")
	for name, want := range map[string]int{"other": http.StatusNotFound, "greedy": http.StatusServiceUnavailable} {
		status, body := harness.Post(t, url+"/"+w.namespace+"/"+name, "application/json", []byte("{}"), ceHeaders("1", "sent")...)
		if status != want {
			t.Errorf("Broker %s answers %d (%s), want %d", name, status, body, want)
		}
	}
}

// ceHeaders are the headers of an event in binary mode.
func ceHeaders(id, kind string) []string {
	return []string{"Ce-Specversion: 1.0", "Ce-Id: " + id, "Ce-Source: /shop", "Ce-Type: " + kind}
}

// TestTriggerIsReadyOnceEveryFilterServesIt has filters come, lag behind and go.
func TestTriggerIsReadyOnceEveryFilterServesIt(t *testing.T) {
	w := newWorld(t)
	w.startController(t, nil)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+triggerYAML("gifts", "{broker: shop, subscriber: {uri: 'http://x.example/1'}}"))
	w.waitTrigger(t, "gifts", "SubscriptionReady", "False", eventingv1.ReasonNoFilter, "no filter is running")
	w.waitTrigger(t, "gifts", ready, "False", eventingv1.ReasonNoFilter)
	stop, _ := w.startFilter(t)
	w.waitTrigger(t, "gifts", ready, "True")

	// Another filter joins that knows nothing. What was ready stays so, what changes is not until it has caught up.
	var caughtUp atomic.Bool
	lagging, err := w.conn.Join(stream.FilterGroup)
	if err == nil {
		err = lagging.Answer(func(stream.Version) bool { return caughtUp.Load() })
	}
	if err != nil {
		t.Fatal(err)
	}
	kube.Apply(t, w.namespace, triggerYAML("gifts", "{broker: shop, subscriber: {uri: 'http://x.example/2'}}")+
		triggerYAML("later", "{broker: shop, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "later", ready, "Unknown", eventingv1.ReasonNotServedYet, "not every filter")
	w.waitTrigger(t, "gifts", ready, "Unknown", eventingv1.ReasonNotServedYet, "not every filter")
	caughtUp.Store(true)
	w.waitTrigger(t, "later", ready, "True")
	tr := w.waitTrigger(t, "gifts", ready, "True")
	if got := deref(tr.Status.SubscriberURI); got != "http://x.example/2" {
		t.Errorf("subscriberUri %s, want the new one", got)
	}

	// Filters that are down take nothing away from what they have confirmed.
	lagging.Leave()
	stop()
	kube.Apply(t, w.namespace, triggerYAML("last", "{broker: shop, subscriber: {uri: 'http://x.example'}}"))
	w.waitTrigger(t, "last", ready, "False", eventingv1.ReasonNoFilter)
	w.waitTrigger(t, "gifts", ready, "True")
}
