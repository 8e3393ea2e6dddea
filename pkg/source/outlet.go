package source

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/delivery"
)

const (
	// maxDownPause is the longest pause between two looks at a sink that is down, maxBlockedPause that between attempts at
	// an event that holds up others: whoever mends the sink does not want to wait for long.
	maxDownPause, maxBlockedPause = 5 * time.Second, 30 * time.Second
	// minPause is the shortest pause where attempts do not come to an end.
	minPause = 10 * time.Millisecond
	// warnEvery is how often a failing sink is logged.
	warnEvery = time.Minute
)

// OutletOptions say where the messages of a source go.
type OutletOptions struct {
	// Sink takes the events.
	Sink Sink
	// DeadLetter, if not nil, takes those that Sink does not take after all attempts. It is tried until it does.
	DeadLetter Sink
	// Policy says how often and how fast is tried.
	Policy delivery.Policy
	// Drop has an event that neither sink takes counted and passed over. Otherwise it is tried on and on, and what comes
	// after it waits.
	Drop bool
	// Logger; default slog.Default().
	Logger *slog.Logger
}

// Outlet settles the messages of a source. It is safe for concurrent use: calls are independent of each other.
type Outlet struct {
	opts                        OutletOptions
	sent, dead, dropped, failed atomic.Uint64
	waiting                     atomic.Int64

	mu       sync.Mutex
	fault    string
	faultAt  time.Time
	warnedAt time.Time
}

// OutletStats is what became of the messages of a source.
type OutletStats struct {
	// Sent were taken by the sink, DeadLettered by the dead letter sink, and Dropped by neither.
	Sent, DeadLettered, Dropped uint64
	// Failed counts the attempts that failed.
	Failed uint64
	// Waiting is how many calls wait to try again.
	Waiting int64
	// LastError is why the last attempt failed that did, at LastErrorAt; empty if none did.
	LastError   string
	LastErrorAt time.Time
}

// NewOutlet returns an Outlet.
func NewOutlet(o OutletOptions) *Outlet {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Outlet{opts: o}
}

// Batch is how many messages are best settled at once.
func (o *Outlet) Batch() int { return o.opts.Sink.Batch() }

// Stats returns what became of the messages so far.
func (o *Outlet) Stats() OutletStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return OutletStats{
		Sent: o.sent.Load(), DeadLettered: o.dead.Load(), Dropped: o.dropped.Load(), Failed: o.failed.Load(),
		Waiting: o.waiting.Load(), LastError: o.fault, LastErrorAt: o.faultAt,
	}
}

// Settle sends the messages in order, for as long as it takes, and calls settled for each number of messages, from the
// first, that are dealt with. It returns when all are, or when ctx ends: the others are then not.
func (o *Outlet) Settle(ctx context.Context, msgs []Message, settled func(n int)) {
	attempt := 0 // at the first message that is left
	for len(msgs) > 0 && ctx.Err() == nil {
		taken, err := o.opts.Sink.Send(ctx, msgs)
		if taken > 0 {
			o.sent.Add(uint64(taken))
			settled(taken)
			msgs, attempt = msgs[taken:], 0
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		attempt++
		if o.recover(ctx, msgs[0], failureOf(err), attempt) {
			settled(1)
			msgs, attempt = msgs[1:], 0
		}
	}
}

// recover deals with a failed attempt: it waits until it is time for another, or gives the message up. It reports whether
// the message is settled.
func (o *Outlet) recover(ctx context.Context, m Message, f *Failure, attempt int) (settled bool) {
	o.note(ctx, f)
	next := decide(o.opts.Policy, attempt, f, rand.Float64())
	if !next.giveUp {
		o.pause(ctx, next.wait)
		return false
	}
	if o.opts.DeadLetter != nil && o.bury(ctx, m, f, attempt) {
		o.dead.Add(1)
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	if o.opts.Drop {
		o.dropped.Add(1)
		return true
	}
	o.pause(ctx, min(max(next.wait, time.Second), maxBlockedPause))
	return false
}

// bury sends a message to the dead letter sink until that takes it, or rejects it.
func (o *Outlet) bury(ctx context.Context, m Message, f *Failure, attempts int) bool {
	dead := []Message{{
		Event: delivery.DeadLetter(m.Event, delivery.Failure{URL: f.URL, Result: f.Result, Attempts: attempts}),
		Key:   "dead/" + m.Key,
	}}
	for attempt := 1; ctx.Err() == nil; attempt++ {
		_, err := o.opts.DeadLetter.Send(ctx, dead)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		failure := failureOf(err)
		o.note(ctx, failure)
		policy := o.opts.Policy
		policy.Retries = attempt // there is always another
		next := decide(policy, attempt, failure, rand.Float64())
		if next.giveUp {
			return false
		}
		o.pause(ctx, min(max(next.wait, minPause), maxBlockedPause))
	}
	return false
}

// step is what follows from a failed attempt.
type step struct {
	giveUp bool
	// wait is how long to wait before the next attempt; when the message is given up, before the next if there is one after
	// all.
	wait time.Duration
}

// decide says what to do after attempt number attempt, counted from 1, failed.
func decide(p delivery.Policy, attempt int, f *Failure, jitter float64) step {
	backoff := p.Delay(attempt, jitter)
	if f.Down {
		return step{wait: min(max(backoff, minPause), maxDownPause)}
	}
	d := delivery.Decide(p, attempt, f.Result, jitter)
	if d.Action == delivery.RetryIn {
		return step{wait: d.Delay}
	}
	return step{giveUp: true, wait: backoff}
}

func failureOf(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Down: true, Result: delivery.Result{Err: err}}
}

// note counts a failed attempt and has it logged from time to time.
func (o *Outlet) note(ctx context.Context, f *Failure) {
	o.failed.Add(1)
	now := time.Now()
	o.mu.Lock()
	o.fault, o.faultAt = f.Error(), now
	warn := now.Sub(o.warnedAt) >= warnEvery
	if warn {
		o.warnedAt = now
	}
	o.mu.Unlock()
	if warn {
		o.opts.Logger.WarnContext(ctx, "the sink of a source does not take an event", slog.Any("error", f))
	}
}

func (o *Outlet) pause(ctx context.Context, d time.Duration) {
	o.waiting.Add(1)
	defer o.waiting.Add(-1)
	Sleep(ctx, d)
}

// Sleep returns when d is over, or ctx has ended.
func Sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
