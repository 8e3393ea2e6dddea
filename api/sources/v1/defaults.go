package v1

import eventingv1 "millrace.dev/api/eventing/v1"

// DefaultKafkaSource fills in what a KafkaSource leaves open and a reader should see: the namespace, the initial offset,
// the ordering and the namespace of each reference. It changes source in place and is idempotent. The consumer group is
// not among it, for it follows from the UID, which a new object lacks: see [KafkaSource.Group].
func DefaultKafkaSource(source *KafkaSource) {
	if source.Namespace == "" {
		source.Namespace = eventingv1.DefaultNamespace
	}
	if source.Spec.InitialOffset == "" {
		source.Spec.InitialOffset = OffsetLatest
	}
	if source.Spec.Ordering == nil {
		ordering := OrderingOrdered
		source.Spec.Ordering = &ordering
	}
	eventingv1.DefaultReference(source.Spec.Sink.Ref, source.Namespace)
	eventingv1.DefaultDelivery(source.Spec.Delivery, source.Namespace)
}

// Group returns the consumer group: that of the spec, or one made of the UID.
func (s *KafkaSource) Group() string {
	if s.Spec.ConsumerGroup != "" {
		return s.Spec.ConsumerGroup
	}
	return "knative-kafka-source-" + string(s.UID)
}

// Paused reports whether the source is to stand still.
func (s *KafkaSource) Paused() bool {
	return s.Annotations[PausedAnnotation] == "true" || s.Spec.Consumers != nil && *s.Spec.Consumers == 0
}
