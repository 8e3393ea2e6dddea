package dispatch_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/dispatch"
)

// startWith replaces the fixture's dispatcher by so many with other limits.
func (f *fixture) startWith(replicas int, o dispatch.Options) {
	f.t.Helper()
	f.stop(10 * time.Second)
	for range replicas {
		f.start(o)
	}
}

// Subscribers that do not answer, with more events of their own than may be unsettled, fit into memory or be delivered at a
// time, leave the others what they need.
func TestHungSubscribersDoNotUseUpWhatIsShared(t *testing.T) {
	for name, c := range map[string]struct {
		replicas int
		limits   dispatch.Options
	}{
		"messages":   {1, dispatch.Options{MaxAckPending: 400}},
		"bytes":      {1, dispatch.Options{MaxInFlightBytes: 1 << 20}},
		"deliveries": {1, dispatch.Options{MaxDeliveries: 16}},
		"replicas":   {6, dispatch.Options{MaxAckPending: 400}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startWith(c.replicas, c.limits)
			f.data = bytes.Repeat([]byte("x"), 8<<10)
			release := make(chan struct{})
			hung := newSubscriber(t, func(int, http.ResponseWriter, *http.Request) { <-release })
			answer := sync.OnceFunc(func() { close(release) })
			t.Cleanup(answer)
			steady := newSubscriber(t, nil)
			triggers := []*dispatch.Trigger{f.trigger("steady", "steady", steady.URL)}
			const lanes, own, count = 8, 150, 500
			for i := range lanes {
				triggers = append(triggers, f.trigger(fmt.Sprint("hung", i), fmt.Sprint("hung", i), hung.URL))
			}
			f.serve(triggers...)
			for i := range lanes * own {
				f.publish(fmt.Sprint("hung", i%lanes), fmt.Sprint("h", i))
			}
			for i := range count {
				f.publish("steady", fmt.Sprint(i))
			}
			eventually(t, "the steady subscriber has everything", func() bool { return steady.total() == count })
			if most := c.limits.MaxDeliveries + lanes; c.limits.MaxDeliveries > 0 && hung.total() > most {
				t.Errorf("%d deliveries at a time to those that hang, want at most %d", hung.total(), most)
			}
			answer()
			f.waitEmpty()
			if got := hung.total(); got != lanes*own {
				t.Errorf("%d deliveries to those that hung, want %d", got, lanes*own)
			}
		})
	}
}

// Large events that wait long for their next attempt leave room for those that wait shortly.
func TestLongDelaysDoNotHoldUpShortOnes(t *testing.T) {
	f := newFixture(t)
	f.startWith(1, dispatch.Options{MaxInFlightBytes: 1 << 20})
	f.data = bytes.Repeat([]byte("x"), 16<<10)
	s := newSubscriber(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 || strings.HasPrefix(r.Header.Get("ce-id"), "long") {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	long, short := f.trigger("long", "long", s.URL), f.trigger("short", "short", s.URL)
	long.Policy.BackoffDelay, long.Policy.BackoffMax = time.Hour, time.Hour
	f.serve(long, short)
	for i := range 40 {
		f.publish("long", fmt.Sprint("long", i))
	}
	eventually(t, "they wait", func() bool { return f.stored(f.names.Retries) == 40 })
	f.publish("short", "a")
	eventually(t, "the other gets its second attempt", func() bool { return s.times("a") == 2 })
}
