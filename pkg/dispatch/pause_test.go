package dispatch_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/dispatch"
)

// pausing returns the Trigger as it is when paused.
func pausing(t *dispatch.Trigger) *dispatch.Trigger {
	paused := *t
	paused.Paused = true
	return &paused
}

// A Trigger is paused and resumed under load, in several processes: no delivery begins meanwhile, another Trigger goes on,
// and in the end both have had each event once.
func TestPauseKeepsEventsAndHindersNobody(t *testing.T) {
	for _, replicas := range []int{1, 3} {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			f := newFixture(t)
			f.startWith(replicas, dispatch.Options{OrphanGrace: time.Minute})
			held, steady := newSubscriber(t, nil), newSubscriber(t, nil)
			on, other := f.trigger("held", "", held.URL), f.trigger("steady", "", steady.URL)
			const phase = 2000
			f.serve(on, other)
			var load sync.WaitGroup
			load.Go(func() {
				for i := range phase {
					f.publish("x", fmt.Sprint("a", i))
				}
			})
			eventually(t, "deliveries are under way", func() bool { return held.total() > phase/4 })
			f.serve(pausing(on), other)
			eventually(t, "those under way have ended", func() bool { return f.active("held") == 0 })
			before := held.total()
			load.Wait()
			for i := range phase {
				f.publish("x", fmt.Sprint("b", i))
			}
			eventually(t, "the other has everything", func() bool { return steady.total() == 2*phase })
			eventually(t, "nothing is left among the new events", func() bool { return f.stored(f.names.Events) == 0 })
			if got := held.total(); got != before {
				t.Errorf("%d deliveries while paused", got-before)
			}
			// What was delivered from the backlog before is acked a moment later.
			eventually(t, "what has not come waits", func() bool { return f.stored(f.names.Retries) == 2*phase-before })
			f.serve(on, other)
			f.waitEmpty()
			for _, id := range []string{"a", "b"} {
				for i := range phase {
					if n, m := held.times(fmt.Sprint(id, i)), steady.times(fmt.Sprint(id, i)); n != 1 || m != 1 {
						t.Fatalf("event %s%d came %d and %d times, want once", id, i, n, m)
					}
				}
			}
		})
	}
}

// What is paused stays so through a restart and a change of its filter; what matched when it came is delivered whatever
// the filter says later, and a Trigger that is deleted leaves nothing.
func TestPauseOutlivesRestartAndChange(t *testing.T) {
	f := newFixture(t)
	s := newSubscriber(t, nil)
	f.serve(pausing(f.trigger("t", "a", s.URL)), pausing(f.trigger("gone", "a", s.URL)))
	f.publish("a", "1")
	f.publish("b", "2")
	eventually(t, "it waits", func() bool { return f.stored(f.names.Events) == 0 && f.stored(f.names.Retries) == 2 })
	f.startWith(1, dispatch.Options{OrphanGrace: 300 * time.Millisecond})
	changed := f.trigger("t", "b", s.URL)
	changed.Policy.BacklogMaxAge = time.Millisecond // is for subscribers that are down
	f.serve(pausing(changed))
	f.publish("a", "3")
	f.publish("b", "4")
	eventually(t, "the deleted one's is dropped", func() bool { return f.stored(f.names.Events) == 0 && f.stored(f.names.Retries) == 2 })
	if got := s.total(); got != 0 {
		t.Errorf("%d deliveries while paused", got)
	}
	f.serve(changed)
	f.waitEmpty()
	for id, want := range map[string]int{"1": 1, "2": 0, "3": 0, "4": 1} {
		if n := s.times(id); n != want {
			t.Errorf("event %s came %d times, want %d", id, n, want)
		}
	}
}

// A retry that falls due while its Trigger is paused waits, too.
func TestPauseHoldsRetries(t *testing.T) {
	f := newFixture(t)
	s := newSubscriber(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	tr := f.trigger("t", "", s.URL)
	tr.Policy.BackoffDelay = 200 * time.Millisecond
	f.serve(tr)
	f.publish("x", "1")
	eventually(t, "the first attempt failed", func() bool { return f.counts("t").Retried == 1 })
	f.serve(pausing(tr))
	eventually(t, "it fell due and waits in the backlog", func() bool { return f.backlog("t") == 1 })
	if n := s.times("1"); n != 1 {
		t.Errorf("%d attempts, want the first alone", n)
	}
	f.serve(tr)
	f.waitEmpty()
	if n := s.times("1"); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
}

// active is how many deliveries of a Trigger are under way, over all processes.
func (f *fixture) active(name string) (n int) {
	for _, d := range f.dispatchers {
		for _, s := range d.Stats() {
			if s.Trigger == "default/"+name {
				n += s.Active
			}
		}
	}
	return n
}

// backlog is how many deliveries wait in a Trigger's backlog.
func (f *fixture) backlog(name string) (n uint64) {
	f.t.Helper()
	eventually(f.t, "the store says what it holds", func() bool {
		counts, err := f.conn.SubjectCounts(f.t.Context(), f.names.Retries, f.names.BacklogPrefix())
		n = counts[f.names.BacklogPrefix()+"uid-"+name]
		return err == nil
	})
	return n
}
