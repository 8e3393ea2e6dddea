package v1

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sosodev/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxNameLength is the longest name of a Broker or Trigger, in characters, dots included.
const MaxNameLength = 63

// ValidateBroker returns what is wrong with a Broker, nothing when it is sound. It checks a Broker of any class alike
// and expects defaults to be filled in (DefaultBroker). Each error's detail says what was expected and what to write.
func ValidateBroker(broker *Broker) field.ErrorList {
	errs := ValidateMeta(broker.Name, broker.Namespace)
	errs = append(errs, validateBool(broker.Annotations, DeduplicateAnnotation)...)
	_, limitErrs := broker.Limits()
	errs = append(errs, limitErrs...)
	spec := field.NewPath("spec")
	if broker.Spec.Config != nil {
		errs = append(errs, validateReference(broker.Spec.Config, spec.Child("config"))...)
	}
	return append(errs, ValidateDelivery(broker.Spec.Delivery, spec.Child("delivery"))...)
}

// ValidateTrigger returns what is wrong with a Trigger, nothing when it is sound. Filters are not looked at: package
// trigger compiles them and reports on its own. It expects defaults to be filled in (DefaultTrigger). Each error's
// detail says what was expected and what to write.
func ValidateTrigger(trigger *Trigger) field.ErrorList {
	spec := field.NewPath("spec")
	errs := ValidateMeta(trigger.Name, trigger.Namespace)
	errs = append(errs, validateCount(trigger.Annotations, MaxConcurrencyAnnotation, `"16"`)...)
	errs = append(errs, validateCount(trigger.Annotations, RateLimitAnnotation, `"50" for 50 events a second`)...)
	errs = append(errs, validateBool(trigger.Annotations, PausedAnnotation)...)
	errs = append(errs, validateBrokerName(&trigger.Spec, spec)...)
	errs = append(errs, ValidateDestination(&trigger.Spec.Subscriber, spec.Child("subscriber"))...)
	return append(errs, ValidateDelivery(trigger.Spec.Delivery, spec.Child("delivery"))...)
}

// ValidateMeta returns what is wrong with the name and namespace of an object; an empty namespace is not.
func ValidateMeta(name, namespace string) field.ErrorList {
	meta := field.NewPath("metadata")
	errs := validateName(name, meta.Child("name"))
	if namespace != "" && len(validation.IsDNS1123Label(namespace)) > 0 {
		errs = append(errs, field.Invalid(meta.Child("namespace"), namespace,
			"must be a name of at most 63 lower-case letters, digits and '-'"))
	}
	return errs
}

func validateName(name string, path *field.Path) field.ErrorList {
	switch {
	case name == "":
		return field.ErrorList{field.Required(path, "every object needs a name")}
	case len(name) > MaxNameLength:
		return field.ErrorList{field.Invalid(path, name,
			fmt.Sprintf("must have at most %d characters; this one has %d", MaxNameLength, len(name)))}
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		detail := "must be made of lower-case letters, digits, '-' and '.', and begin and end with a letter or digit"
		if fixed := suggestName(name); fixed != "" {
			detail += fmt.Sprintf("; write %q", fixed)
		}
		return field.ErrorList{field.Invalid(path, name, detail)}
	}
	return nil
}

// suggestName turns name into the nearest valid one, or returns "" when there is none.
func suggestName(name string) string {
	fixed := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		case r == '_', r == ' ', r == '/':
			return '-'
		}
		return -1
	}, strings.ToLower(name))
	fixed = strings.Trim(fixed, "-.")
	if len(validation.IsDNS1123Subdomain(fixed)) > 0 {
		return ""
	}
	return fixed
}

func validateBool(annotations map[string]string, key string) field.ErrorList {
	value, ok := annotations[key]
	if !ok || value == "true" || value == "false" {
		return nil
	}
	return field.ErrorList{field.NotSupported(annotationPath(key), value, []string{"true", "false"})}
}

func validateCount(annotations map[string]string, key, example string) field.ErrorList {
	value, ok := annotations[key]
	if !ok {
		return nil
	}
	if n, err := strconv.ParseInt(value, 10, 32); err == nil && n > 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(annotationPath(key), value, "must be a whole number of at least 1, in quotes, such as "+example)}
}

func annotationPath(key string) *field.Path {
	return field.NewPath("metadata", "annotations").Key(key)
}

