package e2ecluster

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.dev/test/cluster"
)

// conveyorKind is a kind of somebody else's that events can be sent to, and the role by which the controller may read it.
const conveyorKind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: conveyors.e2e.example}
spec:
  group: e2e.example
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
metadata: {name: e2e-conveyors, labels: {duck.knative.dev/addressable: "true"}}
rules: [{apiGroups: [e2e.example], resources: [conveyors], verbs: [get, list, watch]}]
`

// TestAddressable has objects of a kind that Millrace learns of from a reference alone be subscriber and dead letter sink.
func TestAddressable(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	for _, o := range cluster.Decode(t, conveyorKind) {
		if err := kube.TryApply(t.Context(), "", o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = kube.Client.Delete(context.Background(), o) })
	}
	kube.Apply(t, ns, `
{apiVersion: eventing.knative.dev/v1, kind: Broker, metadata: {name: shop, annotations: {eventing.knative.dev/broker.class: Millrace}}, spec: {
  delivery: {retry: 0, deadLetterSink: {ref: {apiVersion: e2e.example/v1, kind: Conveyor, name: letters}}}}}
---
{apiVersion: eventing.knative.dev/v1, kind: Trigger, metadata: {name: moved}, spec: {broker: shop, filter: {attributes: {type: order.created}},
  subscriber: {ref: {apiVersion: e2e.example/v1, kind: Conveyor, name: belt}}}}
---
`+triggerOf("refused", "shop", `filter: {attributes: {type: order.refunded}}`, "/in/refused?status=400"))
	inbox := "http://probe." + ns + ".svc.cluster.local/in/"
	conveyor(t, ns, "letters", inbox+"letters")
	conveyor(t, ns, "belt", inbox+"first")
	ready(t, ns)
	url := address(t, ns, "shop")
	p.post(t, url, created)
	p.arrives(t, "first", "created")
	p.post(t, url, refunded)
	if dead := p.arrives(t, "letters", "refunded")["refunded"]; dead.Attributes["knativeerrorcode"] != "400" {
		t.Errorf("the dead letter says %v", dead.Attributes)
	}

	conveyor(t, ns, "belt", inbox+"second")
	eventually(t, "the new address is known", func(ctx context.Context) error {
		o, err := get(ctx, "Trigger", ns, "moved")
		if err != nil {
			return err
		}
		if uri, _, _ := unstructured.NestedString(o.Object, "status", "subscriberUri"); uri != inbox+"second" {
			return fmt.Errorf("subscriberUri is %s", uri)
		}
		return nil
	})
	ready(t, ns)
	again := created
	again.id = "again"
	p.post(t, url, again)
	p.arrives(t, "second", "again")
}

// conveyor makes a Conveyor unless it is there, and gives it an address as a controller of its own would.
func conveyor(t *testing.T, namespace, name, url string) {
	t.Helper()
	o := cluster.Decode(t, "{apiVersion: e2e.example/v1, kind: Conveyor, metadata: {name: "+name+"}}")[0]
	eventually(t, "the kind is served", func(ctx context.Context) error { return kube.TryApply(ctx, namespace, o.DeepCopy()) })
	o.SetNamespace(namespace)
	patch := fmt.Sprintf(`{"status": {"address": {"url": %q}}}`, url)
	if err := kube.Client.Status().Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}
