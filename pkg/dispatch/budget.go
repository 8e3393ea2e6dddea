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
	// sideShare is the part of it that deliveries waiting for their time may have in addition, and those of backlogs
	// likewise: each kind has a budget of its own, so that none keeps another from going on.
	sideShare = 4
)

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

// give returns the room of the event.
func (b *budget) give(e *event.Event) {
	b.taken.Add(-b.share(e))
	b.room.Release(b.share(e))
}

// used is the part of the budget that is taken, from 0 to 1.
func (b *budget) used() float64 { return float64(b.taken.Load()) / float64(b.limit) }

// share is the room for an event. One that is larger than the whole budget takes all of it.
func (b *budget) share(e *event.Event) int64 { return min(int64(sizeOf(e)), b.limit) }

func sizeOf(e *event.Event) int { return len(e.Data) + e.AttributeBytes() }

// budgets are those of a process. Each class of delay has one of its own: an event that waits for minutes must not keep
// one from being taken up that is due in a second.
type budgets struct {
	events, backlog *budget
	delayed         [stream.DelayClasses]*budget
}

func newBudgets(bytes int64) *budgets {
	b := &budgets{events: newBudget(bytes), backlog: newBudget(bytes / sideShare)}
	for class := range b.delayed {
		b.delayed[class] = newBudget(bytes / sideShare / stream.DelayClasses)
	}
	return b
}
