package journal_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/observe"
)

// BenchmarkLife records the lives of events that are delivered at once, as an ingress and as a filter do, and stores what was recorded as often
// as at 5,000 events a second. Beside the time it tells the processor time an event, with that of the collector, and what is stored.
func BenchmarkLife(b *testing.B) {
	const (
		flushed = 2500 // events of half a second
		events  = 4 * flushed
	)
	trigger := &observe.Trigger{Broker: seenBroker, Namespace: "default", Name: "gifts", Key: "default/gifts"}
	lives := make([]*event.Event, events)
	peers := make([]string, 64)
	for i := range peers {
		peers[i] = fmt.Sprint("10.1.2.3:", 40_000+i)
	}
	for i := range lives {
		lives[i] = liveEvent(i)
	}
	ingress := func(w *journal.Writer, i int, at time.Time) {
		w.Arrived(observe.Arrival{Broker: seenBroker, Event: lives[i%events], From: peers[i%len(peers)], At: at, Took: time.Duration(i%9973) * time.Microsecond})
	}
	filter := func(w *journal.Writer, i int, at time.Time) {
		e, took := lives[i%events], time.Duration(i%997)*time.Microsecond
		w.Matched(observe.Match{Broker: seenBroker, Event: e, Sequence: uint64(i), Stored: at.Add(-time.Millisecond), At: at, Triggers: []*observe.Trigger{trigger}})
		w.Attempted(observe.Attempt{Trigger: trigger, Event: e, Number: 1, At: at, Took: took, Status: 202, Action: "done"})
		w.Settled(observe.Settlement{Trigger: trigger, Event: e, Fate: observe.Delivered, Attempts: 1, At: at.Add(took)})
	}
	for name, record := range map[string]func(*journal.Writer, int, time.Time){"ingress": ingress, "filter": filter} {
		b.Run(name, func(b *testing.B) {
			w := journal.NewIdleWriter(journal.WriterOptions{Store: discard{}})
			begun := time.Now()
			used, n := processorTime(b), 0
			b.ReportAllocs()
			for ; b.Loop(); n++ {
				record(w, n, begun.Add(time.Duration(n)*200*time.Microsecond))
				w.Gather()
				if n%flushed == flushed-1 {
					w.Flush()
				}
			}
			w.Flush()
			used = processorTime(b) - used
			s := w.Stats()
			if s.Dropped > 0 {
				b.Fatalf("%d records were dropped", s.Dropped)
			}
			b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/event")
			b.ReportMetric(float64(s.Bytes)/float64(n), "stored-B/event")
			b.ReportMetric(float64(s.Bytes)/float64(s.Blocks), "B/block")
		})
	}
}

func liveEvent(i int) *event.Event {
	at := time.UnixMicro(1_790_000_000_000_000 + int64(i)*200).UTC().Format(time.RFC3339Nano)
	e := eventOf(fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(i)*2654435761, i), "/rooms/42")
	e.Set(event.Type, "com.example.live.gift.sent", event.String)
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.Time, at, event.String)
	e.Set(event.Subject, "room-42", event.String)
	e.Set(event.DataContentType, "application/json", event.String)
	e.Set(event.ArrivalTime, at, event.String)
	e.Set(event.HopLimit, "255", event.Integer)
	return e
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
