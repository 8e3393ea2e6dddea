package kafka

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/source"
)

const (
	// maxBatchBytes bounds what is sent at once.
	maxBatchBytes = 4 << 20
	// recordOverhead stands for a record's bookkeeping when bytes are counted.
	recordOverhead = 512
	// maxSlots bounds the records received after one that is not settled.
	maxSlots = 50_000
	// singleWorkers and batchWorkers are how many deliveries a partition has under way at a time, where order permits, with
	// a sink that takes one event at a time and one that takes many.
	singleWorkers, batchWorkers = 16, 4
)

// work is what a partition's workers do with records.
type work struct {
	outlet *source.Outlet
	mapper *mapper
	order  Order
}

// workers returns how many queues a partition has, and how many workers each. A queue with one worker keeps its order.
func (w *work) workers() (queues, each int) {
	width := singleWorkers
	if w.outlet.Batch() > 1 {
		width = batchWorkers
	}
	switch w.order {
	case Unordered:
		return 1, width
	case ByKey:
		return width, 1
	case Ordered:
	}
	return 1, 1
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
	work  *work
	flow  flow

	ctx    context.Context //nolint:containedctx // it is that of the workers, which close cancels
	cancel context.CancelFunc
	done   sync.WaitGroup
	seed   maphash.Seed

	mu        sync.Mutex
	ready     sync.Cond // something was queued, or the partition is closed
	tracker   tracker
	queues    [][]item
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
	queues, each := w.workers()
	p := &partition{
		place: at, work: w, flow: f, seed: maphash.MakeSeed(),
		tracker: newTracker(), queues: make([][]item, queues), committed: -1, end: -1,
	}
	p.ready.L = &p.mu
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for q := range queues {
		for range each {
			p.done.Go(func() { p.run(q) })
		}
	}
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
	for _, r := range records {
		p.tracker.start(r.Offset)
		s := p.tracker.add(r.Offset, r.LeaderEpoch, now)
		if r.Attrs.IsControl() {
			p.tracker.settle(s)
			continue
		}
		i := item{r, s}
		p.held += i.bytes()
		q := p.queue(r)
		p.queues[q] = append(p.queues[q], i)
	}
	p.ready.Broadcast()
	if !p.paused && (p.held >= p.limit || len(p.tracker.slots) >= maxSlots) {
		p.paused = true
		p.flow.pause()
	}
}

// queue chooses the queue of a record. Records without a key have no order to keep.
func (p *partition) queue(r *kgo.Record) int {
	switch n := len(p.queues); {
	case n == 1:
		return 0
	case len(r.Key) == 0:
		return int(r.Offset % int64(n))
	default:
		return int(maphash.Bytes(p.seed, r.Key) % uint64(n))
	}
}

// run works on a queue until the partition is closed.
func (p *partition) run(queue int) {
	for {
		items := p.take(queue)
		if len(items) == 0 {
			return
		}
		msgs := make([]source.Message, len(items))
		for i := range items {
			msgs[i] = source.Message{Event: p.work.mapper.event(items[i].record), Key: identity(items[i].record)}
		}
		p.work.outlet.Settle(p.ctx, msgs, func(n int) {
			p.settle(items[:n])
			items = items[n:]
		})
	}
}

// take waits for records and returns as many as are best sent at once; none if the partition is closed.
func (p *partition) take(queue int) []item {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queues[queue]) == 0 && !p.closed {
		p.ready.Wait()
	}
	waiting := p.queues[queue]
	n, bytes := 0, int64(0)
	for n < len(waiting) && n < p.work.outlet.Batch() && (n == 0 || bytes+waiting[n].bytes() <= maxBatchBytes) {
		bytes += waiting[n].bytes()
		n++
	}
	taken := make([]item, n)
	copy(taken, waiting)
	clear(waiting[:n]) // for the collector
	p.queues[queue] = waiting[n:]
	return taken
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
	p.mu.Lock()
	p.closed = true
	for q := range p.queues {
		p.queues[q] = nil
	}
	p.ready.Broadcast()
	p.mu.Unlock()
	stop := context.AfterFunc(wait, p.cancel)
	p.done.Wait()
	stop()
	p.cancel()
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
