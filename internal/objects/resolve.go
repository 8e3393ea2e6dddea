package objects

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
)

// resolver writes into status what the controller would in a cluster.
type resolver struct {
	// services maps namespace/name of a Service to its URL.
	services map[string]string
	// brokerURL returns where events for a Broker are posted to; nil when that is not known.
	brokerURL func(namespace, name string) string
	// brokers are the Brokers that there are.
	brokers map[types.NamespacedName]bool
}

// broker fills in the status of a Broker.
func (r *resolver) broker(broker *eventingv1.Broker, now metav1.Time) {
	status := &broker.Status
	status.ObservedGeneration = broker.Generation
	if r.brokerURL != nil {
		address := r.brokerURL(broker.Namespace, broker.Name)
		status.Address = &eventingv1.Addressable{URL: &address}
		status.Addresses = []eventingv1.Addressable{{URL: &address}}
	}
	c := resolve.Conditions{Status: &status.Status, Now: now}
	c.True(eventingv1.ConditionAddressable, eventingv1.ReasonReady)
	resolve.Lookup(r.lookup).BrokerSink(broker, c)
	c.SumUp(eventingv1.ConditionAddressable, eventingv1.ConditionDeadLetterSinkResolved)
}

// trigger fills in the status of a Trigger.
func (r *resolver) trigger(trigger *eventingv1.Trigger, state brokerState, now metav1.Time) {
	status := &trigger.Status
	status.ObservedGeneration = trigger.Generation
	c := resolve.Conditions{Status: &status.Status, Now: now}
	if state.broker == nil && state.failed {
		c.False(eventingv1.ConditionBrokerReady, eventingv1.ReasonBrokerDoesNotExist,
			fmt.Sprintf("the manifest of Broker %s has mistakes: correct them", state.name))
	} else {
		resolve.BrokerReady(state.name.String(), state.broker, c)
	}
	lookup := resolve.Lookup(r.lookup)
	lookup.Subscriber(trigger, c)
	lookup.TriggerSink(trigger, state.broker, c)
	c.SumUp(eventingv1.ConditionBrokerReady, eventingv1.ConditionSubscriberResolved, eventingv1.ConditionDeadLetterSinkResolved)
}

// lookup returns the address that the command line gives for an object. All its errors are faults.
func (r *resolver) lookup(ref *eventingv1.KReference) (eventingv1.Addressable, error) {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	target, known := r.services[name.String()]
	switch {
	case known:
	case ref.Kind != eventingv1.KindBroker:
		return eventingv1.Addressable{}, resolve.Faultf("the address of %s %s is not known outside a cluster: give it with --service %s=http://127.0.0.1:8080",
			ref.Kind, name, name)
	case !r.brokers[name]:
		return eventingv1.Addressable{}, resolve.Faultf("there is no Broker %s: add one, or correct the reference", name)
	case r.brokerURL == nil:
		return eventingv1.Addressable{}, resolve.Faultf("the address of Broker %s is not known here: give it with --service %s=URL", name, name)
	default:
		target = r.brokerURL(name.Namespace, name.Name)
	}
	return eventingv1.Addressable{URL: &target}, nil
}
