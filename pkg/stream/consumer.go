package stream

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	// maxPrefetch and maxPrefetchBytes bound the messages fetched ahead of the handler.
	maxPrefetch      = 1024
	maxPrefetchBytes = 8 << 20
	// DefaultMaxAckPending bounds the messages in flight of one stream over all replicas, and with it the duplicates after
	// a crash.
	DefaultMaxAckPending = 8192
)

// ConsumeOptions say what to consume and how.
type ConsumeOptions struct {
	// Stream is the name of the stream.
	Stream string
	// Name of the durable consumer, which all processes that share the work give; default millrace-filter.
	Name string
	// FilterSubject selects messages of the stream; default all.
	FilterSubject string
	// SubjectPrefix is cut from each message's subject to give [Delivery.Key].
	SubjectPrefix string
	// MaxAckPending bounds the unsettled messages of the consumer; default [DefaultMaxAckPending].
	MaxAckPending int
	// InactiveThreshold is how long the server keeps the consumer when nobody uses it; 0 is for ever.
	InactiveThreshold time.Duration
	// Logger receives what goes wrong; default that of the connection.
	Logger *slog.Logger
}

func (o ConsumeOptions) withDefaults(c *Conn) ConsumeOptions {
	if o.Name == "" {
		o.Name = consumerName
	}
	if o.MaxAckPending <= 0 {
		o.MaxAckPending = DefaultMaxAckPending
	}
	if o.Logger == nil {
		o.Logger = c.log
	}
	return o
}

// receiver is what every way to take messages from a stream has in common: it decodes them, keeps those in flight alive,
// and acks them.
type receiver struct {
	opts   ConsumeOptions
	acks   *acker
	flight inFlight
	ticker sync.WaitGroup
	stop   chan struct{}
	// muted says that the consumer is gone. What we would send about its messages could reach one made anew, and mean
	// other messages there if the stream was made anew as well.
	muted atomic.Bool
}

// newReceiver makes a receiver that shares the memory of those before it that received the same messages.
func newReceiver(ctx context.Context, c *Conn, o ConsumeOptions, m *memory) *receiver {
	r := &receiver{opts: o, flight: inFlight{memory: m}, stop: make(chan struct{})}
	r.acks = newAcker(ctx, c.nc, o.Logger, &r.muted)
	r.ticker.Go(r.extendLoop)
	return r
}

// accept decodes a message and takes it in flight. It returns nil for a message that needs no handling:
//
//   - One that is still in flight here, or was settled here a moment ago. The server hands it out again because a sign of
//     life or an ack got lost; to deliver it again would be a duplicate.
//   - One that is no CloudEvent, which Millrace has not written. It is removed from the queue, which it would block
//     for ever, and reported.
func (r *receiver) accept(msg jetstream.Msg) *Delivery {
	meta, err := msg.Metadata()
	if err != nil {
		r.opts.Logger.Error("received a message that is not from JetStream", slog.Any("error", err))
		return nil
	}
	d := &Delivery{msg: msg, from: r, deliveries: meta.NumDelivered}
	d.id = messageID{sequence: meta.Sequence.Stream, stored: meta.Timestamp.UnixNano()}
	if r.known(d) { // whatever deliveries says: a server that was killed may count them from 1 again
		return nil
	}
	if d.Event, err = decode(msg.Headers(), msg.Data()); err != nil {
		r.opts.Logger.Error("drop a stored message that is not a CloudEvent",
			slog.String("stream", r.opts.Stream), slog.String("subject", msg.Subject()), slog.Any("error", err))
		_ = msg.TermWithReason("not a CloudEvent")
		return nil
	}
	r.flight.add(d)
	return d
}

// known deals with a message that was handed out before.
func (r *receiver) known(d *Delivery) bool {
	switch r.flight.status(d.id) {
	case settled:
		r.acks.ack(d.msg)
		return true
	case underWay:
		_ = d.msg.InProgress()
		return true
	default:
		return false
	}
}

