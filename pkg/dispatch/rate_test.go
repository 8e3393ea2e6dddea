package dispatch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/dispatch"
)

// clocked is a subscriber that notes when requests come.
type clocked struct {
	*httptest.Server
	mu    sync.Mutex
	times []time.Time
	ids   map[string]int
}

func newClocked(t testing.TB) *clocked {
	c := &clocked{ids: map[string]int{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		now := time.Now()
		_, _ = io.Copy(io.Discard, r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.times = append(c.times, now)
		c.ids[r.Header.Get("ce-id")]++
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *clocked) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.times)
}

// most is the largest number of requests in any window so long.
func (c *clocked) most(window time.Duration) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortFunc(c.times, time.Time.Compare)
	for from, to := 0, 0; to < len(c.times); to++ {
		for c.times[to].Sub(c.times[from]) >= window {
			from++
		}
		n = max(n, to-from+1)
	}
	return n
}

// A Trigger with a limit gets a burst spread out, each event once, while a Trigger beside it has all of it at once; so in several processes that
// divide the limit, one of which joins and one of which leaves meanwhile, and in which some have no part of it.
func TestRateLimitHoldsAtTheReceiver(t *testing.T) {
	// A request may be held up between the limit and the handler that notes it, on a busy machine by more than the 50 ms that the
	// limit allows for. What is held up by so much less than this bunches no more of them into a window.
	const jitter = 250 * time.Millisecond
	for _, c := range []struct{ replicas, rate, events int }{{1, 40, 200}, {3, 40, 200}, {3, 2, 12}} {
		t.Run(fmt.Sprintf("%d of %d", c.rate, c.replicas), func(t *testing.T) {
			f := newFixture(t)
			f.startWith(c.replicas, dispatch.Options{OrphanGrace: time.Minute})
			slow, steady := newClocked(t), newClocked(t)
			limited, other := f.trigger("limited", "", slow.URL), f.trigger("steady", "", steady.URL)
			limited.RateLimit = c.rate
			f.serve(limited, other)
			for i := range c.events {
				f.publish("x", fmt.Sprint(i))
			}
			eventually(t, "the other has everything", func() bool { return steady.total() == c.events })
			if slow.total() > c.events/2 {
				t.Errorf("%d deliveries already", slow.total())
			}
			if c.replicas > 1 {
				eventually(t, "some are delivered", func() bool { return slow.total() > c.events/8 })
				f.start(dispatch.Options{OrphanGrace: time.Minute})
				f.serve(limited, other)
				eventually(t, "more are delivered", func() bool { return slow.total() > c.events/3 })
				f.stopFirst()
			}
			f.waitEmpty()
			if len(slow.ids) != c.events || slow.total() != c.events {
				t.Errorf("%d of %d events came, in %d deliveries", len(slow.ids), c.events, slow.total())
			}
			if n := slow.most(time.Second - jitter); n > c.rate {
				t.Errorf("%d deliveries in a window, want at most %d", n, c.rate)
			}
			t.Logf("at most %d in a second", slow.most(time.Second))
		})
	}
}

// stopFirst ends the dispatcher that was started first.
func (f *fixture) stopFirst() {
	first := f.dispatchers[0]
	f.dispatchers = f.dispatchers[1:]
	first.Stop(f.t.Context())
}
