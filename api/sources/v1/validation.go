package v1

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
)

const (
	// maxTopicLength is Kafka's limit, in characters.
	maxTopicLength = 249
	// maxSeconds bounds the annotations that count seconds to a day, maxRetries the one that counts retries.
	maxSeconds, maxRetries = 24 * 60 * 60, 1000
	// maxOverrides bounds the extensions of ceOverrides.
	maxOverrides = 64
)

// Validate implements [Source]. Each error's detail says what was expected and what to write.
func (s *KafkaSource) Validate() field.ErrorList {
	spec := field.NewPath("spec")
	errs := ValidateSource(s)
	if value, ok := s.Labels[KeyTypeLabel]; ok {
		errs = append(errs, OneOf(value, field.NewPath("metadata", "labels").Key(KeyTypeLabel), "string", "int", "float", "byte-array")...)
	}
	errs = append(errs, validateServers(s.Spec.BootstrapServers, spec.Child("bootstrapServers"))...)
	errs = append(errs, validateTopics(s.Spec.Topics, spec.Child("topics"))...)
	errs = append(errs, validateGroup(s.Spec.ConsumerGroup, spec.Child("consumerGroup"))...)
	errs = append(errs, OneOf(s.Spec.InitialOffset, spec.Child("initialOffset"), OffsetEarliest, OffsetLatest)...)
	if s.Spec.Ordering != nil {
		errs = append(errs, OneOf(*s.Spec.Ordering, spec.Child("ordering"), OrderingOrdered, OrderingUnordered, OrderingKey)...)
	}
	if n := s.Spec.Consumers; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(spec.Child("consumers"), *n, "must be 0 or more; 0 stops the source"))
	}
	return append(errs, validateNet(&s.Spec.Net, spec.Child("net"))...)
}

// ValidateSource returns what is wrong with the part of a source that all sources have.
func ValidateSource(s Source) field.ErrorList {
	spec := field.NewPath("spec")
	errs := eventingv1.ValidateMeta(s.GetName(), s.GetNamespace())
	errs = append(errs, validateAnnotations(s.GetAnnotations())...)
	errs = append(errs, validateOverrides(s.Common().CloudEventOverrides, spec.Child("ceOverrides", "extensions"))...)
	errs = append(errs, eventingv1.ValidateDestination(&s.Common().Sink, spec.Child("sink"))...)
	return append(errs, eventingv1.ValidateDelivery(s.Common().Delivery, spec.Child("delivery"))...)
}

// OneOf returns an error if a value is none of those allowed.
func OneOf[T ~string](value T, path *field.Path, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, allowed)}
}

// validateAnnotations checks the annotations that mean something.
func validateAnnotations(annotations map[string]string) field.ErrorList {
	path := field.NewPath("metadata", "annotations")
	var errs field.ErrorList
	if value, ok := annotations[PausedAnnotation]; ok {
		errs = append(errs, OneOf(value, path.Key(PausedAnnotation), "true", "false")...)
	}
	if value, ok := annotations[UndeliverableAnnotation]; ok {
		errs = append(errs, OneOf(value, path.Key(UndeliverableAnnotation), "block", "drop")...)
	}
	if value, ok := annotations[HostAnnotation]; ok && !isHost(value) {
		errs = append(errs, field.Invalid(path.Key(HostAnnotation), value, "must be a host, with a port if need be, such as events.example.com"))
	}
	whole := func(name string, least, most int) {
		value, ok := annotations[name]
		if n, err := strconv.Atoi(value); ok && (err != nil || n < least || n > most) {
			errs = append(errs, field.Invalid(path.Key(name), value, fmt.Sprintf("must be a whole number from %d to %d, in quotes", least, most)))
		}
	}
	whole(RetryCountAnnotation, 0, maxRetries)
	whole(RetryIntervalAnnotation, 0, maxSeconds)
	whole(RequestTimeoutAnnotation, 1, maxSeconds)
	return errs
}

func isHost(s string) bool {
	return regexp.MustCompile(`^[A-Za-z0-9_.\[\]:-]{1,255}$`).MatchString(s)
}

func validateServers(servers []string, path *field.Path) field.ErrorList {
	if len(servers) == 0 {
		return field.ErrorList{field.Required(path, "write the address of a Kafka broker, such as kafka.default.svc:9092")}
	}
	var errs field.ErrorList
	for i, server := range servers {
		if detail := AddressFault(server, "kafka.default.svc", 9092); detail != "" {
			errs = append(errs, field.Invalid(path.Index(i), server, detail))
		}
	}
	return errs
}

