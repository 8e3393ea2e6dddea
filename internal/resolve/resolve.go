// Package resolve turns the destinations of Brokers and Triggers into URLs, and writes what comes of it into their
// status. It does no I/O of its own: where an object is to be reached is found out by a Lookup, which has one
// implementation for manifests on a laptop and one for a cluster.
package resolve

import (
	"errors"
	"fmt"
	"net/url"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// Fault is an error that somebody must mend who writes objects. It says what to do.
type Fault string

// Error is the message of a condition.
func (f Fault) Error() string { return string(f) }

// Faultf makes a Fault.
func Faultf(format string, args ...any) Fault { return Fault(fmt.Sprintf(format, args...)) }

// Lookup returns the address of the object that ref names, with a URL. An error is a [Fault], or says that the address could
// not be asked for; the status then stays as it is, and it is for the Lookup's owner to try again.
type Lookup func(ref *eventingv1.KReference) (eventingv1.Addressable, error)

// Subscriber resolves the subscriber of a Trigger.
func (l Lookup) Subscriber(trigger *eventingv1.Trigger, c Conditions) {
	address, err := l.Destination(&trigger.Spec.Subscriber)
	var fault Fault
	switch {
	case errors.As(err, &fault):
		c.False(eventingv1.ConditionSubscriberResolved, eventingv1.ReasonSubscriberUnresolved, fault.Error())
	case err != nil:
		return
	default:
		c.True(eventingv1.ConditionSubscriberResolved, eventingv1.ReasonReady)
	}
	status := &trigger.Status
	status.SubscriberURI, status.SubscriberCACerts, status.SubscriberAudience = address.URL, address.CACerts, address.Audience
}

// BrokerSink resolves the dead letter sink of a Broker.
func (l Lookup) BrokerSink(broker *eventingv1.Broker, c Conditions) {
	l.sink(broker.Spec.Delivery, &broker.Status.DeliveryStatus, c)
}

// TriggerSink resolves the dead letter sink of a Trigger, whose Broker may be nil. A delivery of its own overrides how
// often and how fast is tried, but a Trigger that names no sink has the Broker's.
func (l Lookup) TriggerSink(trigger *eventingv1.Trigger, broker *eventingv1.Broker, c Conditions) {
	if own := trigger.Spec.Delivery; broker == nil || own != nil && own.DeadLetterSink != nil {
		l.sink(own, &trigger.Status.DeliveryStatus, c)
		return
	}
	trigger.Status.DeliveryStatus = broker.Status.DeliveryStatus
	if meta.FindStatusCondition(broker.Status.Conditions, eventingv1.ConditionDeadLetterSinkResolved) == nil {
		c.Set(eventingv1.ConditionDeadLetterSinkResolved, metav1.ConditionUnknown, eventingv1.ReasonBrokerNotReady,
			"the dead letter sink of the Broker is being looked up")
	}
	c.copyFrom(&broker.Status.Status, eventingv1.ConditionDeadLetterSinkResolved)
}

func (l Lookup) sink(delivery *eventingv1.DeliverySpec, status *eventingv1.DeliveryStatus, c Conditions) {
	if delivery == nil || delivery.DeadLetterSink == nil {
		*status = eventingv1.DeliveryStatus{}
		c.True(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkNotConfigured)
		return
	}
	address, err := l.Destination(delivery.DeadLetterSink)
	var fault Fault
	switch {
	case errors.As(err, &fault):
		c.False(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkUnresolved, fault.Error())
	case err != nil:
		return
	default:
		c.True(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonReady)
	}
	*status = eventingv1.DeliveryStatus{
		DeadLetterSinkURI: address.URL, DeadLetterSinkCACerts: address.CACerts, DeadLetterSinkAudience: address.Audience,
	}
}

// Destination returns where a destination is, or the zero address and an error. A relative uri is joined to the address
// of the ref beside it; what the destination itself says of certificates and audience wins.
func (l Lookup) Destination(dest *eventingv1.Destination) (address eventingv1.Addressable, err error) {
	switch {
	case dest.Ref != nil:
		if address, err = l(dest.Ref); err != nil {
			return eventingv1.Addressable{}, err
		}
		if dest.URI != nil {
			joined, err := join(*address.URL, *dest.URI)
			if err != nil {
				return eventingv1.Addressable{}, err
			}
			address.URL = &joined
		}
	case dest.URI != nil:
		address.URL = dest.URI
	default:
		return address, Fault("it has neither a ref nor a uri: write one")
	}
	if dest.CACerts != nil {
		address.CACerts = dest.CACerts
	}
	if dest.Audience != nil {
		address.Audience = dest.Audience
	}
	return address, nil
}

func join(base, relative string) (string, error) {
	baseURL, err := url.Parse(base)
	if err != nil {
		return "", Faultf("the address %q is not a URL", base)
	}
	joined, err := baseURL.Parse(relative)
	if err != nil {
		return "", Faultf("%q is not a path", relative)
	}
	return joined.String(), nil
}

// Paused says whether the Trigger is paused, which it is once every filter serves it as it is: that condition must be set. A
// Trigger that is not to be paused has no such condition.
func Paused(t *eventingv1.Trigger, c Conditions) {
	switch {
	case !t.Paused():
		meta.RemoveStatusCondition(&t.Status.Conditions, eventingv1.ConditionPaused)
	case meta.IsStatusConditionTrue(t.Status.Conditions, eventingv1.ConditionSubscriptionReady):
		c.Set(eventingv1.ConditionPaused, metav1.ConditionTrue, eventingv1.ReasonPaused, fmt.Sprintf(
			"no delivery begins; events that match wait in the store until the annotation %s is removed", eventingv1.PausedAnnotation))
	default:
		c.Set(eventingv1.ConditionPaused, metav1.ConditionUnknown, eventingv1.ReasonNotServedYet, "not every filter is known to have paused it yet")
	}
}

// BrokerReady says what a Trigger's Broker, nil if there is none, means for the Trigger. name is the Broker's.
func BrokerReady(name string, broker *eventingv1.Broker, c Conditions) {
	if broker == nil {
		c.False(eventingv1.ConditionBrokerReady, eventingv1.ReasonBrokerDoesNotExist,
			fmt.Sprintf("there is no Broker %s: add one, or correct spec.broker", name))
		return
	}
	ready := meta.FindStatusCondition(broker.Status.Conditions, eventingv1.ConditionReady)
	switch {
	case ready == nil:
		c.Set(eventingv1.ConditionBrokerReady, metav1.ConditionUnknown, eventingv1.ReasonBrokerNotReady,
			fmt.Sprintf("Broker %s is being set up", name))
	case ready.Status != metav1.ConditionTrue:
		c.Set(eventingv1.ConditionBrokerReady, ready.Status, eventingv1.ReasonBrokerNotReady,
			fmt.Sprintf("Broker %s is not ready: %s", name, ready.Message))
	default:
		c.True(eventingv1.ConditionBrokerReady, eventingv1.ReasonReady)
	}
}
