package dispatch_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
)

// startWith replaces the fixture's dispatcher by one with other limits.
func (f *fixture) startWith(o dispatch.Options) {
	f.t.Helper()
	f.stop(10 * time.Second)
	o.Conn, o.Publisher, o.Logger = f.conn, f.publisher, slog.New(slog.DiscardHandler)
	o.Sender = delivery.NewSender(delivery.Options{AllowLoopback: true})
	var err error
	if f.dispatcher, err = dispatch.New(o); err != nil {
		f.t.Fatal(err)
	}
}

// Subscribers that do not answer, with more events of their own than may be unsettled or fit into memory, leave the others
// what they need.
func TestHungSubscribersDoNotUseUpWhatIsShared(t *testing.T) {
	for name, o := range map[string]dispatch.Options{
		"messages": {MaxAckPending: 400},
		"bytes":    {MaxInFlightBytes: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.startWith(o)
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
	f.startWith(dispatch.Options{MaxInFlightBytes: 1 << 20})
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
