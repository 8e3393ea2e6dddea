package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/test/harness"
)

// Sixty subscribers that never answer, each with more events of its own than its Trigger may have under way in two filters,
// could hold 12,000 unsettled events, and the store hands out 8,192. Still the Trigger beside them gets its events at once,
// and when they answer again each of their events is there, once.
func TestMaxAckPendingIsNotExhaustedByHungSubscribers(t *testing.T) {
	const hung, own, steady, perSecond = 60, 220, 1000, 300
	release := make(chan struct{})
	answer := sync.OnceFunc(func() { close(release) })
	hangs := newTally(t, func() { <-release })
	t.Cleanup(answer)
	healthy := newTally(t, nil)
	triggers := []peerTrigger{{name: "healthy", subscriber: healthy.URL, filter: "attributes: {type: steady}"}}
	for i := range hung {
		triggers = append(triggers, peerTrigger{
			name: fmt.Sprint("hung", i), subscriber: hangs.URL, filter: fmt.Sprintf("attributes: {type: own%d}", i),
			delivery: "timeout: PT5M",
		})
	}
	c := newPeerCluster(t, triggers...)
	c.StartAll(t, 2)
	broker := c.URL("b")
	flood(t, broker, hung*own, func(n int) string { return fmt.Sprint("own", n%hung) })
	harness.Eventually(t, "all that can be under way hangs", func() error {
		if n := hangs.total.Load(); n < hung*50 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	start := time.Now()
	for n := range steady {
		time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / perSecond)))
		postID(t, broker, strconv.FormatInt(time.Now().UnixNano(), 10), "ce-type: steady")
	}
	harness.Eventually(t, "the healthy subscriber has all its events", func() error {
		if n := healthy.total.Load(); n != steady {
			return fmt.Errorf("%d of %d", n, steady)
		}
		return nil
	})
	latency := healthy.latencies()
	t.Logf("beside %d hung deliveries: median %s, p99 %s, longest %s", hangs.total.Load(), latency[steady/2], latency[steady*99/100], latency[steady-1])
	if longest := latency[steady-1]; longest > 5*time.Second {
		t.Errorf("an event for the healthy subscriber took %s", longest)
	}
	answer()
	harness.Eventually(t, "the others get theirs once they answer", func() error {
		if n := hangs.ids(); n < hung*own {
			return fmt.Errorf("%d of %d", n, hung*own)
		}
		return nil
	})
	if again := int(hangs.total.Load()) - hung*own; again > 0 {
		t.Errorf("%d of %d events came again without a fault", again, hung*own)
	}
}

// tally is a subscriber that counts requests by event id, and takes ids that are times in nanoseconds for when they were sent.
type tally struct {
	*httptest.Server
	total atomic.Int64
	mu    sync.Mutex
	got   map[string]int
	took  []time.Duration
}

// newTally returns a running tally that calls before each answer what is given, unless it is nil.
func newTally(t testing.TB, before func()) *tally {
	t.Helper()
	s := &tally{got: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		now := time.Now()
		_, _ = io.Copy(io.Discard, r.Body)
		id := r.Header.Get("ce-id")
		sent, _ := strconv.ParseInt(id, 10, 64)
		s.mu.Lock()
		s.got[id]++
		s.took = append(s.took, now.Sub(time.Unix(0, sent)))
		s.mu.Unlock()
		s.total.Add(1)
		if before != nil {
			before()
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// latencies are the times from sent to received, the shortest first.
func (s *tally) latencies() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.took))
}

// flood sends count events, numbered from 0, of the types given by their numbers, as fast as the broker takes them.
func flood(t testing.TB, broker string, count int, eventType func(int) string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < count; n = int(next.Add(1)) - 1 {
				if code := postTyped(t, client, broker, n, eventType(n)); code != http.StatusAccepted {
					t.Errorf("event %d: status %d", n, code)
					return
				}
			}
		})
	}
	wg.Wait()
}

// postTyped returns the status code, or 0 if there was no answer.
func postTyped(t testing.TB, client *http.Client, broker string, n int, eventType string) int {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, broker, bytes.NewReader([]byte("data")))
	if err != nil {
		return 0
	}
	for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": strconv.Itoa(n), "ce-source": "/flood", "ce-type": eventType} {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// ids is the number of different events received.
func (s *tally) ids() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

func (s *tally) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[id]
}
