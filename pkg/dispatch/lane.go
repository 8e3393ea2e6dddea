package dispatch

import (
	"sync"
	"sync/atomic"
)

const (
	// maxQueued and maxQueuedBytes bound what waits in memory for a free place in a lane. More goes to the retry stream.
	maxQueued      = 256
	maxQueuedBytes = 8 << 20
)

// lane bounds the deliveries to one Trigger's subscriber. It outlives changes of the Trigger.
type lane struct {
	counts counters

	mu          sync.Mutex
	limit       int
	active      int
	queue       []job
	queuedBytes int
}

// offer starts the job, or queues it, or reports false if the lane is full. run is called in a goroutine of its own that
// goes on with queued jobs as long as there are any.
func (l *lane) offer(j job, run func(job)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active < l.limit {
		l.active++
		go l.work(j, run)
		return true
	}
	size := j.size()
	if len(l.queue) >= maxQueued || l.queuedBytes+size > maxQueuedBytes {
		return false
	}
	l.queue = append(l.queue, j)
	l.queuedBytes += size
	return true
}

func (l *lane) work(j job, run func(job)) {
	for ok := true; ok; j, ok = l.next() {
		run(j)
	}
}

// next takes the oldest queued job, or gives the place in the lane up.
func (l *lane) next() (job, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 || l.active > l.limit {
		l.active--
		return job{}, false
	}
	j := l.queue[0]
	l.queue[0] = job{}
	l.queue = l.queue[1:]
	l.queuedBytes -= j.size()
	return j, true
}

// setLimit changes how many deliveries may be under way. A lower limit takes effect as running ones end.
func (l *lane) setLimit(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = n
}

func (l *lane) load() (active, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active, len(l.queue)
}

// Counts are what a lane has done. Each matched event ends in exactly one of Delivered, DeadLettered and Parked.
type Counts struct {
	// Matched events, and those of them that found the lane full and were written to the retry stream at once.
	Matched, Overflowed uint64
	// Attempts made at the subscriber; Retried of them failed and were written to the retry stream.
	Attempts, Retried uint64
	// Delivered to the subscriber, DeadLettered to the sink, Parked in the store.
	Delivered, DeadLettered, Parked uint64
	// Replies stored; RepliesDropped for having passed too many hops, or ignored because they are no CloudEvents.
	Replies, RepliesDropped, RepliesIgnored uint64
}

type counters struct {
	matched, overflowed, attempts, retried  atomic.Uint64
	delivered, deadLettered, parked         atomic.Uint64
	replies, repliesDropped, repliesIgnored atomic.Uint64
}

func (c *counters) read() Counts {
	return Counts{
		Matched: c.matched.Load(), Overflowed: c.overflowed.Load(),
		Attempts: c.attempts.Load(), Retried: c.retried.Load(),
		Delivered: c.delivered.Load(), DeadLettered: c.deadLettered.Load(), Parked: c.parked.Load(),
		Replies: c.replies.Load(), RepliesDropped: c.repliesDropped.Load(), RepliesIgnored: c.repliesIgnored.Load(),
	}
}