func validateBrokerName(spec *TriggerSpec, path *field.Path) field.ErrorList {
	ref := spec.BrokerRef
	switch {
	case ref != nil && spec.Broker != "":
		return field.ErrorList{field.Forbidden(path.Child("brokerRef"),
			"must not be given together with spec.broker; keep spec.broker for a Broker of the same namespace")}
	case ref != nil:
		return validateBrokerRef(ref, path.Child("brokerRef"))
	case spec.Broker == "":
		return field.ErrorList{field.Required(path.Child("broker"), "write the name of the Broker whose events are wanted")}
	}
	return validateName(spec.Broker, path.Child("broker"))
}

func validateBrokerRef(ref *KReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.Kind != KindBroker {
		errs = append(errs, field.NotSupported(path.Child("kind"), ref.Kind, []string{KindBroker}))
	}
	if ref.APIVersion != "" && ref.APIVersion != APIVersion {
		errs = append(errs, field.NotSupported(path.Child("apiVersion"), ref.APIVersion, []string{APIVersion}))
	}
	return append(errs, validateName(ref.Name, path.Child("name"))...)
}

// validateReference checks a reference to an object of any kind. The API group may be left out of a Service only:
// of every other kind there is no telling which is meant.
func validateReference(ref *KReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.Kind == "" {
		errs = append(errs, field.Required(path.Child("kind"), "write the kind of the object, such as Service"))
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "write the name of the object"))
	}
	if ref.APIVersion == "" && ref.Kind != "" && ref.Kind != "Service" {
		errs = append(errs, field.Required(path.Child("apiVersion"), referenceVersionDetail(ref.Kind)))
	}
	return errs
}

func referenceVersionDetail(kind string) string {
	known := map[string]string{
		KindBroker:        APIVersion,
		"ConfigMap":       "v1",
		"Channel":         "messaging.knative.dev/v1",
		"InMemoryChannel": "messaging.knative.dev/v1",
		"Sequence":        "flows.knative.dev/v1",
		"Parallel":        "flows.knative.dev/v1",
	}
	if version, ok := known[kind]; ok {
		return "write " + version
	}
	return "write the group and version of kind " + kind + ", as group/version"
}

// ValidateDestination returns what is wrong with a destination at path: there must be somewhere to send to. Whether anybody
// answers there is not asked: a URL that nobody can dial is a matter of delivery, and keeps no object from being Ready.
func ValidateDestination(dest *Destination, path *field.Path) field.ErrorList {
	if dest.Ref == nil && (dest.URI == nil || *dest.URI == "") {
		return field.ErrorList{field.Required(path,
			"write ref (kind and name of a Service or another addressable object) or uri (such as http://gifts.default.svc/)")}
	}
	var errs field.ErrorList
	if dest.Ref != nil {
		errs = append(errs, validateReference(dest.Ref, path.Child("ref"))...)
	}
	if dest.URI == nil {
		return errs
	}
	if detail := uriFault(*dest.URI, dest.Ref != nil); detail != "" {
		errs = append(errs, field.Invalid(path.Child("uri"), *dest.URI, detail))
	}
	return errs
}

// uriFault says what is wrong with a destination's URI, "" if nothing is.
func uriFault(raw string, withRef bool) string {
	uri, err := url.Parse(raw)
	switch {
	case err != nil && !strings.Contains(raw, "://"):
		return "must be an absolute URL; write http://" + raw
	case err != nil:
		return "must be a URL such as http://gifts.default.svc/hook: " + urlParseReason(err)
	case withRef:
		return relativeFault(uri)
	case uri.Scheme == "" && strings.HasPrefix(raw, "//"):
		return "must begin with a scheme; write http:" + raw
	case uri.Scheme == "" && strings.HasPrefix(raw, "/"):
		return "is a path, which needs a ref beside it to be relative to; write ref, or a whole URL such as http://gifts.default.svc" + raw
	case uri.Scheme == "", uri.Opaque != "" && strings.ContainsAny(uri.Opaque[:1], "0123456789"):
		return "must be an absolute URL; write http://" + raw
	case uri.Opaque != "":
		return "must be an absolute URL such as http://gifts.default.svc/hook"
	case uri.Host == "":
		return "must name a host, as in http://gifts.default.svc/hook"
	}
	return ""
}

func relativeFault(uri *url.URL) string {
	if uri.IsAbs() || uri.Host != "" {
		return "is a whole URL; beside a ref write a path relative to its address, such as /hook, or remove the ref"
	}
	return ""
}