// AddressFault says what is wrong with an address of the form host:port, nothing if it is sound. The example and the usual
// port are for what it says.
func AddressFault(address, example string, usual uint16) string {
	if _, bare, ok := strings.Cut(address, "://"); ok {
		return "must be host:port without a scheme; write " + bare
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil && !strings.Contains(address, ":") && address != "" {
		return fmt.Sprintf("lacks a port; write %s:%d", address, usual)
	}
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n == 0 || host == "" || strings.ContainsAny(host, " /@") {
		return fmt.Sprintf("must be host:port, such as %s:%d", example, usual)
	}
	return ""
}

func validateTopics(topics []string, path *field.Path) field.ErrorList {
	if len(topics) == 0 {
		return field.ErrorList{field.Required(path, "write the name of a topic")}
	}
	valid := regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)
	var errs field.ErrorList
	for i, topic := range topics {
		switch {
		case !valid.MatchString(topic), len(topic) > maxTopicLength, topic == ".", topic == "..":
			errs = append(errs, field.Invalid(path.Index(i), topic,
				fmt.Sprintf("is not the name of a topic: at most %d letters, digits, '.', '_' and '-'", maxTopicLength)))
		case slices.Contains(topics[:i], topic):
			errs = append(errs, field.Duplicate(path.Index(i), topic))
		}
	}
	return errs
}

func validateGroup(group string, path *field.Path) field.ErrorList {
	const longest = 255
	if len(group) > longest || strings.ContainsFunc(group, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return field.ErrorList{field.Invalid(path, group, "must be a name of at most 255 characters without spaces")}
	}
	return nil
}

func validateNet(n *KafkaNetSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	sasl, tls := path.Child("sasl"), path.Child("tls")
	errs = append(errs, ValidateSecret(n.SASL.User, sasl.Child("user"), false)...)
	errs = append(errs, ValidateSecret(n.SASL.Password, sasl.Child("password"), n.SASL.Enable)...)
	errs = append(errs, ValidateSecret(n.SASL.Type, sasl.Child("type"), false)...)
	return append(errs, ValidateTLS(&n.TLS, tls)...)
}

// ValidateTLS returns what is wrong with how a connection is encrypted.
func ValidateTLS(t *TLSSpec, path *field.Path) field.ErrorList {
	errs := ValidateSecret(t.Cert, path.Child("cert"), t.Key.SecretKeyRef != nil)
	errs = append(errs, ValidateSecret(t.Key, path.Child("key"), t.Cert.SecretKeyRef != nil)...)
	return append(errs, ValidateSecret(t.CACert, path.Child("caCert"), false)...)
}

// ValidateSecret returns what is wrong with a reference to a Secret, or that it is missing if it is required.
func ValidateSecret(value SecretValueFromSource, path *field.Path, required bool) field.ErrorList {
	ref, path := value.SecretKeyRef, path.Child("secretKeyRef")
	var errs field.ErrorList
	switch {
	case ref == nil && required:
		errs = append(errs, field.Required(path, "write the name of a Secret and the key in it"))
	case ref == nil:
	default:
		if ref.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "write the name of the Secret"))
		}
		if ref.Key == "" {
			errs = append(errs, field.Required(path.Child("key"), "write the key in the Secret"))
		}
	}
	return errs
}

func validateOverrides(overrides *CloudEventOverrides, path *field.Path) field.ErrorList {
	if overrides == nil {
		return nil
	}
	var errs field.ErrorList
	if n := len(overrides.Extensions); n > maxOverrides {
		errs = append(errs, field.TooMany(path, n, maxOverrides))
	}
	name := regexp.MustCompile(`^[a-z0-9]+$`)
	for _, key := range slices.Sorted(maps.Keys(overrides.Extensions)) {
		value := overrides.Extensions[key]
		switch {
		case !name.MatchString(key) || key == "data":
			errs = append(errs, field.Invalid(path.Key(key), key, "is not the name of an attribute: use lower-case letters and digits"))
		case slices.Contains([]string{"specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "subject"}, key):
			errs = append(errs, field.Forbidden(path.Key(key), "is not an extension: only extensions can be set"))
		case value == "":
			errs = append(errs, field.Invalid(path.Key(key), value, "must not be empty"))
		}
	}
	return errs
}
