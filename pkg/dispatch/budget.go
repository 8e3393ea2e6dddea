package dispatch

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

const (
	// DefaultMaxInFlightBytes bounds the events under way in one process.
	DefaultMaxInFlightBytes = 256 << 20
	// DefaultMaxDeliveries bounds the deliveries under way in one process, each of which has a connection. Beyond it
	// Triggers have one each.
	DefaultMaxDeliveries = 4096
	// sideShare is the part of it that deliveries waiting for their time may have in addition, and those of backlogs
	// likewise: each kind has a budget of its own, so that none keeps another from going on.
	sideShare = 4
)

// What Triggers share, memory, unsettled messages and deliveries at a time, is divided by one rule: a lane may hold a part of what is free, the
// more the others hold the less. Lanes that are stuck one after the other so leave the next one its part of the rest, and no
// lane needs to know of the others.
const (
	// messagePart, bytePart and placePart are one over the part of the free messages, bytes and places that a lane may hold.
	messagePart = 2
	bytePart    = 4
	placePart   = 2
	// firstsShare is one over the part of the memory for events of backlogs that is kept for lanes that hold nothing.
	firstsShare = 4
)

// free is what is left of what lanes share.
type free struct {
	messages, bytes int64
}

// permits tells whether a lane that holds so much may have one more message of the given size.
func (f free) permits(messages, bytes, size int64) bool {
	return messages < f.messages/messagePart && bytes+size <= f.bytes/bytePart
}

// places bounds the deliveries under way, and with them connections.
type places struct {
	limit int64
	taken atomic.Int64
}

// more is how many more a lane may start that has so many under way. One is always permitted: a subscriber that answers must
// not wait for those that do not.
func (p *places) more(active int) int {
	n := (p.limit - p.taken.Load()) / placePart
	return max(int(n)-active, 1-active, 0)
}

func (p *places) take(n int) { p.taken.Add(int64(n)) }

func (p *places) give(n int) { p.taken.Add(-int64(n)) }

// budget bounds the memory of events under way.
type budget struct {
	limit int64
	room  *semaphore.Weighted
	taken atomic.Int64
}

func newBudget(bytes int64) *budget {
	return &budget{limit: bytes, room: semaphore.NewWeighted(bytes)}
}

// take waits for room for the event; false says that ctx ended first.
func (b *budget) take(ctx context.Context, e *event.Event) bool {
	if b.room.Acquire(ctx, b.share(e)) != nil {
		return false
	}
	b.taken.Add(b.share(e))
	return true
}

// takeFor takes room for an event of a lane that holds some already, if the lane may have it and there is room now.
func (b *budget) takeFor(held *atomic.Int64, e *event.Event) bool {
	size := b.share(e)
	if has := held.Load(); has > 0 && has+size > b.shared()/bytePart || !b.room.TryAcquire(size) {
		return false
	}
	b.taken.Add(size)
	held.Add(size)
	return true
}

// give returns the room of the event.
func (b *budget) give(e *event.Event) {
	b.taken.Add(-b.share(e))
	b.room.Release(b.share(e))
}

// left is how many bytes are free.
func (b *budget) left() int64 { return b.limit - b.taken.Load() }

// shared is how many bytes are free for lanes that hold some already.
func (b *budget) shared() int64 { return b.left() - b.limit/firstsShare }

// affords is how many more events of about the given size a lane may take that holds so much already.
func (b *budget) affords(held, size int64) int {
	size = min(max(size, 1), b.limit)
	n := max(0, b.shared()-bytePart*held) / (bytePart + 1) / size // takes into account that these are not free any more
	if n == 0 && held == 0 && size <= b.left() {
		return 1
	}
	return int(n)
}

// share is the room for an event. One that is larger than the whole budget takes all of it.
func (b *budget) share(e *event.Event) int64 { return min(int64(sizeOf(e)), b.limit) }

func sizeOf(e *event.Event) int { return len(e.Data) + e.AttributeBytes() }

// budgets are those of a process. Each class of delay has one of its own: an event that waits for minutes must not keep
// one from being taken up that is due in a second.
type budgets struct {
	places          *places
	events, backlog *budget
	delayed         [stream.DelayClasses]*budget
}

func newBudgets(bytes, deliveries int64) *budgets {
	b := &budgets{places: &places{limit: deliveries}, events: newBudget(bytes), backlog: newBudget(bytes / sideShare)}
	for class := range b.delayed {
		b.delayed[class] = newBudget(bytes / sideShare / stream.DelayClasses)
	}
	return b
}
