package observe_test

import (
	"net/http"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

func TestHistogramCountsAndKeepsExemplars(t *testing.T) {
	var h observe.Histogram
	now := time.Now()
	traced := &event.Event{Headers: []event.Header{{
		Name: "Traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}}}
	unsampled := &event.Event{Attributes: []event.Attribute{{
		Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
	}}}
	h.Observe(-time.Second, now, nil)
	h.Observe(time.Millisecond, now, unsampled)
	h.Observe(3*time.Millisecond, now, traced)
	h.Observe(4*time.Millisecond, now, traced)
	h.Observe(time.Hour, now, nil)
	got := h.Read()
	if got.Count != 5 || got.Counts[0] != 2 || got.Counts[2] != 2 || got.Counts[len(got.Counts)-1] != 1 {
		t.Errorf("got %v", got.Counts)
	}
	if want := time.Hour + 8*time.Millisecond; got.Sum != want {
		t.Errorf("got sum %s, want %s", got.Sum, want)
	}
	if len(got.Exemplars) != 1 || got.Exemplars[0].Value != 3*time.Millisecond || got.Exemplars[0].TraceID[0] != 0x0a {
		t.Errorf("got exemplars %+v", got.Exemplars)
	}
	if n := testing.AllocsPerRun(100, func() { h.Observe(3*time.Millisecond, now, traced) }); n != 0 {
		t.Errorf("got %.0f allocations, want none", n)
	}
	var sum observe.Latency
	sum.Merge(got)
	sum.Merge(got)
	if sum.Count != 10 || sum.Counts[0] != 4 {
		t.Errorf("merged: got %+v", sum)
	}
	if n := len(observe.Bounds()); n+1 != len(got.Counts) {
		t.Errorf("%d bounds for %d buckets", n, len(got.Counts))
	}
}

func TestMalformedTraceparentsMakeNoExemplar(t *testing.T) {
	for _, text := range []string{
		"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		var h observe.Histogram
		h.Observe(time.Second, time.Now(), &event.Event{Headers: []event.Header{{Name: "Traceparent", Value: text}}})
		if got := h.Read(); len(got.Exemplars) != 0 || got.Count != 1 {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestResponsesAreBounded(t *testing.T) {
	var r observe.Responses
	for status := range 500 {
		r.Of(http.StatusContinue+status, "").Observe(time.Second, time.Now(), nil)
	}
	r.Of(0, "timeout").Observe(time.Second, time.Now(), nil)
	r.Of(http.StatusContinue, "").Observe(time.Second, time.Now(), nil)
	got := r.Read()
	if len(got) != 17 {
		t.Fatalf("got %d outcomes, want 16 and one for the others", len(got))
	}
	if got[0].Status != http.StatusContinue || got[0].Count != 2 {
		t.Errorf("got %+v first", got[0])
	}
	if last := got[16]; last.Reason != "_OTHER" || last.Count != 485 {
		t.Errorf("got %+v for the others", last)
	}
}

type count struct{ calls *int }

func (c count) Arrived(observe.Arrival)    { *c.calls++ }
func (c count) Matched(observe.Match)      { *c.calls++ }
func (c count) Attempted(observe.Attempt)  { *c.calls++ }
func (c count) Settled(observe.Settlement) { *c.calls++ }
func (c count) Replied(observe.Reply)      { *c.calls++ }

func TestAllTellsEveryRecorder(t *testing.T) {
	if observe.All(nil, nil) != nil {
		t.Error("no recorders make one")
	}
	for n := 1; n <= 3; n++ {
		calls := 0
		recorders := []observe.Recorder{nil}
		for range n {
			recorders = append(recorders, count{&calls})
		}
		all := observe.All(recorders...)
		all.Arrived(observe.Arrival{})
		all.Matched(observe.Match{})
		all.Attempted(observe.Attempt{})
		all.Settled(observe.Settlement{})
		all.Replied(observe.Reply{})
		if calls != 5*n {
			t.Errorf("%d recorders got %d calls", n, calls)
		}
	}
	for fate, want := range map[observe.Fate]string{
		observe.Delivered: "delivered", observe.DeadLettered: "dead_lettered", observe.Parked: "parked",
		observe.Retried: "retried", observe.Overflowed: "overflowed", observe.Expired: "expired",
	} {
		if fate.String() != want {
			t.Errorf("got %q, want %q", fate, want)
		}
	}
}
