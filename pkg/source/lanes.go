package source

import (
	"context"
	"hash/maphash"
	"sync"
)

const (
	// maxBatchBytes bounds what is sent at once.
	maxBatchBytes = 4 << 20
	// singleWorkers and batchWorkers are how many deliveries are under way at a time, where order permits, with a sink that
	// takes one event at a time and one that takes many.
	singleWorkers, batchWorkers = 16, 4
)

// Order says which items must not overtake each other.
type Order uint8

// The orders: Ordered is that of all items, ByKey that of those with the same key.
const (
	Ordered Order = iota
	Unordered
	ByKey
)

// LanesOptions say what is delivered by Lanes, and how.
type LanesOptions[T any] struct {
	Outlet *Outlet
	Order  Order
	// Message makes a message of an item, and Size says how many bytes it has.
	Message func(T) Message
	Size    func(T) int64
	// Key is what items have in common whose order is kept ByKey. Those without have no order to keep.
	Key func(T) []byte
	// Settled is told which items are dealt with. It is called by several goroutines.
	Settled func([]T)
}

// Lanes have an Outlet settle items, several at a time where their order permits. How many wait is for the caller to bound.
type Lanes[T any] struct {
	opts LanesOptions[T]

	ctx    context.Context //nolint:containedctx // it is that of the workers, which Close cancels
	cancel context.CancelFunc
	done   sync.WaitGroup
	seed   maphash.Seed

	mu     sync.Mutex
	ready  sync.Cond // something was queued, or the lanes are closed
	queues [][]T
	next   int
	closed bool
}

// NewLanes returns Lanes that work until they are closed.
func NewLanes[T any](o LanesOptions[T]) *Lanes[T] {
	width := singleWorkers
	if o.Outlet.Batch() > 1 {
		width = batchWorkers
	}
	// A queue with one worker keeps its order.
	queues, each := 1, 1
	switch o.Order {
	case Unordered:
		each = width
	case ByKey:
		queues = width
	case Ordered:
	}
	l := &Lanes[T]{opts: o, seed: maphash.MakeSeed(), queues: make([][]T, queues)}
	l.ready.L = &l.mu
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for q := range queues {
		for range each {
			l.done.Go(func() { l.run(q) })
		}
	}
	return l
}

// Add queues items. Once the lanes are closed it does nothing.
func (l *Lanes[T]) Add(items ...T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for _, item := range items {
		q := l.queue(item)
		l.queues[q] = append(l.queues[q], item)
	}
	l.ready.Broadcast()
}

// queue chooses the queue of an item.
func (l *Lanes[T]) queue(item T) int {
	n := len(l.queues)
	if n == 1 {
		return 0
	}
	if key := l.opts.Key(item); len(key) > 0 {
		return int(maphash.Bytes(l.seed, key) % uint64(n)) //nolint:gosec // it is less than n
	}
	l.next = (l.next + 1) % n
	return l.next
}

// run works on a queue until the lanes are closed.
func (l *Lanes[T]) run(queue int) {
	for {
		items := l.take(queue)
		if len(items) == 0 {
			return
		}
		msgs := make([]Message, len(items))
		for i := range items {
			msgs[i] = l.opts.Message(items[i])
		}
		l.opts.Outlet.Settle(l.ctx, msgs, func(n int) {
			l.opts.Settled(items[:n])
			items = items[n:]
		})
	}
}

// take waits for items and returns as many as are best sent at once; none if the lanes are closed.
func (l *Lanes[T]) take(queue int) []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queues[queue]) == 0 && !l.closed {
		l.ready.Wait()
	}
	waiting := l.queues[queue]
	n, bytes := 0, int64(0)
	for n < len(waiting) && n < l.opts.Outlet.Batch() && (n == 0 || bytes+l.opts.Size(waiting[n]) <= maxBatchBytes) {
		bytes += l.opts.Size(waiting[n])
		n++
	}
	taken := make([]T, n)
	copy(taken, waiting)
	clear(waiting[:n]) // for the collector
	l.queues[queue] = waiting[n:]
	return taken
}

// Close takes no more items, forgets those that nobody works on, and waits for the others: for as long as wait is open, then
// it ends the attempts under way.
func (l *Lanes[T]) Close(wait context.Context) {
	l.mu.Lock()
	l.closed = true
	for q := range l.queues {
		l.queues[q] = nil
	}
	l.ready.Broadcast()
	l.mu.Unlock()
	stop := context.AfterFunc(wait, l.cancel)
	l.done.Wait()
	stop()
	l.cancel()
}
