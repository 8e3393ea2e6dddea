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

// ValidateKafkaSource returns what is wrong with a KafkaSource, nothing when it is sound. It expects defaults to be filled
// in (DefaultKafkaSource). Each error's detail says what was expected and what to write.
func ValidateKafkaSource(source *KafkaSource) field.ErrorList {
	spec := field.NewPath("spec")
	errs := eventingv1.ValidateMeta(source.Name, source.Namespace)
	errs = append(errs, validateMarks(source)...)
	errs = append(errs, validateServers(source.Spec.BootstrapServers, spec.Child("bootstrapServers"))...)
	errs = append(errs, validateTopics(source.Spec.Topics, spec.Child("topics"))...)
	errs = append(errs, validateGroup(source.Spec.ConsumerGroup, spec.Child("consumerGroup"))...)
	errs = append(errs, oneOf(source.Spec.InitialOffset, spec.Child("initialOffset"), OffsetEarliest, OffsetLatest)...)
	if source.Spec.Ordering != nil {
		errs = append(errs, oneOf(*source.Spec.Ordering, spec.Child("ordering"), OrderingOrdered, OrderingUnordered, OrderingKey)...)
	}
	if n := source.Spec.Consumers; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(spec.Child("consumers"), *n, "must be 0 or more; 0 stops the source"))
	}
	errs = append(errs, validateNet(&source.Spec.Net, spec.Child("net"))...)
	errs = append(errs, validateOverrides(source.Spec.CloudEventOverrides, spec.Child("ceOverrides", "extensions"))...)
	errs = append(errs, eventingv1.ValidateDestination(&source.Spec.Sink, spec.Child("sink"))...)
	return append(errs, eventingv1.ValidateDelivery(source.Spec.Delivery, spec.Child("delivery"))...)
}

func oneOf[T ~string](value T, path *field.Path, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, allowed)}
}

// validateMarks checks the labels and annotations that mean something.
func validateMarks(source *KafkaSource) field.ErrorList {
	meta := field.NewPath("metadata")
	annotations := meta.Child("annotations")
	var errs field.ErrorList
	if value, ok := source.Labels[KeyTypeLabel]; ok {
		errs = append(errs, oneOf(value, meta.Child("labels").Key(KeyTypeLabel), "string", "int", "float", "byte-array")...)
	}
	if value, ok := source.Annotations[PausedAnnotation]; ok {
		errs = append(errs, oneOf(value, annotations.Key(PausedAnnotation), "true", "false")...)
	}
	if value, ok := source.Annotations[UndeliverableAnnotation]; ok {
		errs = append(errs, oneOf(value, annotations.Key(UndeliverableAnnotation), "block", "drop")...)
	}
	if value, ok := source.Annotations[HostAnnotation]; ok && !isHost(value) {
		errs = append(errs, field.Invalid(annotations.Key(HostAnnotation), value, "must be a host, with a port if need be, such as events.example.com"))
	}
	whole := func(name string, least, most int) {
		value, ok := source.Annotations[name]
		if n, err := strconv.Atoi(value); ok && (err != nil || n < least || n > most) {
			errs = append(errs, field.Invalid(annotations.Key(name), value, fmt.Sprintf("must be a whole number from %d to %d, in quotes", least, most)))
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
		if detail := serverFault(server); detail != "" {
			errs = append(errs, field.Invalid(path.Index(i), server, detail))
		}
	}
	return errs
}

func serverFault(server string) string {
	if _, address, ok := strings.Cut(server, "://"); ok {
		return "must be host:port without a scheme; write " + address
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil && !strings.Contains(server, ":") && server != "" {
		return "lacks a port; write " + server + ":9092"
	}
	if n, convErr := strconv.ParseUint(port, 10, 16); err != nil || convErr != nil || n == 0 || host == "" || strings.ContainsAny(host, " /@") {
		return "must be host:port, such as kafka.default.svc:9092"
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
	errs = append(errs, validateSecret(n.SASL.User, sasl.Child("user"), false)...)
	errs = append(errs, validateSecret(n.SASL.Password, sasl.Child("password"), n.SASL.Enable)...)
	errs = append(errs, validateSecret(n.SASL.Type, sasl.Child("type"), false)...)
	errs = append(errs, validateSecret(n.TLS.Cert, tls.Child("cert"), n.TLS.Key.SecretKeyRef != nil)...)
	errs = append(errs, validateSecret(n.TLS.Key, tls.Child("key"), n.TLS.Cert.SecretKeyRef != nil)...)
	return append(errs, validateSecret(n.TLS.CACert, tls.Child("caCert"), false)...)
}

func validateSecret(value SecretValueFromSource, path *field.Path, required bool) field.ErrorList {
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
