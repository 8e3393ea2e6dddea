package dispatch

import (
	"context"

	"golang.org/x/sync/semaphore"

	"millrace.dev/pkg/event"
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
}

func newBudget(bytes int64) *budget {
	return &budget{limit: bytes, room: semaphore.NewWeighted(bytes)}
}

// take waits for room for the event; false says that ctx ended first.
func (b *budget) take(ctx context.Context, e *event.Event) bool {
	return b.room.Acquire(ctx, b.share(e)) == nil
}

// give returns the room of the event.
func (b *budget) give(e *event.Event) { b.room.Release(b.share(e)) }

// share is the room for an event. One that is larger than the whole budget takes all of it.
func (b *budget) share(e *event.Event) int64 { return min(int64(sizeOf(e)), b.limit) }

func sizeOf(e *event.Event) int { return len(e.Data) + e.AttributeBytes() }

// budgets are those of a process.
type budgets struct{ events, delayed, backlog *budget }

func newBudgets(bytes int64) *budgets {
	return &budgets{events: newBudget(bytes), delayed: newBudget(bytes / sideShare), backlog: newBudget(bytes / sideShare)}
}
