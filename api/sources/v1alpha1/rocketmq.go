package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/sosodev/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	sourcesv1 "millrace.dev/api/sources/v1"
)

const (
	// DefaultBatchSize is used where the spec says nothing. It is also the most that RocketMQ hands out at once.
	DefaultBatchSize = 32
	// DefaultInvisibleDuration is used where the spec says nothing, in the ISO 8601 form of the spec.
	DefaultInvisibleDuration = "PT30S"
	// minInvisible and maxInvisible are the limits of the server.
	minInvisible, maxInvisible = 10 * time.Second, 12 * time.Hour
	// maxTopicLength and maxGroupLength are RocketMQ's limits, in characters; maxFilterLength is ours.
	maxTopicLength, maxGroupLength, maxFilterLength = 127, 255, 4096
)

// Default implements [sourcesv1.Source].
func (s *RocketMQSource) Default() {
	sourcesv1.DefaultSource(s)
	if s.Spec.Ordering == "" {
		s.Spec.Ordering = OrderingUnordered
	}
	if s.Spec.InvisibleDuration == "" {
		s.Spec.InvisibleDuration = DefaultInvisibleDuration
	}
	if s.Spec.BatchSize == nil {
		size := int32(DefaultBatchSize)
		s.Spec.BatchSize = &size
	}
}

// SourceKind implements [sourcesv1.Source].
func (s *RocketMQSource) SourceKind() string { return KindRocketMQSource }

// Common implements [sourcesv1.Source].
func (s *RocketMQSource) Common() *sourcesv1.SourceSpec { return &s.Spec.SourceSpec }

// Specification implements [sourcesv1.Source].
func (s *RocketMQSource) Specification() any { return &s.Spec }

// Observed implements [sourcesv1.Source].
func (s *RocketMQSource) Observed() *sourcesv1.SourceStatus { return &s.Status }

// Group implements [sourcesv1.Source].
func (s *RocketMQSource) Group() string { return s.Spec.ConsumerGroup }

// Paused implements [sourcesv1.Source].
func (s *RocketMQSource) Paused() bool { return sourcesv1.HasPause(s) }

// SecretRefs implements [sourcesv1.Source].
func (s *RocketMQSource) SecretRefs() []*sourcesv1.SecretKeySelector {
	refs := s.Spec.Net.TLS.Refs()
	if c := s.Spec.Net.Credentials; c != nil {
		refs = append(refs, sourcesv1.Refs(c.AccessKey, c.SecretKey, c.SecurityToken)...)
	}
	return refs
}

// Invisible returns the invisible duration, which must be sound.
func (s *RocketMQSource) Invisible() time.Duration {
	d, err := duration.Parse(s.Spec.InvisibleDuration)
	if err != nil {
		return minInvisible
	}
	return d.ToTimeDuration()
}

// Validate implements [sourcesv1.Source]. Each error's detail says what was expected and what to write.
func (s *RocketMQSource) Validate() field.ErrorList {
	spec := field.NewPath("spec")
	errs := sourcesv1.ValidateSource(s)
	if s.Spec.Endpoint == "" {
		errs = append(errs, field.Required(spec.Child("endpoint"), "write the address of a RocketMQ proxy, such as rocketmq-proxy.default.svc:8081"))
	} else if detail := sourcesv1.AddressFault(s.Spec.Endpoint, "rocketmq-proxy.default.svc", 8081); detail != "" {
		errs = append(errs, field.Invalid(spec.Child("endpoint"), s.Spec.Endpoint, detail))
	}
	errs = append(errs, validateName(s.Spec.InstanceNamespace, maxGroupLength, spec.Child("instanceNamespace"))...)
	errs = append(errs, validateTopics(s.Spec.Topics, spec.Child("topics"))...)
	if s.Spec.ConsumerGroup == "" {
		errs = append(errs, field.Required(spec.Child("consumerGroup"), "write the name of the consumer group to read as"))
	}
	errs = append(errs, validateName(s.Spec.ConsumerGroup, maxGroupLength, spec.Child("consumerGroup"))...)
	errs = append(errs, validateFilter(s.Spec.Filter, spec.Child("filter"))...)
	errs = append(errs, sourcesv1.OneOf(s.Spec.Ordering, spec.Child("ordering"), OrderingUnordered, OrderingFIFO)...)
	errs = append(errs, validateInvisible(s.Spec.InvisibleDuration, spec.Child("invisibleDuration"))...)
	if n := s.Spec.BatchSize; n != nil && (*n < 1 || *n > DefaultBatchSize) {
		errs = append(errs, field.Invalid(spec.Child("batchSize"), *n, fmt.Sprintf("must be from 1 to %d", DefaultBatchSize)))
	}
	net := spec.Child("net")
	if c := s.Spec.Net.Credentials; c != nil {
		path := net.Child("credentials")
		errs = append(errs, sourcesv1.ValidateSecret(c.AccessKey, path.Child("accessKey"), true)...)
		errs = append(errs, sourcesv1.ValidateSecret(c.SecretKey, path.Child("secretKey"), true)...)
		errs = append(errs, sourcesv1.ValidateSecret(c.SecurityToken, path.Child("securityToken"), false)...)
	}
	return append(errs, sourcesv1.ValidateTLS(&s.Spec.Net.TLS, net.Child("tls"))...)
}

func validateTopics(topics []string, path *field.Path) field.ErrorList {
	if len(topics) == 0 {
		return field.ErrorList{field.Required(path, "write the name of a topic")}
	}
	var errs field.ErrorList
	for i, topic := range topics {
		errs = append(errs, validateName(topic, maxTopicLength, path.Index(i))...)
		switch {
		case topic == "":
			errs = append(errs, field.Required(path.Index(i), "write the name of a topic"))
		case slices.Contains(topics[:i], topic):
			errs = append(errs, field.Duplicate(path.Index(i), topic))
		}
	}
	return errs
}

// validateName checks what RocketMQ allows in the names of topics and groups, and here in those of namespaces.
func validateName(name string, longest int, path *field.Path) field.ErrorList {
	if regexp.MustCompile(`^[%|a-zA-Z0-9_-]*$`).MatchString(name) && len(name) <= longest {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, fmt.Sprintf("must be at most %d letters, digits, '%%', '|', '_' and '-'", longest))}
}

func validateFilter(f *RocketMQFilter, path *field.Path) field.ErrorList {
	switch {
	case f == nil:
		return nil
	case (f.Tag == "") == (f.SQL == ""):
		return field.ErrorList{field.Required(path, "write either tag, such as gift||like, or sql, such as price > 5")}
	case len(f.Tag)+len(f.SQL) > maxFilterLength:
		return field.ErrorList{field.TooLong(path, "", maxFilterLength)}
	}
	return nil
}

func validateInvisible(text string, path *field.Path) field.ErrorList {
	d, err := duration.Parse(text)
	if err != nil || d.ToTimeDuration() < minInvisible || d.ToTimeDuration() > maxInvisible {
		return field.ErrorList{field.Invalid(path, text, "must be an ISO 8601 duration from PT10S to PT12H, such as PT30S")}
	}
	return nil
}
