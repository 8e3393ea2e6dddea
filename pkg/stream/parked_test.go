package stream_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// park parks count events for a Trigger, with the ids from, from+1 and so on.
func park(t testing.TB, c *stream.Conn, n *stream.Names, triggerUID string, from, count int) {
	t.Helper()
	p := stream.NewPublisher(c, 0)
	for i := range count {
		id := fmt.Sprint(from + i)
		_, err := p.Park(t.Context(), n, triggerUID, stream.Message{Event: newEvent(id, []byte("data "+id))}, stream.Progress{
			Attempt: 3, Code: 503, Cause: "overloaded", Destination: "http://subscriber/", First: time.UnixMilli(1000),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// list reads all pages of a query.
func list(t testing.TB, c *stream.Conn, n *stream.Names, q stream.ParkedQuery) (all []stream.Parked, pages int) {
	t.Helper()
	for {
		page, err := c.ListParked(t.Context(), n, q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Events...)
		pages++
		if page.Next == 0 {
			return all, pages
		}
		q.After = page.Next
	}
}

func sequences(all []stream.Parked) []uint64 {
	var s []uint64
	for _, p := range all {
		s = append(s, p.Sequence)
	}
	return s
}

func TestParkedRoundTrip(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	if all, _ := list(t, c, n, stream.ParkedQuery{}); len(all) != 0 {
		t.Errorf("%d events in an empty stream", len(all))
	}
	before := time.Now()
	park(t, c, n, "uid-a", 1, 1)
	all, _ := list(t, c, n, stream.ParkedQuery{})
	if len(all) != 1 || all[0].Event == nil {
		t.Fatalf("listed %+v", all)
	}
	got, err := c.GetParked(t.Context(), n, all[0].Sequence)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Event.Data) != "data 1" || got.Event.Value(event.ID) != "1" || got.Size != 6 {
		t.Errorf("event %v with data %q of %d bytes", got.Event.Attributes, got.Event.Data, got.Size)
	}
	want := stream.Progress{Attempt: 3, Code: 503, Cause: "overloaded", Destination: "http://subscriber/", First: time.UnixMilli(1000)}
	if diff := cmp.Diff(want, got.Progress); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if got.TriggerUID != "uid-a" || got.At.Before(before.Add(-time.Second)) || got.At.After(time.Now().Add(time.Second)) {
		t.Errorf("parked for %q at %s", got.TriggerUID, got.At)
	}
	if listed := all[0]; listed.Event.Data != nil || listed.Size != 6 || !listed.At.Equal(got.At) || listed.RedriveID() != got.RedriveID() {
		t.Errorf("the list says %+v, the event %+v", listed, got)
	}
}

func TestParkedPages(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	for i := range 10 {
		park(t, c, n, "uid-a", 2*i, 1)
		park(t, c, n, "uid-b", 2*i+1, 1)
	}
	for _, sequence := range []uint64{1, 7, 20} {
		if err := c.DeleteParked(t.Context(), n, sequence); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		query stream.ParkedQuery
		want  []uint64
		pages int
	}{
		"all":         {stream.ParkedQuery{}, []uint64{2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, 1},
		"small pages": {stream.ParkedQuery{Limit: 5}, []uint64{2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, 4},
		"a trigger":   {stream.ParkedQuery{TriggerUID: "uid-a", Limit: 3}, []uint64{3, 5, 9, 11, 13, 15, 17, 19}, 3},
		"after":       {stream.ParkedQuery{After: 16}, []uint64{17, 18, 19}, 1},
		"until":       {stream.ParkedQuery{Until: 5, Limit: 2}, []uint64{2, 3, 4, 5}, 3},
		"until gone":  {stream.ParkedQuery{Until: 7, After: 5}, []uint64{6}, 1},
		"behind all":  {stream.ParkedQuery{After: 1000}, nil, 1},
		"no such uid": {stream.ParkedQuery{TriggerUID: "uid-c"}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			all, pages := list(t, c, n, test.query)
			if got := sequences(all); !slices.Equal(got, test.want) || pages != test.pages {
				t.Errorf("got %v on %d pages, want %v on %d", got, pages, test.want, test.pages)
			}
		})
	}
	for _, uid := range []string{"*", ">", "a.b", "a b", "a\n"} {
		if _, err := c.ListParked(t.Context(), n, stream.ParkedQuery{TriggerUID: uid}); !errors.Is(err, stream.ErrBadUID) {
			t.Errorf("UID %q: %v", uid, err)
		}
	}
}

func TestParkedGone(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	park(t, c, n, "uid-a", 1, 3)
	if err := c.DeleteParked(t.Context(), n, 2); err != nil {
		t.Fatal(err)
	}
	for _, sequence := range []uint64{2, 4, 1 << 40} {
		if _, err := c.GetParked(t.Context(), n, sequence); !errors.Is(err, stream.ErrNotParked) {
			t.Errorf("get %d: %v", sequence, err)
		}
		if err := c.DeleteParked(t.Context(), n, sequence); !errors.Is(err, stream.ErrNotParked) {
			t.Errorf("delete %d: %v", sequence, err)
		}
	}
	if left := messages(t, c, n.Parked); left != 2 {
		t.Errorf("%d left, want 2", left)
	}
	nowhere := stream.NewNames("default", "nowhere", "0")
	if _, err := c.ListParked(t.Context(), nowhere, stream.ParkedQuery{}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("a stream that is not there: %v", err)
	}
}

func TestPurgeParked(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	park(t, c, n, "uid-a", 0, 10)
	park(t, c, n, "uid-b", 10, 10)
	state, err := c.ParkedState(t.Context(), n)
	if err != nil || state.Messages != 20 || state.Last != 20 || state.Bytes == 0 {
		t.Fatalf("%+v, %v", state, err)
	}
	for _, step := range []struct {
		uid          string
		until        uint64
		purged, left uint64
	}{{"uid-a", 4, 4, 16}, {"uid-b", 12, 2, 14}, {"uid-b", 20, 8, 6}, {"uid-c", 20, 0, 6}, {"", 9, 5, 1}, {"", 1000, 1, 0}} {
		purged, err := c.PurgeParked(t.Context(), n, step.uid, step.until)
		if err != nil || purged != step.purged {
			t.Errorf("purge %q until %d: %d, %v; want %d", step.uid, step.until, purged, err, step.purged)
		}
		if left := messages(t, c, n.Parked); left != step.left {
			t.Errorf("purge %q until %d: %d left, want %d", step.uid, step.until, left, step.left)
		}
	}
}

// What another NATS client has written into the stream can be seen and removed.
func TestParkedIsNoEvent(t *testing.T) {
	s := startServer(t)
	c := dial(t, s)
	n := stream.NewNames("default", "live", "0123456789abcdef")
	if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Request(n.ParkedPrefix+"uid-a", []byte("what?"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	all, _ := list(t, c, n, stream.ParkedQuery{})
	if len(all) != 1 || all[0].Event != nil || !errors.Is(all[0].Problem, stream.ErrCorrupt) || all[0].Size != 5 {
		t.Errorf("listed %+v", all)
	}
	if p, err := c.GetParked(t.Context(), n, 1); err != nil || p.Event != nil || p.Problem == nil {
		t.Errorf("got %+v, %v", p, err)
	}
}

// A large list is read in bounded memory and leaves no consumers behind.
func BenchmarkListParked(b *testing.B) {
	c, n := startBroker(b, stream.Limits{MaxBytes: 100 << 30})
	const events = 20_000
	park(b, c, n, "uid-a", 0, events)
	b.ReportAllocs()
	for b.Loop() {
		if all, _ := list(b, c, n, stream.ParkedQuery{Limit: 1000}); len(all) != events {
			b.Fatalf("%d events", len(all))
		}
	}
	b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
}
