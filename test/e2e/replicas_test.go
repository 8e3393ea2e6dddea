package e2e

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"millrace.dev/test/harness"
)

// Two filters share a Broker and one is killed under load: the other takes over what it had under way, nothing is lost, and
// no more comes twice than was under way.
func TestAKilledFilterLosesNothingAndRepeatsOnlyWhatItHad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes longer than the store's ack wait")
	}
	t.Parallel()
	const count, perSecond = 4000, 500
	s := newTally(t, func() { time.Sleep(100 * time.Millisecond) }) // keeps some fifty deliveries under way
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL})
	c.StartAll(t, 2)
	pending := make(chan int, 1)
	go func() {
		for deadline := time.Now().Add(harness.Patience); s.total.Load() < count/2 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		c.Filters[0].Kill()
		pending <- consumersOf(t, c.NATSURL(), eventStream)[0].NumAckPending
	}()
	postAtRate(t, c.URL("b"), count, perSecond)
	underWay := <-pending
	harness.Eventually(t, "all events arrive", func() error {
		if n := s.ids(); n != count {
			return fmt.Errorf("%d of %d", n, count)
		}
		return nil
	})
	harness.Eventually(t, "nothing is left in the store", func() error {
		if info := consumersOf(t, c.NATSURL(), eventStream)[0]; info.NumPending > 0 || info.NumAckPending > 0 {
			return fmt.Errorf("%d to be delivered, %d under way", info.NumPending, info.NumAckPending)
		}
		return nil
	})
	repeated := int(s.total.Load()) - count
	if repeated > underWay {
		t.Errorf("%d events came twice, with %d under way in both filters", repeated, underWay)
	}
	for n := range count {
		if id := strconv.Itoa(n); s.times(id) < 1 || s.times(id) > 2 {
			t.Errorf("event %s came %d times", id, s.times(id))
		}
	}
	t.Logf("%d events, %d of them twice; %d were under way in both filters when one was killed", count, repeated, underWay)
}
