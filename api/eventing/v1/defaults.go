package v1

import "k8s.io/apimachinery/pkg/types"

// DefaultNamespace is the namespace of an object that names none, as kubectl has it.
const DefaultNamespace = "default"

// DefaultBroker fills in what a Broker leaves open and a reader should see: the namespace, the class, and the
// namespace of each reference. It changes broker in place and is idempotent.
//
// The class is Millrace's, so call it only where that is the default class.
func DefaultBroker(broker *Broker) {
	if broker.Namespace == "" {
		broker.Namespace = DefaultNamespace
	}
	if broker.Annotations[BrokerClassAnnotation] == "" {
		if broker.Annotations == nil {
			broker.Annotations = map[string]string{}
		}
		broker.Annotations[BrokerClassAnnotation] = BrokerClass
	}
	DefaultReference(broker.Spec.Config, broker.Namespace)
	DefaultDelivery(broker.Spec.Delivery, broker.Namespace)
}

// DefaultTrigger fills in what a Trigger leaves open and a reader should see: the namespace, an empty filter, and the
// namespace of each reference. It changes trigger in place and is idempotent.
func DefaultTrigger(trigger *Trigger) {
	if trigger.Namespace == "" {
		trigger.Namespace = DefaultNamespace
	}
	if trigger.Spec.Filter == nil {
		trigger.Spec.Filter = &TriggerFilter{}
	}
	DefaultReference(trigger.Spec.BrokerRef, trigger.Namespace)
	DefaultReference(trigger.Spec.Subscriber.Ref, trigger.Namespace)
	DefaultDelivery(trigger.Spec.Delivery, trigger.Namespace)
}

// BrokerName is the namespace and name of the Broker whose events the Trigger wants.
func (t *Trigger) BrokerName() types.NamespacedName {
	if ref := t.Spec.BrokerRef; ref != nil {
		namespace := ref.Namespace
		if namespace == "" {
			namespace = t.Namespace
		}
		return types.NamespacedName{Namespace: namespace, Name: ref.Name}
	}
	return types.NamespacedName{Namespace: t.Namespace, Name: t.Spec.Broker}
}

// Paused says whether deliveries to the Trigger's subscriber are not to begin.
func (t *Trigger) Paused() bool { return t.Annotations[PausedAnnotation] == "true" }

// DefaultReference gives a reference without a namespace the one given. A nil ref stays nil.
func DefaultReference(ref *KReference, namespace string) {
	if ref != nil && ref.Namespace == "" {
		ref.Namespace = namespace
	}
}

// DefaultDelivery gives the reference to a dead letter sink, if there is one, a namespace.
func DefaultDelivery(delivery *DeliverySpec, namespace string) {
	if delivery != nil && delivery.DeadLetterSink != nil {
		DefaultReference(delivery.DeadLetterSink.Ref, namespace)
	}
}
