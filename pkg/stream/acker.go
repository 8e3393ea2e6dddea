package stream

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// barrierEvery is how many acks go out for each one that the server confirms. An ack that was only sent can be lost by
	// a server that is killed; a confirmed one stands for all before it. Measured: confirming each ack halves the rate,
	// every 64th costs a few percent.
	barrierEvery = 64
	// barrierTimeout bounds the wait for one confirmation.
	barrierTimeout = 5 * time.Second
	// maxBarriers is how many confirmations may be outstanding; beyond that acking waits, so that unconfirmed acks are
	// bounded by barrierEvery × maxBarriers.
	maxBarriers = 16
)

// acker sends acks and confirms some of them.
type acker struct {
	base     context.Context //nolint:containedctx // see newAcker
	nc       *nats.Conn
	log      *slog.Logger
	barriers chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	count int
	last  jetstream.Msg // acked without confirmation since the last barrier
}

// newAcker returns an acker whose confirmations outlive ctx: what is settled is to be acked even while the work stops.
func newAcker(ctx context.Context, nc *nats.Conn, log *slog.Logger) *acker {
	return &acker{base: context.WithoutCancel(ctx), nc: nc, log: log, barriers: make(chan struct{}, maxBarriers)}
}

// ack tells the server that msg is settled. It blocks only while too many confirmations are outstanding. Acks are best
// effort: one that is lost lets the message come again.
func (a *acker) ack(msg jetstream.Msg) {
	a.mu.Lock()
	a.count++
	confirm := a.count%barrierEvery == 0
	if !confirm {
		a.last = msg
		_ = msg.Ack() // under the lock, so that a barrier comes after the acks it stands for
		a.mu.Unlock()
		return
	}
	a.last = nil
	a.mu.Unlock()
	a.barriers <- struct{}{}
	a.wg.Go(func() {
		defer func() { <-a.barriers }()
		ctx, cancel := context.WithTimeout(a.base, barrierTimeout)
		defer cancel()
		if err := msg.DoubleAck(ctx); err != nil {
			a.log.Debug("an ack was not confirmed", slog.Any("error", err))
		}
	})
}

// close waits until the server has confirmed the acks sent so far, or ctx ends.
func (a *acker) close(ctx context.Context) error {
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
