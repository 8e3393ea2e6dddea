package stream

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// barrierEvery is how many acks go out for each one that the server confirms. An ack that was only sent can be lost by
	// a server that is killed; a confirmed one stands for all before it. Measured: confirming each ack halves the rate,
	// every 64th costs a few percent.
	barrierEvery = 64
	// gatherFor and maxGathered bound how long and how many acks are gathered. A work queue that becomes empty begins a new
	// file, so that settling events one by one at a low rate costs the server several times as much as some at a time.
	gatherFor   = 5 * time.Millisecond
	maxGathered = 32
	// barrierTimeout bounds the wait for one confirmation.
	barrierTimeout = 5 * time.Second
	// maxBarriers is how many confirmations may be outstanding; beyond that acking waits, so that unconfirmed acks are
	// bounded by barrierEvery × maxBarriers.
	maxBarriers = 16
)

// acker sends acks, some at a time, and confirms some of them.
type acker struct {
	base     context.Context //nolint:containedctx // see newAcker
	nc       *nats.Conn
	log      *slog.Logger
	muted    *atomic.Bool
	barriers chan struct{}
	wg       sync.WaitGroup

	mu       sync.Mutex
	gathered []jetstream.Msg
	timer    *time.Timer   // sends what is gathered
	count    int           // of acks sent
	last     jetstream.Msg // acked without confirmation since the last barrier
}

// newAcker returns an acker that sends nothing any more once muted is true. Its confirmations outlive ctx: what is settled
// is to be acked even while the work stops.
func newAcker(ctx context.Context, nc *nats.Conn, log *slog.Logger, muted *atomic.Bool) *acker {
	a := &acker{base: context.WithoutCancel(ctx), nc: nc, log: log, muted: muted, barriers: make(chan struct{}, maxBarriers)}
	a.timer = time.AfterFunc(time.Hour, a.flush)
	a.timer.Stop()
	return a
}

// ack tells the server, within gatherFor, that msg is settled. It blocks only while too many confirmations are outstanding.
// Acks are best effort: one that is lost lets the message come again.
func (a *acker) ack(msg jetstream.Msg) {
	a.mu.Lock()
	a.gathered = append(a.gathered, msg)
	if len(a.gathered) == 1 {
		a.timer.Reset(gatherFor)
	}
	if len(a.gathered) < maxGathered {
		a.mu.Unlock()
		return
	}
	confirm := a.send()
	a.mu.Unlock()
	a.confirm(confirm)
}

// flush sends what is gathered.
func (a *acker) flush() {
	a.mu.Lock()
	confirm := a.send()
	a.mu.Unlock()
	a.confirm(confirm)
}

// send sends what is gathered, and returns the ack that is to be confirmed instead, if one is due. The caller holds mu, so
// that a confirmation comes after the acks it stands for.
func (a *acker) send() (confirm jetstream.Msg) {
	msgs := a.gathered
	defer func() { // the memory serves the next ones
		clear(msgs)
		a.gathered = msgs[:0]
	}()
	a.timer.Stop()
	if len(msgs) == 0 || a.muted.Load() {
		return nil
	}
	last := len(msgs) - 1
	for _, msg := range msgs[:last] {
		_ = msg.Ack()
	}
	if a.count += len(msgs); a.count >= barrierEvery {
		a.count, a.last = 0, nil
		a.wg.Add(1) // here, so that close waits for it whoever sends
		return msgs[last]
	}
	a.last = msgs[last]
	_ = msgs[last].Ack()
	return nil
}

// confirm sends an ack and waits, elsewhere, until the server confirms it.
//
// The confirmation outlives whatever the ack was part of.
func (a *acker) confirm(msg jetstream.Msg) {
	if msg == nil {
		return
	}
	a.barriers <- struct{}{}
	go func() {
		defer a.wg.Done()
		defer func() { <-a.barriers }()
		ctx, cancel := context.WithTimeout(a.base, barrierTimeout)
		defer cancel()
		if err := msg.DoubleAck(ctx); err != nil {
			a.log.Debug("an ack was not confirmed", slog.Any("error", err))
		}
	}()
}

// close waits until the server has confirmed the acks sent so far, or ctx ends.
func (a *acker) close(ctx context.Context) error {
	a.flush()
	a.mu.Lock()
	last := a.last
	a.mu.Unlock()
	done := make(chan struct{})
	go func() {
		a.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if last == nil {
		return nil
	}
	// The message is acked already; acking it once more asks the server for an answer behind all earlier acks.
	if _, err := a.nc.RequestWithContext(ctx, last.Reply(), []byte("+ACK")); err != nil {
		return fmt.Errorf("confirm the last acks: %w", err)
	}
	return nil
}
