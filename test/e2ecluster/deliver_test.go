package e2ecluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// brokerManifest has what fails tried twice, and then given to the subscriber "dead" of the probe.
const brokerManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata:
  name: NAME
  annotations: {eventing.knative.dev/broker.class: Millrace}
spec:
  delivery:
    retry: 1
    backoffPolicy: linear
    backoffDelay: PT0.1S
    deadLetterSink: {ref: {apiVersion: v1, kind: Service, name: probe}, uri: /in/dead}
`

func brokerOf(name string) string { return strings.Replace(brokerManifest, "NAME", name, 1) }

// triggerOf is a Trigger for the Service of the probe. filters is a part of its spec.
func triggerOf(name, broker, filters, path string) string {
	return fmt.Sprintf(`
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: %s}
spec:
  broker: %s
  %s
  subscriber: {ref: {apiVersion: v1, kind: Service, name: probe}, uri: '%s'}
`, name, broker, filters, path)
}

var (
	created  = event{id: "created", kind: "order.created", source: "/shop", region: "eu", data: `{"total": 150}`}
	refunded = event{id: "refunded", kind: "order.refunded", source: "/shop", region: "us", data: `{"total": 20}`}
	joined   = event{id: "joined", kind: "user.created", source: "/accounts", region: "eu", data: `{}`}
)

// TestFilters applies a Trigger of every dialect and posts events from a pod to the address of the Broker.
func TestFilters(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	dialects := map[string]struct {
		filters string
		want    []string
	}{
		"everything":    {``, []string{"created", "refunded", "joined"}},
		"attributes":    {`filter: {attributes: {type: order.created, region: eu}}`, []string{"created"}},
		"sourceandtype": {`filter: {sourceAndType: {source: /shop, type: order.refunded}}`, []string{"refunded"}},
		"exact":         {`filters: [{exact: {type: user.created}}]`, []string{"joined"}},
		"prefix":        {`filters: [{prefix: {type: order.}}]`, []string{"created", "refunded"}},
		"suffix":        {`filters: [{suffix: {type: .created}}]`, []string{"created", "joined"}},
		"any":           {`filters: [{any: [{exact: {type: user.created}}, {exact: {region: us}}]}]`, []string{"refunded", "joined"}},
		"all":           {`filters: [{all: [{prefix: {type: order.}}, {exact: {region: eu}}]}]`, []string{"created"}},
		"not":           {`filters: [{not: {prefix: {type: order.}}}]`, []string{"joined"}},
		"cesql":         {`filters: [{cesql: "type LIKE 'order.%' AND region = 'us'"}]`, []string{"refunded"}},
		"cel":           {`filters: [{cel: 'ce.type == "order.created" && data.total > 100'}]`, []string{"created"}},
	}
	kube.Apply(t, ns, brokerOf("shop"))
	for name, dialect := range dialects {
		kube.Apply(t, ns, triggerOf(name, "shop", dialect.filters, "/in/"+name))
	}
	ready(t, ns)

	url := address(t, ns, "shop")
	for _, e := range []event{created, refunded, joined} {
		p.post(t, url, e)
	}
	for name, dialect := range dialects {
		got := p.arrives(t, name, dialect.want...)
		for _, e := range []event{created, refunded, joined} {
			if r, ok := got[e.id]; ok && (r.Type != e.kind || r.Source != e.source || r.Attributes["region"] != e.region || r.Data != e.data) {
				t.Errorf("%s got %+v of %+v", name, r, e)
			}
		}
	}
}

// TestReplyAndDeadLetter follows a reply back into the Broker, and an event that is refused to the dead letter sink.
func TestReplyAndDeadLetter(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	kube.Apply(t, ns, brokerOf("shop"))
	kube.Apply(t, ns, triggerOf("asked", "shop", `filter: {attributes: {type: order.created}}`, "/in/asked?reply=order.answered"))
	kube.Apply(t, ns, triggerOf("answered", "shop", `filter: {attributes: {type: order.answered}}`, "/in/answered"))
	kube.Apply(t, ns, triggerOf("refused", "shop", `filter: {attributes: {type: order.refunded}}`, "/in/refused?status=500"))
	ready(t, ns)

	url := address(t, ns, "shop")
	p.post(t, url, created)
	p.post(t, url, refunded)
	p.arrives(t, "asked", "created")
	p.arrives(t, "answered", "reply-to-created")
	p.arrives(t, "refused", "refunded")
	dead := p.arrives(t, "dead", "refunded")["refunded"]
	if dead.Attributes["knativeerrorcode"] != "500" || !strings.Contains(dead.Attributes["knativeerrordest"], "/in/refused") {
		t.Errorf("the dead letter says %v", dead.Attributes)
	}
}

// TestNamesAndOrder has a Broker that comes after its Trigger, and both with the longest name that is allowed.
func TestNamesAndOrder(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	name := "a" + strings.Repeat("-long", 12) + "-b"
	if len(name) != 63 {
		t.Fatalf("the name has %d characters", len(name))
	}
	kube.Apply(t, ns, triggerOf(name, name, "", "/in/late"))
	eventually(t, "the Trigger says that its Broker is missing", func(ctx context.Context) error {
		o, err := get(ctx, "Trigger", ns, name)
		if err == nil && !strings.Contains(fmt.Sprint(o.Object["status"]), "BrokerDoesNotExist") {
			err = fmt.Errorf("status is %v", o.Object["status"])
		}
		return err
	})
	kube.Apply(t, ns, brokerOf(name))
	ready(t, ns)
	p.post(t, address(t, ns, name), created)
	p.arrives(t, "late", "created")
}
