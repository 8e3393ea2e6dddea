package v1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sosodev/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
)

func ptr[T any](v T) *T { return &v }

// sound returns a Trigger with nothing wrong.
func sound() *Trigger {
	trigger := &Trigger{}
	trigger.Name = "gifts.eu-1"
	trigger.Spec.Broker = "default"
	trigger.Spec.Subscriber.URI = ptr("http://gift-wall.default.svc/hook")
	trigger.Spec.Delivery = &DeliverySpec{
		Retry: ptr(int32(0)), Timeout: ptr("PT0.5S"), BackoffDelay: ptr("PT0S"), RetryAfterMax: ptr("PT0S"),
		BackoffPolicy: ptr(BackoffLinear), Format: ptr(FormatJSON),
		DeadLetterSink: &Destination{Ref: &KReference{Kind: "Service", Name: "dead"}, URI: ptr("/letters?x=1")},
	}
	return trigger
}

func TestValidateTriggerAcceptsWhatIsSound(t *testing.T) {
	for name, change := range map[string]func(*Trigger){
		"every field":        func(*Trigger) {},
		"no delivery":        func(t *Trigger) { t.Spec.Delivery = nil },
		"empty delivery":     func(t *Trigger) { t.Spec.Delivery = &DeliverySpec{} },
		"undialable":         func(t *Trigger) { t.Spec.Subscriber.URI = ptr("bad://nowhere") },
		"longest name":       func(t *Trigger) { t.Name = strings.Repeat("a", MaxNameLength) },
		"broker elsewhere":   func(t *Trigger) { t.Spec.Broker, t.Spec.BrokerRef = "", &KReference{Kind: "Broker", Name: "b"} },
		"ref of a channel":   func(t *Trigger) { t.Spec.Subscriber = Destination{Ref: &KReference{"Channel", "", "c", "x/v1", nil}} },
		"weeks":              func(t *Trigger) { t.Spec.Delivery.Timeout = ptr("P1W2DT3H4M5S") },
		"concurrency":        func(t *Trigger) { t.Annotations = map[string]string{MaxConcurrencyAnnotation: "16"} },
		"unchecked filter":   func(t *Trigger) { t.Spec.Filter = &TriggerFilter{CEL: "not CEL"} },
		"namespace":          func(t *Trigger) { t.Namespace = "team-1" },
		"defaulted":          func(t *Trigger) { DefaultTrigger(t) },
		"foreign annotation": func(t *Trigger) { t.Annotations = map[string]string{"millrace.dev/other": ""} },
	} {
		trigger := sound()
		change(trigger)
		if errs := ValidateTrigger(trigger); len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

func TestValidateTriggerRefuses(t *testing.T) {
	for _, tc := range []struct {
		field, detail string
		change        func(*Trigger)
	}{
		{"metadata.name", "needs a name", func(t *Trigger) { t.Name = "" }},
		{"metadata.name", "at most 63", func(t *Trigger) { t.Name = strings.Repeat("a", 64) }},
		{"metadata.name", `write "gift-wall"`, func(t *Trigger) { t.Name = "Gift_Wall" }},
		{"metadata.name", "must be made of", func(t *Trigger) { t.Name = "/" }},
		{"metadata.namespace", "lower-case", func(t *Trigger) { t.Namespace = "a.b" }},
		{"metadata.annotations[millrace.dev/max-concurrency]", "at least 1", func(t *Trigger) {
			t.Annotations = map[string]string{MaxConcurrencyAnnotation: "0"}
		}},
		{"spec.broker", "name of the Broker", func(t *Trigger) { t.Spec.Broker = "" }},
		{"spec.broker", "must be made of", func(t *Trigger) { t.Spec.Broker = "A" }},
		{"spec.brokerRef", "together", func(t *Trigger) { t.Spec.BrokerRef = &KReference{} }},
		{"spec.subscriber", "write ref", func(t *Trigger) { t.Spec.Subscriber = Destination{} }},
		{"spec.subscriber.ref.kind", "such as Service", func(t *Trigger) { t.Spec.Subscriber = Destination{Ref: &KReference{Name: "x"}} }},
		{"spec.subscriber.ref.name", "name of the object", func(t *Trigger) { t.Spec.Subscriber = Destination{Ref: &KReference{Kind: "Service"}} }},
		{"spec.subscriber.ref.apiVersion", "group/version", func(t *Trigger) {
			t.Spec.Subscriber = Destination{Ref: &KReference{Kind: "Sink", Name: "x"}}
		}},
		{"spec.subscriber.uri", "write http://localhost:80", func(t *Trigger) { t.Spec.Subscriber.URI = ptr("localhost:80") }},
		{"spec.delivery.retry", "0 or more", func(t *Trigger) { t.Spec.Delivery.Retry = ptr(int32(-1)) }},
		{"spec.delivery.timeout", "longer than zero", func(t *Trigger) { t.Spec.Delivery.Timeout = ptr("PT0S") }},
		{"spec.delivery.timeout", "write PT2S", func(t *Trigger) { t.Spec.Delivery.Timeout = ptr("2s") }},
		{"spec.delivery.timeout", "write PT2S", func(t *Trigger) { t.Spec.Delivery.Timeout = ptr("2") }},
		{"spec.delivery.backoffDelay", "negative", func(t *Trigger) { t.Spec.Delivery.BackoffDelay = ptr("-PT2S") }},
		{"spec.delivery.retryAfterMax", "years or months", func(t *Trigger) { t.Spec.Delivery.RetryAfterMax = ptr("P1Y") }},
		{"spec.delivery.backoffPolicy", "linear", func(t *Trigger) { t.Spec.Delivery.BackoffPolicy = ptr(BackoffPolicy("Linear")) }},
		{"spec.delivery.format", "binary", func(t *Trigger) { t.Spec.Delivery.Format = ptr(FormatType("xml")) }},
		{"spec.delivery.deadLetterSink.uri", "whole URL", func(t *Trigger) { t.Spec.Delivery.DeadLetterSink.URI = ptr("http://x/") }},
		{"spec.delivery.deadLetterSink.uri", "whole URL", func(t *Trigger) { t.Spec.Delivery.DeadLetterSink.URI = ptr("//x/") }},
	} {
		trigger := sound()
		tc.change(trigger)
		errs := ValidateTrigger(trigger)
		if len(errs) != 1 || errs[0].Field != tc.field || !strings.Contains(errs[0].Error(), tc.detail) {
			t.Errorf("got %v, want one error of %s with %q", errs, tc.field, tc.detail)
		}
	}
}

func TestValidateBroker(t *testing.T) {
	broker := &Broker{}
	broker.Name = "default"
	DefaultBroker(broker)
	if errs := ValidateBroker(broker); len(errs) > 0 {
		t.Errorf("a broker with nothing but a name: %v", errs)
	}
	broker.Annotations[DeduplicateAnnotation] = "yes"
	broker.Spec.Config = &KReference{Kind: "ConfigMap", Name: "x"}
	broker.Spec.Delivery = &DeliverySpec{DeadLetterSink: &Destination{}}
	want := []string{"metadata.annotations[millrace.dev/deduplicate]", "spec.config.apiVersion", "spec.delivery.deadLetterSink"}
	if diff := cmp.Diff(want, fieldsOf(ValidateBroker(broker))); diff != "" {
		t.Errorf("want(-) got(+):\n%s", diff)
	}
}

func fieldsOf(errs field.ErrorList) []string {
	var fields []string
	for _, err := range errs {
		fields = append(fields, err.Field)
	}
	return fields
}

// TestDurationsNeverSurprise holds whatever is accepted to be a duration that a time.Duration can hold, and whatever is
// suggested to be acceptable.
func TestDurationsNeverSurprise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(
			rapid.StringMatching(`-?P?([0-9.]{0,5}[YMWDTHS]){0,4}`),
			rapid.StringMatching(`[0-9.e]{0,8}(ms|s|m|h|d)?`),
			rapid.String(),
		).Draw(t, "value")
		if durationFault(value, false) == "" {
			parsed, err := duration.Parse(value)
			if err != nil || parsed.ToTimeDuration() <= 0 {
				t.Fatalf("%q is accepted and is %v, %v", value, parsed, err)
			}
		}
		if guess := SuggestDuration(value); guess != "" && inSeconds(mustParse(t, guess)) <= 0 {
			t.Fatalf("for %q, %q is suggested", value, guess)
		}
	})
}

