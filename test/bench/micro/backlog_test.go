package micro

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/internal/objects"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

const (
	fewWaiting = 1_000
	// manyWaitingVariable is the environment variable for how many events wait in the end; default manyWaiting.
	manyWaitingVariable = "MILLRACE_BENCH_BACKLOG"
	manyWaiting         = 100_000
	besideRate          = 500 // events a second for the Trigger beside
	besideTime          = 8 * time.Second
	laneWidth           = 100
	serviceTime         = 50 * time.Millisecond
	drainTime           = 10 * time.Second
)

// BenchmarkBacklogMemory measures the memory of a filter process with few and with many events waiting for a subscriber
// that is down, and what that does to a Trigger beside it. Then the subscriber comes back, and the benchmark measures how
// fast the backlog drains: first with a subscriber that takes 50 ms for an event, where the width of the lane sets the
// ideal, then with one that answers at once.
func BenchmarkBacklogMemory(b *testing.B) {
	many := manyWaiting
	if text := os.Getenv(manyWaitingVariable); text != "" {
		var err error
		if many, err = strconv.Atoi(text); err != nil {
			b.Fatalf("%s: %v", manyWaitingVariable, err)
		}
	}
	s := &recovering{}
	server := httptest.NewServer(s)
	b.Cleanup(server.Close)
	r := startRig(b, benchTrigger("down", server.URL, "  filter: {attributes: {type: down}}\n  delivery: {retry: 1000}\n"))
	f := newFiller(b, r)
	for b.Loop() {
		f.fill(b, fewWaiting)
		rss, p99 := r.observe(b)
		start := time.Now()
		f.fill(b, many-fewWaiting)
		filled := time.Since(start)
		rssMany, p99Many := r.observe(b)
		b.Logf("%d waiting: %d MiB, p99 beside %.2f ms; %d waiting (filled in %s): %d MiB, p99 beside %.2f ms",
			fewWaiting, rss>>20, p99, many, filled.Round(time.Second), rssMany>>20, p99Many)
		b.ReportMetric(float64(rss>>20), "few-MiB")
		b.ReportMetric(float64(rssMany>>20), "many-MiB")
		b.ReportMetric(float64(rssMany)/float64(rss), "memory-many/few")
		b.ReportMetric(p99Many/p99, "p99-beside-many/few")
		slow, quick := s.recover(b)
		ideal := laneWidth / serviceTime.Seconds()
		b.ReportMetric(slow/ideal, "drain-slow/ideal")
		b.ReportMetric(quick, "drain-events/s")
		b.ReportMetric(float64(r.Filters[0].RSS(b)>>20), "draining-MiB")
	}
	b.ReportMetric(0, "ns/op")
}

// observe loads the Trigger beside and returns the most memory that the filter had meanwhile, in bytes, and the p99 of the
// Trigger's latency in milliseconds.
func (r *rig) observe(b *testing.B) (rss int64, p99 float64) {
	b.Helper()
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			rss = max(rss, r.Filters[0].RSS(b))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	rate, latency := r.openLoop(b, besideRate, besideTime)
	close(done)
	watching.Wait()
	if rate < 0.95*besideRate {
		b.Errorf("the Trigger beside got %.0f of %d events a second", rate, besideRate)
	}
	return rss, float64(latency.ValueAtQuantile(99)) / 1e6
}

// recovering is a subscriber that is down until told.
type recovering struct {
	up, quick atomic.Bool
	took      atomic.Int64
}

// ServeHTTP takes an event, or answers 500 while down.
func (s *recovering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if !s.up.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if !s.quick.Load() {
		time.Sleep(serviceTime)
	}
	s.took.Add(1)
}

// recover comes up, waits for the first event, and returns the events a second taken with and without service time.
func (s *recovering) recover(b *testing.B) (slow, quick float64) {
	b.Helper()
	s.up.Store(true)
	start := time.Now()
	harness.Eventually(b, "the backlog begins to drain", func() error {
		if s.took.Load() < 2*laneWidth {
			return io.ErrNoProgress
		}
		return nil
	})
	b.Logf("drains %s after the subscriber came back", time.Since(start).Round(100*time.Millisecond))
	slow = s.rate()
	s.quick.Store(true)
	return slow, s.rate()
}

// rate is the number of events a second taken for a while, or until there are no more.
func (s *recovering) rate() float64 {
	start, before := time.Now(), s.took.Load()
	last, lastAt := before, start
	for time.Since(start) < drainTime && time.Since(lastAt) < time.Second {
		time.Sleep(20 * time.Millisecond)
		if n := s.took.Load(); n > last {
			last, lastAt = n, time.Now()
		}
	}
	return float64(last-before) / lastAt.Sub(start).Seconds()
}

// filler writes events straight into the backlog of the Trigger that is down, as the filter does with what a closed gate
// keeps back.
type filler struct {
	publisher *stream.Publisher
	names     *stream.Names
	uid       string
	next      atomic.Int64
}

func newFiller(b *testing.B, r *rig) *filler {
	b.Helper()
	set, err := objects.Load([]string{r.Manifests})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := stream.Dial(stream.ConnOptions{URL: r.NATSURL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	f := &filler{publisher: stream.NewPublisher(conn, 0)}
	f.names = stream.NewNames("default", "b", string(set.Brokers[0].UID))
	for _, t := range set.Triggers {
		if t.Name == "down" {
			f.uid = string(t.UID)
		}
	}
	return f
}

// fill adds count events to the backlog.
func (f *filler) fill(b *testing.B, count int) {
	b.Helper()
	last := f.next.Load() + int64(count)
	var writers sync.WaitGroup
	for range 256 {
		writers.Go(func() {
			for n := f.next.Add(1); n <= last; n = f.next.Add(1) {
				m := stream.Message{Event: waitingEvent(n)}
				if _, err := f.publisher.PublishRetry(context.Background(), f.names, f.uid, m, stream.Progress{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	f.next.Store(last)
}

func waitingEvent(n int64) *event.Event {
	e := &event.Event{Data: payload[:256]}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "down-"+strconv.FormatInt(n, 10), event.String)
	e.Set(event.Source, "/rooms/42", event.String)
	e.Set(event.Type, "down", event.String)
	return e
}