// urlParseReason is what net/url found wrong without the URL itself, which the error repeats.
func urlParseReason(err error) string {
	message := err.Error()
	if i := strings.LastIndex(message, `": `); i >= 0 {
		return message[i+3:]
	}
	return message
}

// ValidateDelivery returns what is wrong with a delivery at path; nil is sound.
func ValidateDelivery(delivery *DeliverySpec, path *field.Path) field.ErrorList {
	if delivery == nil {
		return nil
	}
	var errs field.ErrorList
	if delivery.DeadLetterSink != nil {
		errs = append(errs, ValidateDestination(delivery.DeadLetterSink, path.Child("deadLetterSink"))...)
	}
	if delivery.Retry != nil && *delivery.Retry < 0 {
		errs = append(errs, field.Invalid(path.Child("retry"), *delivery.Retry,
			"must be 0 or more; 0 means one attempt and no retries"))
	}
	errs = append(errs, validateDuration(delivery.Timeout, path.Child("timeout"), false)...)
	errs = append(errs, validateDuration(delivery.BackoffDelay, path.Child("backoffDelay"), true)...)
	errs = append(errs, validateDuration(delivery.RetryAfterMax, path.Child("retryAfterMax"), true)...)
	errs = append(errs, validateOneOf(delivery.BackoffPolicy, path.Child("backoffPolicy"), BackoffLinear, BackoffExponential)...)
	return append(errs, validateOneOf(delivery.Format, path.Child("format"), FormatJSON, FormatBinary)...)
}

func validateOneOf[T ~string](value *T, path *field.Path, allowed ...T) field.ErrorList {
	if value == nil {
		return nil
	}
	for _, a := range allowed {
		if *value == a {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, *value, allowed)}
}

func validateDuration(value *string, path *field.Path, zeroAllowed bool) field.ErrorList {
	if value == nil {
		return nil
	}
	if detail := durationFault(*value, zeroAllowed); detail != "" {
		return field.ErrorList{field.Invalid(path, *value, detail)}
	}
	return nil
}

// durationFault says what is wrong with an ISO 8601 duration, "" if nothing is.
func durationFault(value string, zeroAllowed bool) string {
	parsed, err := duration.Parse(value)
	if err != nil || !strings.ContainsAny(value, "0123456789") {
		return "must be an ISO 8601 duration such as PT30S" + durationHint(value)
	}
	if parsed.Years != 0 || parsed.Months != 0 {
		return "must not hold years or months, whose length varies" + durationHint(value)
	}
	switch seconds := inSeconds(parsed); {
	case parsed.Negative:
		return "must not be negative"
	case seconds == 0 && !zeroAllowed:
		return "must be longer than zero, such as PT30S"
	case seconds > maxDurationSeconds:
		return "must be at most P365D"
	}
	return ""
}

// maxDurationSeconds bounds durations to a year, far inside what a time.Duration can hold.
const maxDurationSeconds = 365 * 24 * 60 * 60

// inSeconds is the length of a duration without years and months. It cannot overflow, as a time.Duration would.
func inSeconds(d *duration.Duration) float64 {
	return d.Seconds + 60*(d.Minutes+60*(d.Hours+24*(d.Days+7*d.Weeks)))
}

// durationHint says what to write for durations as people write them elsewhere: 2s, 500ms, 2, pt2s, P2S.
func durationHint(value string) string {
	if guess := SuggestDuration(value); guess != "" {
		return "; write " + guess
	}
	return ""
}

// SuggestDuration returns the ISO 8601 duration that somebody who wrote value most likely meant, or "" when there is no
// telling: PT2S for "2s", "2" (seconds), "pt2s" or "P2S".
func SuggestDuration(value string) string {
	value = strings.TrimSpace(value)
	if d, err := time.ParseDuration(strings.ToLower(value)); err == nil && d > 0 {
		return duration.Format(d)
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 && seconds < 1e9 {
		return duration.Format(time.Duration(seconds * float64(time.Second)))
	}
	upper := strings.ToUpper(value)
	for _, guess := range []string{upper, strings.Replace(upper, "P", "PT", 1), "P" + upper, "PT" + upper} {
		parsed, err := duration.Parse(guess)
		if err == nil && parsed.Years == 0 && parsed.Months == 0 && inSeconds(parsed) > 0 {
			return guess
		}
	}
	return ""
}