func mustParse(t *rapid.T, value string) *duration.Duration {
	parsed, err := duration.Parse(value)
	if err != nil {
		t.Fatalf("%q is no duration: %v", value, err)
	}
	return parsed
}

// TestDefaultsAreIdempotent defaults a Trigger and a Broker twice.
func TestDefaultsAreIdempotent(t *testing.T) {
	trigger := sound()
	trigger.Namespace = "team"
	trigger.Spec.BrokerRef = &KReference{Kind: "Broker", Name: "b"}
	DefaultTrigger(trigger)
	if trigger.Spec.Filter == nil || trigger.Spec.Delivery.DeadLetterSink.Ref.Namespace != "team" || trigger.BrokerName().String() != "team/b" {
		t.Errorf("defaults are missing: %+v", trigger.Spec)
	}
	again := trigger.DeepCopy()
	DefaultTrigger(again)
	if diff := cmp.Diff(trigger, again); diff != "" {
		t.Errorf("the second time changes:\n%s", diff)
	}
	broker := &Broker{Spec: BrokerSpec{Config: &KReference{}}}
	DefaultBroker(broker)
	if broker.Namespace != DefaultNamespace || broker.Spec.Config.Namespace != DefaultNamespace || broker.Annotations[BrokerClassAnnotation] != BrokerClass {
		t.Errorf("defaults are missing: %+v", broker)
	}
}