// extendLoop is the one timer that keeps all messages in flight alive.
func (r *receiver) extendLoop() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			if r.muted.Load() {
				continue
			}
			for _, d := range r.flight.olderThan(extendAfter) {
				_ = d.msg.InProgress() // if it does not arrive, the next round tries again
			}
		}
	}
}

// InFlight is the number of messages received and not settled yet.
func (r *receiver) InFlight() int { return r.flight.len() }

// finish waits until everything in flight is settled and the server has taken the acks, or ctx ends.
func (r *receiver) finish(ctx context.Context) error {
	err := r.flight.wait(ctx)
	close(r.stop)
	r.ticker.Wait()
	if !r.muted.Load() {
		err = cmp.Or(err, r.acks.close(ctx))
	}
	if err != nil {
		return fmt.Errorf("stop consuming %s with %d in flight: %w", r.opts.Stream, r.InFlight(), err)
	}
	return nil
}

// ensureConsumer makes sure that the consumer is there. created is when its stream was, which tells one made anew, whose
// sequences begin at 1 again.
func (c *Conn) ensureConsumer(ctx context.Context, o ConsumeOptions) (consumer jetstream.Consumer, created time.Time, err error) {
	st, err := c.js.Stream(ctx, o.Stream)
	if err != nil {
		return nil, created, fmt.Errorf("look up stream %s: %w", o.Stream, err)
	}
	consumer, err = st.CreateOrUpdateConsumer(ctx, consumerConfig(o))
	if err != nil {
		return nil, created, fmt.Errorf("create consumer %s of %s: %w", o.Name, o.Stream, err)
	}
	return consumer, st.CachedInfo().Created, nil
}

// consumerConfig is what all our consumers share. MaxDeliver is unlimited: attempts are counted in headers, so a crash on
// the last one loses nothing.
func consumerConfig(o ConsumeOptions) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:           o.Name,
		FilterSubject:     o.FilterSubject,
		AckPolicy:         jetstream.AckExplicitPolicy,
		AckWait:           ackWait,
		MaxAckPending:     o.MaxAckPending,
		MaxDeliver:        -1,
		InactiveThreshold: o.InactiveThreshold,
	}
}

// Delivery is one stored message under way. Exactly one of Ack and Retry is called on it, once.
type Delivery struct {
	// Event is not to be changed: several lanes read it.
	Event *event.Event

	msg        jetstream.Msg
	from       *receiver
	id         messageID
	deliveries uint64
	touched    time.Time // when the server last heard of it; guarded by inFlight
	prev       *Delivery
	next       *Delivery
}

// Key is the message's subject without the consumption's prefix: in the retry and parking streams the Trigger's UID.
func (d *Delivery) Key() string {
	return strings.TrimPrefix(d.msg.Subject(), d.from.opts.SubjectPrefix)
}

// Progress is how far the delivery had come when the message was stored.
func (d *Delivery) Progress() Progress { return progressOf(d.msg.Headers()) }

// Sequence is the message's number in its stream, the same at every redelivery.
func (d *Delivery) Sequence() uint64 { return d.id.sequence }

// Stored is when the message was written to its stream.
func (d *Delivery) Stored() time.Time { return time.Unix(0, d.id.stored) }

// Deliveries is how often the server has handed the message out, this time included.
func (d *Delivery) Deliveries() uint64 { return d.deliveries }

// Ack says that the message's fate is settled and it may be removed.
func (d *Delivery) Ack() {
	if !d.from.muted.Load() {
		d.from.acks.ack(d.msg)
	}
	d.from.flight.remove(d, true)
}

// Retry gives the message back, to come again after delay.
func (d *Delivery) Retry(delay time.Duration) {
	d.from.flight.remove(d, false)
	if d.from.muted.Load() {
		return
	}
	if err := d.msg.NakWithDelay(delay); err != nil {
		d.from.opts.Logger.Debug("give a message back", slog.Any("error", err))
	}
}
