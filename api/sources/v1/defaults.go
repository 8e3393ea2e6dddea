package v1

import eventingv1 "millrace.dev/api/eventing/v1"

// Default implements [Source]: it fills in the namespace, the initial offset, the ordering and the namespace of each
// reference. The consumer group is not among it, for it follows from the UID, which a new object lacks: see
// [KafkaSource.Group].
func (s *KafkaSource) Default() {
	DefaultSource(s)
	if s.Spec.InitialOffset == "" {
		s.Spec.InitialOffset = OffsetLatest
	}
	if s.Spec.Ordering == nil {
		ordering := OrderingOrdered
		s.Spec.Ordering = &ordering
	}
}

// DefaultSource fills in what all sources have: the namespace, and that of each reference.
func DefaultSource(s Source) {
	if s.GetNamespace() == "" {
		s.SetNamespace(eventingv1.DefaultNamespace)
	}
	eventingv1.DefaultReference(s.Common().Sink.Ref, s.GetNamespace())
	eventingv1.DefaultDelivery(s.Common().Delivery, s.GetNamespace())
}

// Group implements [Source]: the group of the spec, or one made of the UID.
func (s *KafkaSource) Group() string {
	if s.Spec.ConsumerGroup != "" {
		return s.Spec.ConsumerGroup
	}
	return "knative-kafka-source-" + string(s.UID)
}

// SourceKind implements [Source].
func (s *KafkaSource) SourceKind() string { return KindKafkaSource }

// Common implements [Source].
func (s *KafkaSource) Common() *SourceSpec { return &s.Spec.SourceSpec }

// Specification implements [Source].
func (s *KafkaSource) Specification() any { return &s.Spec }

// Observed implements [Source].
func (s *KafkaSource) Observed() *SourceStatus { return &s.Status }

// Paused implements [Source].
func (s *KafkaSource) Paused() bool {
	return HasPause(s) || s.Spec.Consumers != nil && *s.Spec.Consumers == 0
}

// HasPause reports whether the annotation that stops a source is there.
func HasPause(s Source) bool { return s.GetAnnotations()[PausedAnnotation] == "true" }
