package delivery

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/sosodev/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// BackoffMaxAnnotation on a Trigger or a Broker is the longest time between two attempts, as an ISO 8601 duration. The
// default is [DefaultPolicy]'s BackoffMax, five minutes.
const BackoffMaxAnnotation = "millrace.dev/backoff-max"

// BacklogMaxAgeAnnotation on a Trigger or a Broker is how long an event may wait for a subscriber that is down before it
// is given up, as an ISO 8601 duration. The default is to wait for ever.
const BacklogMaxAgeAnnotation = "millrace.dev/backlog-max-age"

// HTTP2CleartextAnnotation on a Trigger or a Broker says with "true" that the subscriber speaks HTTP/2 without TLS, with
// prior knowledge: deliveries then share connections. The default is HTTP/1.1, which every subscriber speaks.
const HTTP2CleartextAnnotation = "millrace.dev/http2-cleartext"

// longest is what every duration is bounded by, so that sums and products of durations cannot overflow.
const longest = 10 * 365 * 24 * time.Hour

// Backoff says how the time between attempts grows.
type Backoff uint8

// The backoffs. With n the number of the retry, from 1, [Exponential] waits BackoffDelay × 2^(n-1) and [Linear] waits
// BackoffDelay × n.
const (
	Exponential Backoff = iota
	Linear
)

// String returns the name of the backoff in the API.
func (b Backoff) String() string {
	if b == Linear {
		return string(eventingv1.BackoffLinear)
	}
	return string(eventingv1.BackoffExponential)
}

// Format is the CloudEvents content mode of a delivery.
type Format uint8

// The formats: binary mode has attributes in headers and data as the body, structured mode has the whole event as a
// JSON document.
const (
	Binary Format = iota
	Structured
)

// String returns the name of the format in the API.
func (f Format) String() string {
	if f == Structured {
		return string(eventingv1.FormatJSON)
	}
	return string(eventingv1.FormatBinary)
}

// Policy is how the events of one Trigger are delivered. It is parsed once, when the Trigger is loaded, and is a plain
// value from then on. [DefaultPolicy] has the defaults; the zero value tries once.
type Policy struct {
	// Retries is the number of attempts after the first.
	Retries int
	// Timeout bounds one attempt, from dialing to the last byte of the answer. Zero means that of [DefaultPolicy].
	Timeout time.Duration
	// Backoff is how the time between attempts grows from BackoffDelay.
	Backoff Backoff
	// BackoffDelay is the base of the time between attempts. Zero retries at once.
	BackoffDelay time.Duration
	// BackoffMax is the longest time between two attempts as far as BackoffDelay makes it. Zero means no such bound.
	BackoffMax time.Duration
	// RetryAfterMax is the longest Retry-After of an answer that is honored; a longer one counts as this long. Zero
	// ignores Retry-After, as PT0S and an absent field do in the API.
	RetryAfterMax time.Duration
	// BacklogMaxAge is how long an event may wait for a subscriber that is down, from its first attempt or from when it
	// first had to wait, before it is given up without a further attempt. Zero means for ever.
	BacklogMaxAge time.Duration
	// Format is the content mode of deliveries.
	Format Format
	// HTTP2Cleartext says that the subscriber speaks HTTP/2 without TLS.
	HTTP2Cleartext bool
}

// DefaultPolicy is the policy of a Trigger when neither it nor its Broker says anything: 10 retries, exponential from
// 200 ms up to 5 minutes, 60 seconds an attempt, binary mode, no Retry-After.
func DefaultPolicy() Policy {
	return Policy{
		Retries:      10,
		Timeout:      time.Minute,
		Backoff:      Exponential,
		BackoffDelay: 200 * time.Millisecond,
		BackoffMax:   5 * time.Minute,
		Format:       Binary,
	}
}

// EffectiveSpec returns the delivery that holds for a Trigger: its own if any field of it is set, else the Broker's as a
// whole. The two are never mixed (Knative Eventing control plane, Trigger delivery). The result may be nil.
//
// The dead letter sink is not subject to this rule: a Trigger without one uses its Broker's, whatever else it sets.
func EffectiveSpec(trigger, broker *eventingv1.DeliverySpec) *eventingv1.DeliverySpec {
	if isSet(trigger) {
		return trigger
	}
	return broker
}

func isSet(s *eventingv1.DeliverySpec) bool { return s != nil && *s != (eventingv1.DeliverySpec{}) }

// ResolvePolicy is [Policy.Resolve] with [DefaultPolicy] as the defaults.
func ResolvePolicy(trigger, broker *eventingv1.DeliverySpec, annotations ...map[string]string) (Policy, field.ErrorList) {
	return DefaultPolicy().Resolve(trigger, broker, annotations...)
}

// Resolve returns the policy of a Trigger with the given delivery, of a Broker with the given delivery; either may be
// nil. A field that the effective delivery (see [EffectiveSpec]) leaves unset has the value it has in p, the defaults.
//
// annotations are those of the objects, the Trigger's before the Broker's: of [BackoffMaxAnnotation],
// [BacklogMaxAgeAnnotation] and [HTTP2CleartextAnnotation] each, the first object that has it decides.
//
// The errors name each field whose value cannot be used, relative to the object it stands in; for such a field, too, the
// policy returned has the default.
func (p Policy) Resolve(trigger, broker *eventingv1.DeliverySpec, annotations ...map[string]string) (Policy, field.ErrorList) {
	r := resolver{path: field.NewPath("spec", "delivery")}
	if !isSet(trigger) {
		r.path = field.NewPath("broker", "spec", "delivery")
	}
	if spec := EffectiveSpec(trigger, broker); spec != nil {
		r.spec(&p, spec)
	}
	r.annotations(&p, annotations)
	return p, r.errs
}

