package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Queue takes messages from a stream only when asked, as many as there is room for. It is used by one goroutine at a time.
type Queue struct {
	conn     *Conn
	opts     ConsumeOptions
	receiver *receiver
	consumer jetstream.Consumer
	created  time.Time // when the stream was created

	base   context.Context //nolint:containedctx // bounds the receivers of streams that are gone
	cancel context.CancelFunc
	old    sync.WaitGroup // those receivers
}

// OpenQueue opens a consumer of a stream for fetching. Close releases it.
func (c *Conn) OpenQueue(ctx context.Context, o ConsumeOptions) (*Queue, error) {
	q := &Queue{conn: c, opts: o.withDefaults(c)}
	q.base, q.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := q.Reopen(ctx); err != nil {
		q.cancel()
		return nil, err
	}
	return q, nil
}

// Reopen makes sure that the consumer is there, which the server removes when nobody has used it for a while. What is in
// flight stays so.
func (q *Queue) Reopen(ctx context.Context) error {
	consumer, created, err := q.conn.ensureConsumer(ctx, q.opts)
	if err != nil {
		return err
	}
	q.consumer = consumer
	if q.receiver == nil || !q.created.Equal(created) {
		q.renew(ctx, created)
	}
	return nil
}

// renew begins anew with a stream made at the given time. Messages still in flight from one that is gone mean other ones
// now, so nothing is said about them any more.
func (q *Queue) renew(ctx context.Context, created time.Time) {
	if old := q.receiver; old != nil {
		old.muted.Store(true)
		q.old.Go(func() { _ = old.finish(q.base) })
	}
	q.receiver, q.created = newReceiver(ctx, q.conn, q.opts, newMemory()), created
}

// Fetch returns up to n messages that are there now. None and no error mean that there are none to be had.
func (q *Queue) Fetch(n int) ([]*Delivery, error) {
	batch, err := q.consumer.FetchNoWait(n)
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", q.opts.Stream, err)
	}
	var got []*Delivery
	for msg := range batch.Messages() {
		if d := q.receiver.accept(msg); d != nil {
			got = append(got, d)
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
		return got, fmt.Errorf("fetch from %s: %w", q.opts.Stream, err)
	}
	return got, nil
}

// InFlight is the number of messages fetched and not settled yet.
func (q *Queue) InFlight() int { return q.receiver.InFlight() }

// Close waits until the messages in flight are settled and the server has taken the acks, or ctx ends.
func (q *Queue) Close(ctx context.Context) error {
	err := q.receiver.finish(ctx)
	q.cancel()
	q.old.Wait()
	return err
}
