package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/pkg/event"
)

const (
	// consumerName is the durable consumer that all filter replicas share on each stream.
	consumerName = "millrace-filter"
	// ackWait is how long the server waits for a sign of life before it gives a message to somebody else.
	ackWait = 10 * time.Second
	// extendAfter is the age at which a message still in flight is extended; well below ackWait, so that two rounds may fail.
	extendAfter = 3 * time.Second
	// DefaultMaxAckPending bounds the messages in flight of one stream over all replicas, and with it the duplicates after
	// a crash.
	DefaultMaxAckPending = 4096
)

// ConsumeOptions say what to consume and how.
type ConsumeOptions struct {
	// Stream is the name of the stream.
	Stream string
	// SubjectPrefix is cut from each message's subject to give [Delivery.Key].
	SubjectPrefix string
	// MaxAckPending bounds the unsettled messages of the stream; default [DefaultMaxAckPending].
	MaxAckPending int
	// Logger receives what goes wrong; default slog.Default().
	Logger *slog.Logger
}

// Consumption is a running subscription to a stream.
type Consumption struct {
	opts   ConsumeOptions
	handle func(*Delivery)
	cc     jetstream.ConsumeContext
	acks   *acker
	flight inFlight
	ticker sync.WaitGroup
	stop   chan struct{}
}

// Consume calls handle for each message of the stream, one after the other, until [Consumption.Stop]. The handler must
// not block for long: while it does, messages already fetched grow old. Messages are shared with all other processes
// that consume the same stream.
func (c *Conn) Consume(ctx context.Context, o ConsumeOptions, handle func(*Delivery)) (*Consumption, error) {
	if o.MaxAckPending <= 0 {
		o.MaxAckPending = DefaultMaxAckPending
	}
	if o.Logger == nil {
		o.Logger = c.log
	}
	consumer, err := c.js.CreateOrUpdateConsumer(ctx, o.Stream, jetstream.ConsumerConfig{
		Durable:       consumerName,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxAckPending: o.MaxAckPending,
		MaxDeliver:    -1, // attempts are counted in headers: a crash on the last one must lose nothing
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer of %s: %w", o.Stream, err)
	}
	s := &Consumption{opts: o, handle: handle, acks: newAcker(c.nc, o.Logger), stop: make(chan struct{})}
	s.cc, err = consumer.Consume(s.receive,
		jetstream.PullMaxMessages(min(o.MaxAckPending, 1024)),
		jetstream.PullExpiry(30*time.Second),
		jetstream.PullHeartbeat(5*time.Second),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { s.report(err) }))
	if err != nil {
		return nil, fmt.Errorf("consume %s: %w", o.Stream, err)
	}
	s.ticker.Go(s.extendLoop)
	return s, nil
}

func (s *Consumption) report(err error) {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, jetstream.ErrConsumerDeleted) && s.stopping() {
		return
	}
	s.opts.Logger.Warn("consume from JetStream", slog.String("stream", s.opts.Stream), slog.Any("error", err))
}

func (s *Consumption) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// receive decodes one message and hands it on. What is not a CloudEvent was not written by Millrace; it is removed from
// the queue, which it would block for ever, and reported.
func (s *Consumption) receive(msg jetstream.Msg) {
	d := &Delivery{msg: msg, from: s}
	var err error
	if d.Event, err = decode(msg.Headers(), msg.Data()); err != nil {
		s.opts.Logger.Error("drop a stored message that is not a CloudEvent",
			slog.String("stream", s.opts.Stream), slog.String("subject", msg.Subject()), slog.Any("error", err))
		_ = msg.TermWithReason("not a CloudEvent")
		return
	}
	s.flight.add(d)
	s.handle(d)
}

// extendLoop is the one timer that keeps all messages in flight alive.
func (s *Consumption) extendLoop() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			for _, d := range s.flight.olderThan(extendAfter) {
				_ = d.msg.InProgress() // if it does not arrive, the next round tries again
			}
		}
	}
}

// InFlight is the number of messages handed to the handler and not settled yet.
func (s *Consumption) InFlight() int { return s.flight.len() }

// Stop fetches no more, hands the messages already fetched to the handler, waits until all are settled or ctx ends, and
// makes sure that the server has taken the acks. Messages unsettled when ctx ends come again later, here or elsewhere.
func (s *Consumption) Stop(ctx context.Context) error {
	s.cc.Drain()
	var err error
	select {
	case <-s.cc.Closed():
		err = s.flight.wait(ctx)
	case <-ctx.Done():
		s.cc.Stop()
		err = ctx.Err()
	}
	close(s.stop)
	s.ticker.Wait()
	if confirmErr := s.acks.close(ctx); err == nil {
		err = confirmErr
	}
	if err != nil {
		return fmt.Errorf("stop consuming %s with %d in flight: %w", s.opts.Stream, s.InFlight(), err)
	}
	return nil
}

// Delivery is one stored message under way. Exactly one of Ack and Retry is called on it, once.
type Delivery struct {
	// Event is not to be changed: several lanes read it.
	Event *event.Event

	msg     jetstream.Msg
	from    *Consumption
	touched time.Time // when the server last heard of it; guarded by inFlight
	prev    *Delivery
	next    *Delivery
}

// Key is the message's subject without the consumption's prefix: in the retry and parking streams the Trigger's UID.
func (d *Delivery) Key() string {
	return strings.TrimPrefix(d.msg.Subject(), d.from.opts.SubjectPrefix)
}

// Progress is how far the delivery had come when the message was stored.
func (d *Delivery) Progress() Progress { return progressOf(d.msg.Headers()) }

// Sequence is the message's number in its stream, the same at every redelivery.
func (d *Delivery) Sequence() uint64 {
	meta, err := d.msg.Metadata()
	if err != nil {
		return 0
	}
	return meta.Sequence.Stream
}

// Deliveries is how often the server has handed the message out, this time included.
func (d *Delivery) Deliveries() uint64 {
	meta, err := d.msg.Metadata()
	if err != nil {
		return 1
	}
	return meta.NumDelivered
}

// Ack says that the message's fate is settled and it may be removed.
func (d *Delivery) Ack() {
	d.from.acks.ack(d.msg)
	d.from.flight.remove(d)
}

// Retry gives the message back, to come again after delay.
func (d *Delivery) Retry(delay time.Duration) {
	if err := d.msg.NakWithDelay(delay); err != nil {
		d.from.opts.Logger.Debug("give a message back", slog.Any("error", err))
	}
	d.from.flight.remove(d)
}
