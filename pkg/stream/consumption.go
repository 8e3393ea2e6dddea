package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullHeartbeat is how often the server gives a sign of life while there is nothing to deliver. After two that are
	// missing the client asks again, and so does [Consumption].
	pullHeartbeat = 5 * time.Second
	// reopenPause is the pause before a consumer that is gone is made anew again.
	reopenPause = 500 * time.Millisecond
	// reopenTimeout bounds one attempt at that.
	reopenTimeout = 5 * time.Second
)

// Consumption is a running subscription to a stream. It goes on by itself once NATS is back, and makes its consumer anew
// if somebody deleted it, or the stream with it, as soon as the stream is there.
type Consumption struct {
	conn   *Conn
	opts   ConsumeOptions
	handle func(*Delivery)

	memory   *memory
	receiver atomic.Pointer[receiver]
	doubt    chan struct{} // asks whether the consumer is still there
	cancel   context.CancelFunc
	keeping  sync.WaitGroup

	// What follows belongs to the goroutine that keeps the consumption going, and after its end to Stop.
	base     context.Context //nolint:containedctx // outlives the call that began the consumption
	cc       jetstream.ConsumeContext
	consumer jetstream.Consumer
	old      sync.WaitGroup // receivers of consumers that are gone
}

// Consume calls handle for each message of the stream, one after the other, until [Consumption.Stop]. The handler must
// not block for long: while it does, messages already fetched grow old. Messages are shared with all other processes
// that consume the same stream under the same name.
func (c *Conn) Consume(ctx context.Context, o ConsumeOptions, handle func(*Delivery)) (*Consumption, error) {
	s := &Consumption{conn: c, opts: o.withDefaults(c), handle: handle, memory: newMemory(), doubt: make(chan struct{}, 1)}
	s.base, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := s.open(ctx); err != nil {
		s.cancel()
		if r := s.receiver.Load(); r != nil {
			close(r.stop)
		}
		return nil, err
	}
	s.keeping.Go(s.keep)
	s.keeping.Go(s.reclaim)
	return s, nil
}

// open makes sure that the consumer is there and subscribes to it.
func (s *Consumption) open(ctx context.Context) error {
	consumer, _, err := s.conn.ensureConsumer(ctx, s.opts)
	if err != nil {
		return err
	}
	s.consumer = consumer
	r := s.renew(ctx)
	cc, err := s.consumer.Consume(
		func(msg jetstream.Msg) {
			if d := r.accept(msg); d != nil {
				s.handle(d)
			}
		},
		jetstream.PullMaxMessagesWithBytesLimit(min(s.opts.MaxAckPending, maxPrefetch), s.prefetchBytes()),
		jetstream.PullExpiry(30*time.Second),
		jetstream.PullHeartbeat(pullHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { s.report(err) }))
	if err != nil {
		return fmt.Errorf("consume %s: %w", s.opts.Stream, err)
	}
	s.cc = cc
	return nil
}

// prefetchBytes bounds one request for messages. A message that does not fit into it would never come.
func (s *Consumption) prefetchBytes() int {
	return max(maxPrefetchBytes, 2*int(s.conn.MaxPayload()))
}

// renew makes a receiver for the consumer just opened. What is still in flight from a consumer that is gone is finished
// apart.
func (s *Consumption) renew(ctx context.Context) *receiver {
	r, old := newReceiver(ctx, s.conn, s.opts, s.memory), s.receiver.Load()
	if old != nil {
		s.old.Go(func() { _ = old.finish(s.base) })
	}
	s.receiver.Store(r)
	return r
}

// keep subscribes anew whenever the consumer turns out to be gone.
func (s *Consumption) keep() {
	for {
		closed := s.cc.Closed()
		select {
		case <-s.base.Done():
			return
		case <-s.doubt:
			if s.exists() {
				continue
			}
			s.cc.Stop()
			<-closed
		case <-closed:
		}
		s.receiver.Load().muted.Store(true)
		if !s.reopen() {
			return
		}
	}
}

// exists asks the server whether the consumer is there; it is taken to be unless the server denies it.
func (s *Consumption) exists() bool {
	ctx, cancel := context.WithTimeout(s.base, reopenTimeout)
	defer cancel()
	_, err := s.consumer.Info(ctx)
	return !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound)
}

// reopen tries until it consumes again, or reports false when the consumption is to stop.
func (s *Consumption) reopen() bool {
	for s.base.Err() == nil {
		ctx, cancel := context.WithTimeout(s.base, reopenTimeout)
		err := s.open(ctx)
		cancel()
		if err == nil {
			s.opts.Logger.Warn("the consumer was gone and is there again", slog.String("stream", s.opts.Stream))
			return true
		}
		s.opts.Logger.Debug("cannot consume again yet", slog.String("stream", s.opts.Stream), slog.Any("error", err))
		select {
		case <-s.base.Done():
		case <-time.After(reopenPause):
		}
	}
	return false
}

// report looks into what the client library says went wrong. No responders and missing heartbeats are what a consumer
// that was deleted while we were not connected looks like.
func (s *Consumption) report(err error) {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed):
		return
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoHeartbeat):
		select {
		case s.doubt <- struct{}{}:
		default:
		}
	}
	s.opts.Logger.Warn("consume from JetStream", slog.String("stream", s.opts.Stream), slog.Any("error", err))
}

// InFlight is the number of messages received and not settled yet.
func (s *Consumption) InFlight() int { return s.receiver.Load().InFlight() }

// Stop fetches no more, hands the messages already fetched to the handler, waits until all are settled or ctx ends, and
// makes sure that the server has taken the acks. Messages unsettled when ctx ends come again later, here or elsewhere.
func (s *Consumption) Stop(ctx context.Context) error {
	s.cancel()
	s.keeping.Wait()
	closed := s.cc.Closed()
	if s.conn.Connected() {
		s.cc.Drain()
	} else {
		s.cc.Stop() // draining waits for the server
	}
	select {
	case <-closed:
	case <-ctx.Done():
		s.cc.Stop()
	}
	err := s.receiver.Load().finish(ctx)
	s.old.Wait()
	return err
}
