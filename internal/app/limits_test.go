package app

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/stream"
)

func TestLimitsOfABroker(t *testing.T) {
	defaults := LimitDefaults{MaxBytes: 5 << 30, Replicas: 3}.withDefaults()
	o := &eventingv1.Broker{}
	want := stream.Limits{
		MaxBytes: 5 << 30, MaxEventBytes: 1<<20 + 64<<10, Replicas: 3, DuplicateWindow: 2 * time.Minute,
		ParkedMaxAge: 7 * 24 * time.Hour, ParkedMaxBytes: 5 << 30 / 10,
	}
	check := func(wantBytes int) {
		t.Helper()
		got, eventBytes := defaults.Resolve(o)
		if diff := cmp.Diff(want, got); diff != "" || eventBytes != wantBytes {
			t.Errorf("events of %d bytes, want(-) got(+):\n%s", eventBytes, diff)
		}
	}
	check(1 << 20)
	o.Annotations = map[string]string{
		eventingv1.MaxBytesAnnotation: "64Mi", eventingv1.MaxMessagesAnnotation: "9", eventingv1.MaxEventBytesAnnotation: "2Mi",
		eventingv1.ParkedMaxAgeAnnotation: "P1D", eventingv1.ParkedMaxBytesAnnotation: "1Gi",
		eventingv1.DuplicateWindowAnnotation: "PT10M", eventingv1.ReplicasAnnotation: "1",
	}
	want = stream.Limits{
		MaxBytes: 64 << 20, MaxMessages: 9, MaxEventBytes: 2<<20 + 64<<10, Replicas: 1, DuplicateWindow: 10 * time.Minute,
		ParkedMaxAge: 24 * time.Hour, ParkedMaxBytes: 1 << 30,
	}
	check(2 << 20)
}

func TestLimitDefaultsAreChecked(t *testing.T) {
	for _, d := range []LimitDefaults{{Replicas: 2}, {MaxEventBytes: 9 << 20}, {MaxEventBytes: -1}, {MaxBytes: 1}, {MaxBytes: -1}} {
		if err := d.withDefaults().validate(); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
	if err := (LimitDefaults{}).withDefaults().validate(); err != nil {
		t.Error(err)
	}
}
