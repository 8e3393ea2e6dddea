package kafka

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/source"
)

const (
	// recordOverhead stands for a record's bookkeeping when bytes are counted.
	recordOverhead = 512
	// maxSlots bounds the records received after one that is not settled.
	maxSlots = 50_000
)

// work is what is done with the records of a partition.
type work struct {
	outlet *source.Outlet
	mapper *mapper
	order  source.Order
}

// item is a record that waits for a worker.
type item struct {
	record *kgo.Record
	slot   *slot
}

func (i item) bytes() int64 { return recordBytes(i.record) }

func recordBytes(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value) + recordOverhead
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// place names a partition.
type place struct {
	topic string
	id    int32
}

// flow turns the fetching of a partition off and on.
type flow struct {
	client *kgo.Client
	what   map[string][]int32
}

func (f flow) pause()  { f.client.PauseFetchPartitions(f.what) }
func (f flow) resume() { f.client.ResumeFetchPartitions(f.what) }

// partition delivers the records of one partition that this process was assigned.
type partition struct {
	place place
	flow  flow
	lanes *source.Lanes[item]

	mu        sync.Mutex
	tracker   tracker
	held      int64 // bytes of records not settled
	paused    bool
	refused   bool  // the user may not fetch it
	trying    bool  // it is fetched again after it was refused
	limit     int64 // bytes that may be held
	closed    bool
	end       int64 // the offset after the last record in Kafka, as far as known
	committed int64 // the position last committed; -1 if none was
}

func newPartition(at place, w *work, f flow) *partition {
	p := &partition{place: at, flow: f, tracker: newTracker(), committed: -1, end: -1}
	p.lanes = source.NewLanes(source.LanesOptions[item]{
		Outlet: w.outlet, Order: w.order, Size: item.bytes, Settled: p.settle,
		Key: func(i item) []byte { return i.record.Key },
		Message: func(i item) source.Message {
			return source.Message{Event: w.mapper.event(i.record), Key: identity(i.record)}
		},
	})
	return p
}

// add queues records. The partition is not fetched any more while it holds limit bytes or more. Control records are
// settled at once: they are there so that offsets pass them by.
func (p *partition) add(records []*kgo.Record, limit int64) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.limit = limit
	items := make([]item, 0, len(records))
	for _, r := range records {
		p.tracker.start(r.Offset)
		s := p.tracker.add(r.Offset, r.LeaderEpoch, now)
		if r.Attrs.IsControl() {
			p.tracker.settle(s)
			continue
		}
		i := item{r, s}
		p.held += i.bytes()
		items = append(items, i)
	}
	p.lanes.Add(items...)
	if !p.paused && (p.held >= p.limit || len(p.tracker.slots) >= maxSlots) {
		p.paused = true
		p.flow.pause()
	}
}

// settle takes note that records are settled, and has the partition fetched again when enough are.
func (p *partition) settle(items []item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range items {
		p.tracker.settle(i.slot)
		p.held -= i.bytes()
	}
	if p.paused && !p.closed && p.held < p.limit/2 && len(p.tracker.slots) < maxSlots/2 {
		p.paused = false
		if !p.refused {
			p.flow.resume()
		}
	}
}

// refuse takes note that the user may not fetch the partition. It is not fetched until tryAgain, because Kafka refuses at once, as often
// as it is asked.
func (p *partition) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused, p.trying = true, false
	p.flow.pause()
}

// tryAgain has a partition that was refused fetched again. It reports whether one that was fetched again since the last call was not
// refused any more.
func (p *partition) tryAgain() (free bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.refused:
		p.refused, p.trying = false, true
		if !p.paused && !p.closed {
			p.flow.resume()
		}
	case p.trying:
		p.trying = false
		return true
	}
	return false
}

// close takes no more records, forgets those that nobody works on, and waits for the others: for as long as wait is open,
// then it ends the attempts under way.
func (p *partition) close(wait context.Context) {
	p.locked(func() { p.closed = true })
	p.lanes.Close(wait)
}

// uncommitted returns the offset to commit, if it is another than the last.
func (p *partition) uncommitted() (kgo.EpochOffset, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.tracker
	return kgo.EpochOffset{Epoch: t.epoch, Offset: t.position}, t.position >= 0 && t.position != p.committed
}

// partitionState is how a partition is.
type partitionState struct {
	lag    int64
	oldest time.Time
	held   int64
}

func (p *partition) state() partitionState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := partitionState{oldest: p.tracker.oldest(), held: p.held}
	if p.end > p.tracker.position && p.tracker.position >= 0 {
		s.lag = p.end - p.tracker.position
	}
	return s
}

// locked changes the partition under its lock.
func (p *partition) locked(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}