// resolver reads a DeliverySpec into a Policy and collects what is wrong with it.
type resolver struct {
	path *field.Path
	errs field.ErrorList
}

func (r *resolver) spec(p *Policy, s *eventingv1.DeliverySpec) {
	if s.Retry != nil {
		if *s.Retry >= 0 {
			p.Retries = int(*s.Retry)
		} else {
			r.invalid("retry", *s.Retry, "must not be negative")
		}
	}
	r.duration(&p.Timeout, "timeout", s.Timeout, time.Nanosecond)
	r.duration(&p.BackoffDelay, "backoffDelay", s.BackoffDelay, 0)
	r.duration(&p.RetryAfterMax, "retryAfterMax", s.RetryAfterMax, 0)
	r.backoff(p, s.BackoffPolicy)
	r.format(p, s.Format)
}

func (r *resolver) backoff(p *Policy, b *eventingv1.BackoffPolicy) {
	switch {
	case b == nil:
	case *b == eventingv1.BackoffLinear:
		p.Backoff = Linear
	case *b == eventingv1.BackoffExponential:
		p.Backoff = Exponential
	default:
		r.invalid("backoffPolicy", *b, "must be linear or exponential")
	}
}

func (r *resolver) format(p *Policy, f *eventingv1.FormatType) {
	switch {
	case f == nil:
	case *f == eventingv1.FormatJSON:
		p.Format = Structured
	case *f == eventingv1.FormatBinary:
		p.Format = Binary
	default:
		r.invalid("format", *f, "must be json or binary")
	}
}

func (r *resolver) annotations(p *Policy, annotations []map[string]string) {
	r.annotation(&p.BackoffMax, BackoffMaxAnnotation, annotations)
	r.annotation(&p.BacklogMaxAge, BacklogMaxAgeAnnotation, annotations)
	r.flag(&p.HTTP2Cleartext, HTTP2CleartextAnnotation, annotations)
}

// flag reads the truth value of the first object that has it.
func (r *resolver) flag(to *bool, name string, annotations []map[string]string) {
	for _, a := range annotations {
		text, ok := a[name]
		if !ok {
			continue
		}
		if text != "true" && text != "false" {
			path := field.NewPath("metadata", "annotations").Key(name)
			r.errs = append(r.errs, field.NotSupported(path, text, []string{"true", "false"}))
			return
		}
		*to = text == "true"
		return
	}
}

// annotation reads the duration of the first object that has it.
func (r *resolver) annotation(to *time.Duration, name string, annotations []map[string]string) {
	for _, a := range annotations {
		text, ok := a[name]
		if !ok {
			continue
		}
		d, err := parseDuration(text, time.Nanosecond)
		if err != nil {
			path := field.NewPath("metadata", "annotations").Key(name)
			r.errs = append(r.errs, field.Invalid(path, text, err.Error()))
			return
		}
		*to = d
		return
	}
}

func (r *resolver) duration(to *time.Duration, name string, text *string, least time.Duration) {
	if text == nil {
		return
	}
	d, err := parseDuration(*text, least)
	if err != nil {
		r.invalid(name, *text, err.Error())
		return
	}
	*to = d
}

func (r *resolver) invalid(name string, value any, detail string) {
	r.errs = append(r.errs, field.Invalid(r.path.Child(name), value, detail))
}

// parseDuration reads an ISO 8601 duration of at least least. A day has 24 hours; a month and a year have their mean
// lengths.
func parseDuration(text string, least time.Duration) (time.Duration, error) {
	d, err := duration.Parse(text)
	// The library takes P and PT for zero; ISO 8601 wants a number.
	if err != nil || !strings.ContainsAny(text, "0123456789") {
		return 0, errors.New("must be an ISO 8601 duration such as PT0.2S or PT5M")
	}
	hours := d.Hours + 24*(d.Days+7*d.Weeks+31*d.Months+366*d.Years)
	if s := d.Seconds + 60*d.Minutes + 3600*hours; !(s <= longest.Seconds()) {
		return 0, errors.New("must be at most ten years")
	}
	v := d.ToTimeDuration()
	if v < least || d.Negative {
		return 0, errors.New("must be a positive duration")
	}
	return v, nil
}

// Delay returns how long to wait before retry number retry, counted from 1: BackoffDelay × retry or × 2^(retry-1), not
// more than BackoffMax, and then spread over ±10 % by jitter, which is between 0 and 1. BackoffMax also holds for the
// result: at the bound, the spread is over the 10 % below it, so that many events that wait equally long do not come
// back all at once.
//
// It is a pure function; callers pass math/rand/v2.Float64().
func (p Policy) Delay(retry int, jitter float64) time.Duration {
	most := p.BackoffMax
	if most <= 0 || most > longest {
		most = longest
	}
	d := min(p.nominal(max(retry, 1)), most)
	low, high := d-d/10, min(d+d/10, most)
	return low + min(time.Duration(unit(jitter)*float64(high-low)), high-low)
}

// nominal is the delay without jitter and bound; it saturates instead of overflowing.
func (p Policy) nominal(retry int) time.Duration {
	d := max(p.BackoffDelay, 0)
	factor := int64(math.MaxInt64)
	if p.Backoff == Linear {
		factor = int64(retry)
	} else if retry <= 62 {
		factor = 1 << (retry - 1)
	}
	if d > 0 && factor > int64(longest/d) {
		return longest
	}
	return d * time.Duration(factor)
}

// unit forces f into 0..1; NaN is 0.
func unit(f float64) float64 {
	if !(f > 0) {
		return 0
	}
	return min(f, 1)
}
