package v1

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestBrokerLimits(t *testing.T) {
	b := &Broker{}
	if l, errs := b.Limits(); l != (BrokerLimits{}) || errs != nil {
		t.Errorf("a broker without annotations: %+v, %v", l, errs)
	}
	b.Annotations = map[string]string{
		MaxBytesAnnotation: "10Gi", MaxMessagesAnnotation: "500", MaxEventBytesAnnotation: "2M", ParkedMaxAgeAnnotation: "P14D",
		ParkedMaxBytesAnnotation: "0.5Gi", DuplicateWindowAnnotation: "PT1H", ReplicasAnnotation: "3",
	}
	want := BrokerLimits{
		MaxBytes: 10 << 30, MaxMessages: 500, MaxEventBytes: 2_000_000, ParkedMaxAge: 14 * 24 * time.Hour,
		ParkedMaxBytes: 512 << 20, DuplicateWindow: time.Hour, Replicas: 3,
	}
	got, errs := b.Limits()
	if diff := cmp.Diff(want, got); diff != "" || errs != nil {
		t.Errorf("errors %v, want(-) got(+):\n%s", errs, diff)
	}
}

func TestBrokerLimitsFaults(t *testing.T) {
	for _, tc := range []struct{ key, value, detail string }{
		{MaxBytesAnnotation, "10GB", "write 10Gi"},
		{MaxBytesAnnotation, "10 gib", "write 10Gi"},
		{MaxBytesAnnotation, "10gi", "write 10Gi"},
		{MaxBytesAnnotation, "512m", "write 512Mi"},
		{MaxBytesAnnotation, "1024", "units are Ki, Mi, Gi"},
		{MaxBytesAnnotation, "", "such as 512Mi"},
		{MaxBytesAnnotation, "lots", "such as 512Mi"},
		{MaxBytesAnnotation, "-1Gi", "at least 16Mi"},
		{MaxBytesAnnotation, "1Mi", "at least 16Mi"},
		{MaxBytesAnnotation, "100E", "at most 1Ei"},
		{MaxMessagesAnnotation, "0", "at least 1"},
		{MaxMessagesAnnotation, "1k", "whole number"},
		{MaxEventBytesAnnotation, "1", "at least 1Ki"},
		{MaxEventBytesAnnotation, "9Mi", "at most 8Mi"},
		{ParkedMaxAgeAnnotation, "7d", "P7D"},
		{ParkedMaxAgeAnnotation, "PT1S", "between PT1M and P365D"},
		{ParkedMaxAgeAnnotation, "P1Y", "years or months"},
		{ParkedMaxBytesAnnotation, "1Ki", "at least 16Mi"},
		{DuplicateWindowAnnotation, "PT1S", "between PT30S and PT24H"},
		{DuplicateWindowAnnotation, "P2D", "between PT30S and PT24H"},
		{ReplicasAnnotation, "2", `"1", "3" or "5"`},
		{ReplicasAnnotation, "three", `"1", "3" or "5"`},
	} {
		b := &Broker{}
		b.Name = "b"
		DefaultBroker(b)
		b.Annotations[tc.key] = tc.value
		errs := ValidateBroker(b)
		if len(errs) != 1 || errs[0].Field != "metadata.annotations["+tc.key+"]" || !strings.Contains(errs[0].Detail, tc.detail) {
			t.Errorf("%s %q: got %v, want one error with %q", tc.key, tc.value, errs, tc.detail)
		}
		if l, _ := b.Limits(); l != (BrokerLimits{}) {
			t.Errorf("%s %q has effect: %+v", tc.key, tc.value, l)
		}
	}
}

// TestBytesNeverSurprise holds whatever is accepted to be within its bounds.
func TestBytesNeverSurprise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.StringMatching(`-?[0-9.]{0,20}[EPTGMKkmui]{0,2}`), rapid.String()).Draw(t, "value")
		n, fault := ParseBytes(value, 1024, 1<<40)
		if (fault == "") != (n >= 1024 && n <= 1<<40) {
			t.Fatalf("%q is %d, %q", value, n, fault)
		}
	})
}
