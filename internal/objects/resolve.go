package objects

import (
	"fmt"
	"net/url"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// resolver turns references into URLs and writes what comes of it into status, as the controller does in a cluster.
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
	c := conditions{&status.Status, now}
	c.setTrue(eventingv1.ConditionAddressable, eventingv1.ReasonReady)
	status.DeliveryStatus = r.deadLetterSink(broker.Spec.Delivery, c)
	c.sumUp(eventingv1.ConditionAddressable, eventingv1.ConditionDeadLetterSinkResolved)
}

// trigger fills in the status of a Trigger.
func (r *resolver) trigger(trigger *eventingv1.Trigger, state brokerState, now metav1.Time) {
	status := &trigger.Status
	status.ObservedGeneration = trigger.Generation
	c := conditions{&status.Status, now}
	setBrokerReady(state, c)
	r.subscriber(trigger, c)
	if own := trigger.Spec.Delivery; state.broker != nil && (own == nil || own.DeadLetterSink == nil) {
		// A delivery of its own overrides how often and how fast is tried, but a Trigger that names no sink has the Broker's.
		status.DeliveryStatus = state.broker.Status.DeliveryStatus
		c.copyFrom(&state.broker.Status.Status, eventingv1.ConditionDeadLetterSinkResolved)
	} else {
		status.DeliveryStatus = r.deadLetterSink(trigger.Spec.Delivery, c)
	}
	c.sumUp(eventingv1.ConditionBrokerReady, eventingv1.ConditionSubscriberResolved, eventingv1.ConditionDeadLetterSinkResolved)
}

func setBrokerReady(state brokerState, c conditions) {
	switch {
	case state.broker == nil && state.failed:
		c.setFalse(eventingv1.ConditionBrokerReady, eventingv1.ReasonBrokerDoesNotExist,
			fmt.Sprintf("the manifest of Broker %s has mistakes: correct them", state.name))
	case state.broker == nil:
		c.setFalse(eventingv1.ConditionBrokerReady, eventingv1.ReasonBrokerDoesNotExist,
			fmt.Sprintf("there is no Broker %s: add one, or correct spec.broker", state.name))
	case !meta.IsStatusConditionTrue(state.broker.Status.Conditions, eventingv1.ConditionReady):
		reason := meta.FindStatusCondition(state.broker.Status.Conditions, eventingv1.ConditionReady)
		c.setFalse(eventingv1.ConditionBrokerReady, eventingv1.ReasonBrokerNotReady,
			fmt.Sprintf("Broker %s is not ready: %s", state.name, reason.Message))
	default:
		c.setTrue(eventingv1.ConditionBrokerReady, eventingv1.ReasonReady)
	}
}

func (r *resolver) subscriber(trigger *eventingv1.Trigger, c conditions) {
	target, fault := r.destination(&trigger.Spec.Subscriber)
	if fault != "" {
		c.setFalse(eventingv1.ConditionSubscriberResolved, eventingv1.ReasonSubscriberUnresolved, fault)
		return
	}
	trigger.Status.SubscriberURI = &target
	trigger.Status.SubscriberCACerts = trigger.Spec.Subscriber.CACerts
	trigger.Status.SubscriberAudience = trigger.Spec.Subscriber.Audience
	c.setTrue(eventingv1.ConditionSubscriberResolved, eventingv1.ReasonReady)
}

func (r *resolver) deadLetterSink(delivery *eventingv1.DeliverySpec, c conditions) eventingv1.DeliveryStatus {
	if delivery == nil || delivery.DeadLetterSink == nil {
		c.setTrue(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkNotConfigured)
		return eventingv1.DeliveryStatus{}
	}
	sink := delivery.DeadLetterSink
	target, fault := r.destination(sink)
	if fault != "" {
		c.setFalse(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkUnresolved, fault)
		return eventingv1.DeliveryStatus{}
	}
	c.setTrue(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonReady)
	return eventingv1.DeliveryStatus{
		DeadLetterSinkURI: &target, DeadLetterSinkCACerts: sink.CACerts, DeadLetterSinkAudience: sink.Audience,
	}
}

// destination returns the URL of a destination, or what to do so that it has one. A relative uri is joined to the address
// of the ref beside it.
func (r *resolver) destination(dest *eventingv1.Destination) (target, fault string) {
	if dest.Ref == nil {
		return *dest.URI, ""
	}
	base, fault := r.reference(dest.Ref)
	if fault != "" || dest.URI == nil {
		return base, fault
	}
	return joinURL(base, *dest.URI)
}

func joinURL(base, relative string) (target, fault string) {
	baseURL, err := url.Parse(base)
	if err != nil {
		return "", fmt.Sprintf("the address %q is not a URL", base)
	}
	joined, err := baseURL.Parse(relative)
	if err != nil {
		return "", fmt.Sprintf("%q is not a path", relative)
	}
	return joined.String(), ""
}

func (r *resolver) reference(ref *eventingv1.KReference) (target, fault string) {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	if target, ok := r.services[name.String()]; ok {
		return target, ""
	}
	switch {
	case ref.Kind != eventingv1.KindBroker:
		return "", fmt.Sprintf("the address of %s %s is not known outside a cluster: give it with --service %s=http://127.0.0.1:8080",
			ref.Kind, name, name)
	case !r.brokers[name]:
		return "", fmt.Sprintf("there is no Broker %s: add one, or correct the reference", name)
	case r.brokerURL == nil:
		return "", fmt.Sprintf("the address of Broker %s is not known here: give it with --service %s=URL", name, name)
	}
	return r.brokerURL(name.Namespace, name.Name), ""
}

// conditions writes the conditions of a status.
type conditions struct {
	status *eventingv1.Status
	now    metav1.Time
}

func (c conditions) setTrue(kind, reason string) { c.set(kind, metav1.ConditionTrue, reason, "") }

func (c conditions) setFalse(kind, reason, message string) {
	c.set(kind, metav1.ConditionFalse, reason, message)
}

func (c conditions) set(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&c.status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: c.status.ObservedGeneration, LastTransitionTime: c.now,
	})
}

// copyFrom takes a condition over from another status.
func (c conditions) copyFrom(other *eventingv1.Status, kind string) {
	if condition := meta.FindStatusCondition(other.Conditions, kind); condition != nil {
		c.set(kind, condition.Status, condition.Reason, condition.Message)
	}
}

// sumUp sets Ready: True when each of kinds is, else False with the reason and message of the first that is not.
func (c conditions) sumUp(kinds ...string) {
	for _, kind := range kinds {
		condition := meta.FindStatusCondition(c.status.Conditions, kind)
		if condition.Status != metav1.ConditionTrue {
			c.setFalse(eventingv1.ConditionReady, condition.Reason, condition.Message)
			return
		}
	}
	c.setTrue(eventingv1.ConditionReady, eventingv1.ReasonReady)
}
