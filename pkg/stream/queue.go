package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Queue takes messages from a stream only when asked, as many as there is room for.
type Queue struct {
	*receiver
	consumer jetstream.Consumer
}

// OpenQueue opens a consumer of a stream for fetching. Close releases it.
func (c *Conn) OpenQueue(ctx context.Context, o ConsumeOptions) (*Queue, error) {
	o = o.withDefaults(c)
	consumer, err := c.js.CreateOrUpdateConsumer(ctx, o.Stream, consumerConfig(o))
	if err != nil {
		return nil, fmt.Errorf("create consumer %s of %s: %w", o.Name, o.Stream, err)
	}
	return &Queue{receiver: newReceiver(ctx, c, o), consumer: consumer}, nil
}

// Fetch returns up to n messages that are there now. None and no error mean that there are none to be had.
func (q *Queue) Fetch(n int) ([]*Delivery, error) {
	batch, err := q.consumer.FetchNoWait(n)
	if err != nil {
		return nil, fmt.Errorf("fetch from %s: %w", q.opts.Stream, err)
	}
	var got []*Delivery
	for msg := range batch.Messages() {
		if d := q.accept(msg); d != nil {
			got = append(got, d)
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
		return got, fmt.Errorf("fetch from %s: %w", q.opts.Stream, err)
	}
	return got, nil
}

// Close waits until the messages in flight are settled and the server has taken the acks, or ctx ends.
func (q *Queue) Close(ctx context.Context) error { return q.finish(ctx) }
