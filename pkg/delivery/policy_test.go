package delivery

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// with returns the default policy after change.
func with(change func(*Policy)) Policy {
	p := DefaultPolicy()
	change(&p)
	return p
}

func TestResolvePolicy(t *testing.T) {
	backoffMax := func(s string) map[string]string { return map[string]string{BackoffMaxAnnotation: s} }
	tests := []struct {
		name            string
		trigger, broker *eventingv1.DeliverySpec
		annotations     []map[string]string
		want            Policy
		errs            []string
	}{
		{name: "nothing set", want: DefaultPolicy()},
		{
			name: "empty delivery is not set", trigger: &eventingv1.DeliverySpec{},
			broker: &eventingv1.DeliverySpec{Retry: new(int32(3))},
			want:   with(func(p *Policy) { p.Retries = 3 }),
		},
		{
			name: "retry zero is honored", trigger: &eventingv1.DeliverySpec{Retry: new(int32(0))},
			want: with(func(p *Policy) { p.Retries = 0 }),
		},
		{
			name:    "any field of the trigger hides the broker's delivery",
			trigger: &eventingv1.DeliverySpec{Timeout: new("PT5S")},
			broker: &eventingv1.DeliverySpec{
				Retry: new(int32(3)), BackoffDelay: new("PT7S"), Format: new(eventingv1.FormatJSON),
			},
			want: with(func(p *Policy) { p.Timeout = 5 * time.Second }),
		},
		{
			name:    "a dead letter sink alone hides it too",
			trigger: &eventingv1.DeliverySpec{DeadLetterSink: &eventingv1.Destination{}},
			broker:  &eventingv1.DeliverySpec{Retry: new(int32(3))},
			want:    DefaultPolicy(),
		},
		{
			name: "everything set",
			broker: &eventingv1.DeliverySpec{
				Retry: new(int32(5)), Timeout: new("PT2M"), BackoffPolicy: new(eventingv1.BackoffLinear),
				BackoffDelay: new("PT1.5S"), RetryAfterMax: new("PT1H"), Format: new(eventingv1.FormatJSON),
			},
			annotations: []map[string]string{{BacklogMaxAgeAnnotation: "P2D"}, backoffMax("PT10M")},
			want: Policy{
				BacklogMaxAge: 48 * time.Hour,
				Retries:       5, Timeout: 2 * time.Minute, Backoff: Linear, BackoffDelay: 1500 * time.Millisecond,
				BackoffMax: 10 * time.Minute, RetryAfterMax: time.Hour, Format: Structured,
			},
		},
		{
			name:    "zero delay and zero retryAfterMax",
			trigger: &eventingv1.DeliverySpec{BackoffDelay: new("PT0S"), RetryAfterMax: new("PT0S")},
			want:    with(func(p *Policy) { p.BackoffDelay = 0 }),
		},
		{
			name:        "HTTP/2 without TLS",
			annotations: []map[string]string{nil, {HTTP2CleartextAnnotation: "true"}},
			want:        with(func(p *Policy) { p.HTTP2Cleartext = true }),
		},
		{
			name:        "the Trigger's own word on HTTP/2",
			annotations: []map[string]string{{HTTP2CleartextAnnotation: "false"}, {HTTP2CleartextAnnotation: "true"}},
			want:        DefaultPolicy(),
		},
		{
			name:        "neither true nor false",
			annotations: []map[string]string{{HTTP2CleartextAnnotation: "yes"}},
			want:        DefaultPolicy(),
			errs:        []string{"metadata.annotations[millrace.dev/http2-cleartext]"},
		},
		{
			name:        "the first annotation decides",
			annotations: []map[string]string{backoffMax("PT1S"), backoffMax("PT2S")},
			want:        with(func(p *Policy) { p.BackoffMax = time.Second }),
		},
		{
			name: "what is wrong has the default and an error",
			trigger: &eventingv1.DeliverySpec{
				Retry: new(int32(-1)), Timeout: new("PT0S"), BackoffPolicy: new(eventingv1.BackoffPolicy("cubic")),
				BackoffDelay: new("200ms"), RetryAfterMax: new("-PT1S"), Format: new(eventingv1.FormatType("xml")),
			},
			annotations: []map[string]string{backoffMax("soon")},
			want:        DefaultPolicy(),
			errs: []string{
				"spec.delivery.retry", "spec.delivery.timeout", "spec.delivery.backoffDelay",
				"spec.delivery.retryAfterMax", "spec.delivery.backoffPolicy", "spec.delivery.format",
				"metadata.annotations[millrace.dev/backoff-max]",
			},
		},
		{
			name: "an error of the broker says so", broker: &eventingv1.DeliverySpec{Timeout: new("")},
			want: DefaultPolicy(), errs: []string{"broker.spec.delivery.timeout"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, errs := ResolvePolicy(tt.trigger, tt.broker, tt.annotations...)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("policy (-want +got):\n%s", diff)
			}
			var fields []string
			for _, e := range errs {
				fields = append(fields, e.Field)
			}
			if diff := cmp.Diff(tt.errs, fields); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveWithOwnDefaults(t *testing.T) {
	defaults := Policy{Retries: 2, Timeout: time.Second}
	got, errs := defaults.Resolve(&eventingv1.DeliverySpec{Retry: new(int32(4))}, nil)
	if want := (Policy{Retries: 4, Timeout: time.Second}); got != want || errs != nil {
		t.Errorf("Resolve = %+v, %v; want %+v", got, errs, want)
	}
}

func TestParseDuration(t *testing.T) {
	good := map[string]time.Duration{
		"PT0.2S": 200 * time.Millisecond, "PT5M": 5 * time.Minute, "P1D": 24 * time.Hour, "P1W": 168 * time.Hour,
		"PT1H30M": 90 * time.Minute, "PT0S": 0, "P1DT1S": 24*time.Hour + time.Second, "PT.5S": 500 * time.Millisecond,
	}
	for text, want := range good {
		if got, err := parseDuration(text, 0); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "P", "PT", "T", "5s", "5", "PT5", "PTS", "-PT5S", "PT-5S", "pt5s", " PT5S", "PT5S ", "PT5S\n", "P1S", "PT1D",
		"PT1e3S", "PT99999999999999999999S", "P11Y", "P1000000000W", "PT1..2S", "PT٣S",
	} {
		if got, err := parseDuration(text, 0); err == nil {
			t.Errorf("parseDuration(%q) = %v; want an error", text, got)
		}
	}
}

func TestDelay(t *testing.T) {
	const second = time.Second
	tests := []struct {
		name   string
		policy Policy
		retry  int
		jitter float64
		want   time.Duration
	}{
		{"exponential 1", Policy{BackoffDelay: second}, 1, 0.5, second},
		{"exponential 2", Policy{BackoffDelay: second}, 2, 0.5, 2 * second},
		{"exponential 5", Policy{BackoffDelay: second}, 5, 0.5, 16 * second},
		{"linear 1", Policy{BackoffDelay: second, Backoff: Linear}, 1, 0.5, second},
		{"linear 5", Policy{BackoffDelay: second, Backoff: Linear}, 5, 0.5, 5 * second},
		{"least", Policy{BackoffDelay: second}, 1, 0, 900 * time.Millisecond},
		{"most", Policy{BackoffDelay: second}, 1, 1, 1100 * time.Millisecond},
		{"no delay", Policy{}, 5, 1, 0},
		{"the bound holds after jitter", Policy{BackoffDelay: second, BackoffMax: 4 * second}, 9, 1, 4 * second},
		{"spread below the bound", Policy{BackoffDelay: second, BackoffMax: 4 * second}, 9, 0, 3600 * time.Millisecond},
		{"retry 1000", DefaultPolicy(), 1000, 1, 5 * time.Minute},
		{"retry 0 is taken for 1", Policy{BackoffDelay: second}, 0, 0.5, second},
		{"jitter is bounded", Policy{BackoffDelay: second}, 1, 7, 1100 * time.Millisecond},
		{"jitter is a number", Policy{BackoffDelay: second}, 1, math.NaN(), 900 * time.Millisecond},
		{"no bound, no overflow", Policy{BackoffDelay: time.Hour}, 1000, 1, longest},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.policy.Delay(tt.retry, tt.jitter); got != tt.want {
				t.Errorf("Delay(%d, %v) = %v, want %v", tt.retry, tt.jitter, got, tt.want)
			}
		})
	}
}

func drawPolicy(t *rapid.T) Policy {
	span := rapid.Int64Range(0, math.MaxInt64)
	return Policy{
		Retries:       rapid.IntRange(0, 1000).Draw(t, "retries"),
		Backoff:       rapid.SampledFrom([]Backoff{Linear, Exponential}).Draw(t, "backoff"),
		BackoffDelay:  time.Duration(span.Draw(t, "delay")),
		BackoffMax:    time.Duration(span.Draw(t, "max")),
		RetryAfterMax: time.Duration(span.Draw(t, "retryAfterMax")),
	}
}

func TestDelayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		retry := rapid.IntRange(1, math.MaxInt32).Draw(t, "retry")
		jitter := rapid.Float64Range(0, 1).Draw(t, "jitter")
		got := p.Delay(retry, jitter)
		if got < 0 || p.BackoffMax > 0 && got > p.BackoffMax || got > longest {
			t.Fatalf("Delay = %v is out of bounds", got)
		}
		middle := min(p.nominal(retry), longest)
		if p.BackoffMax > 0 {
			middle = min(middle, p.BackoffMax)
		}
		if got < middle-middle/10 || got > middle+middle/10 {
			t.Fatalf("Delay = %v is more than a tenth from %v", got, middle)
		}
		if next := p.Delay(retry+1, jitter); next < got {
			t.Fatalf("Delay shrinks from %v to %v", got, next)
		}
	})
}
