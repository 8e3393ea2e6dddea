// Package ledger accounts for every event of a benchmark: when it was due, and which subscriber got it how often.
package ledger

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	chunkSize = 8192
	maxChunks = 8192 // 67 million events
)

// Ledger is safe for concurrent use.
type Ledger struct {
	subscribers int
	next        atomic.Uint64
	deliveries  atomic.Int64
	complete    atomic.Int64
	strays      atomic.Int64
	chunks      [maxChunks]atomic.Pointer[chunk]

	mu      sync.Mutex
	latency *hdrhistogram.Histogram
	window  chan struct{}
}

// chunk holds what is known of chunkSize events in a row.
type chunk struct {
	due  [chunkSize]atomic.Int64  // Unix time in nanoseconds
	done [chunkSize]atomic.Uint32 // subscribers that have the event
	got  []atomic.Uint32          // how often, for each event and subscriber
}

// New returns a Ledger of events that each of so many subscribers is owed once. With none, events are only counted.
func New(subscribers int) *Ledger { return &Ledger{subscribers: subscribers} }

// Subscribers is how many there are.
func (l *Ledger) Subscribers() int { return l.subscribers }

// Begin starts a part of the benchmark: latencies are recorded afresh, and at most window events are under way, any number
// if it is 0. No event may be under way.
func (l *Ledger) Begin(window int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latency, l.window = NewHistogram(), nil
	if window > 0 && l.subscribers > 0 {
		l.window = make(chan struct{}, window)
	}
}

// Latency is the time from when an event was due to be sent until a subscriber got it, in microseconds, since Begin.
func (l *Ledger) Latency() *hdrhistogram.Histogram {
	l.mu.Lock()
	defer l.mu.Unlock()
	return hdrhistogram.Import(l.latency.Export())
}

// Acquire waits until the window has room; false says that ctx ended first.
func (l *Ledger) Acquire(ctx context.Context) bool {
	if l.window == nil {
		return ctx.Err() == nil
	}
	select {
	case l.window <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Send returns the number of a new event, which is owed from now on.
func (l *Ledger) Send(due time.Time) uint64 {
	seq := l.next.Add(1) - 1
	l.chunk(seq).due[seq%chunkSize].Store(due.UnixNano())
	return seq
}

// Sent is how many events were sent; it is the number of the next one, too.
func (l *Ledger) Sent() uint64 { return l.next.Load() }

// Deliveries is how many times a subscriber got an event for the first time.
func (l *Ledger) Deliveries() int64 { return l.deliveries.Load() }

// Complete is how many events all subscribers have got.
func (l *Ledger) Complete() int64 { return l.complete.Load() }

// Receive records that the subscriber of the given number got the event.
func (l *Ledger) Receive(subscriber int, seq uint64) {
	if subscriber < 0 || subscriber >= l.subscribers || seq >= l.next.Load() {
		l.strays.Add(1)
		return
	}
	c, i := l.chunk(seq), int(seq%chunkSize)
	if c.got[i*l.subscribers+subscriber].Add(1) > 1 {
		return
	}
	took := time.Now().UnixNano() - c.due[i].Load()
	l.deliveries.Add(1)
	l.mu.Lock()
	Record(l.latency, time.Duration(took))
	window := l.window
	l.mu.Unlock()
	if int(c.done[i].Add(1)) == l.subscribers {
		l.complete.Add(1)
		if window != nil {
			<-window
		}
	}
}

// Await waits until every subscriber has every event sent so far, or returns what is missing when patience is over.
func (l *Ledger) Await(patience time.Duration) error {
	for deadline := time.Now().Add(patience); l.subscribers > 0; time.Sleep(2 * time.Millisecond) {
		missing := int64(l.Sent()) - l.Complete()
		if missing == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events not delivered after %s", missing, l.Sent(), patience)
		}
	}
	return nil
}

// Account is what became of the events.
type Account struct {
	// Owed is how many deliveries there should have been; Lost of them were not made, Duplicate were made again.
	Owed, Lost, Duplicate int64
	// Strays reached a subscriber whose Trigger does not match them, or were never sent.
	Strays int64
}

// Err is nil if every event reached every subscriber exactly once.
func (a Account) Err() error {
	if a.Lost+a.Duplicate+a.Strays == 0 {
		return nil
	}
	return fmt.Errorf("of %d deliveries %d lost, %d made again, %d astray", a.Owed, a.Lost, a.Duplicate, a.Strays)
}

// Account goes through the whole ledger.
func (l *Ledger) Account() Account {
	sent := l.Sent()
	a := Account{Owed: int64(sent) * int64(l.subscribers), Strays: l.strays.Load()}
	for seq := range sent {
		c, i := l.chunk(seq), int(seq%chunkSize)
		for s := range l.subscribers {
			switch n := c.got[i*l.subscribers+s].Load(); {
			case n == 0:
				a.Lost++
			case n > 1:
				a.Duplicate += int64(n - 1)
			}
		}
	}
	return a
}

func (l *Ledger) chunk(seq uint64) *chunk {
	p := &l.chunks[seq/chunkSize]
	if c := p.Load(); c != nil {
		return c
	}
	p.CompareAndSwap(nil, &chunk{got: make([]atomic.Uint32, chunkSize*l.subscribers)})
	return p.Load()
}

// NewHistogram returns one for durations up to ten minutes, in microseconds.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

// Record adds a duration to a histogram of microseconds.
func Record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), h.HighestTrackableValue()))
}
