package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"millrace.dev/pkg/event"
)

const (
	// ackTimeout bounds the wait for a PubAck. An R3 stream that lost its leader is silent for up to 6 s.
	ackTimeout = 8 * time.Second
	// maxPendingAcks is above what maxPendingBytes lets through in practice: bytes are the bound that counts.
	maxPendingAcks = 1 << 16
	// DefaultMaxPendingBytes bounds the bytes that wait for a PubAck in one process.
	DefaultMaxPendingBytes = 64 << 20
	// MaxBatch is the largest number of messages that can be stored all or none.
	MaxBatch = 1000
	// maxBatchesUnderWay keeps two processes below the server's limit of 50 unfinished batches a stream.
	maxBatchesUnderWay = 20
	// maxSeriesUnderWay keeps a process below the 10,000 messages that the server queues for a stream.
	maxSeriesUnderWay = 8
	// messageOverhead stands for a message's bookkeeping when bytes are counted.
	messageOverhead = 512
)

// The headers of JetStream's atomic batch publish (ADR-50 of the NATS project, server 2.12 and later).
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// JetStream API error codes that steer what the producer is told.
const (
	codeAccountResources    = 10002
	codeNoPeers             = 10005
	codeNotLeader           = 10009
	codeInsufficient        = 10023
	codeMemoryResources     = 10028
	codeStorageResources    = 10047
	codeMessageTooLarge     = 10054
	codeReplicasUnsupported = 10074
	codeStoreFailed         = 10077 // with DiscardNew: the stream's limit of bytes or messages
	codeHeaderTooLarge      = 10097
	codeStreamOffline       = 10118
	codeTooManyRequests     = 10167
	codeStreamOfflineReason = 10194
	codeBatchTooLarge       = 10199
	codeBatchHasDuplicate   = 10201
	codeSeriesDisabled      = 10205
	codeSeriesUnknown       = 10208
	codeTooManySeries       = 10211
	codeTooManyBatches      = 10210
)

// Publisher stores events. One Publisher serves all requests of a process through one window of unconfirmed messages.
type Publisher struct {
	conn     *Conn
	maxBytes int64
	pending  atomic.Int64
	batches  chan struct{} // a slot for each batch that may be under way
	series   chan struct{} // the same for each series of PublishInOrder
}

// NewPublisher returns a Publisher on c that lets at most maxPendingBytes wait for confirmation
// (0 means DefaultMaxPendingBytes).
func NewPublisher(c *Conn, maxPendingBytes int64) *Publisher {
	if maxPendingBytes <= 0 {
		maxPendingBytes = DefaultMaxPendingBytes
	}
	return &Publisher{conn: c, maxBytes: maxPendingBytes, batches: make(chan struct{}, maxBatchesUnderWay), series: make(chan struct{}, maxSeriesUnderWay)}
}

// PendingBytes is the number of bytes that wait for confirmation.
func (p *Publisher) PendingBytes() int64 { return p.pending.Load() }

// Publish stores the messages in the Broker's stream of accepted events, all or none, and returns once JetStream has
// confirmed them. Its errors match [ErrFull], [ErrUnavailable], [ErrBusy] or [ErrTooLarge].
func (p *Publisher) Publish(ctx context.Context, to *Names, msgs ...Message) error {
	for i := range msgs {
		if err := p.checkSize(msgs[i].Event); err != nil {
			return err
		}
	}
	switch len(msgs) {
	case 0:
		return nil
	case 1:
		_, err := p.put(ctx, p.conn.health.events(to), newMessage(to.EventSubject, &msgs[0]))
		return err
	default:
		return p.putBatch(ctx, to, msgs)
	}
}

// checkSize refuses what could be stored, but not be stored again for a retry, with the progress of the delivery beside it.
func (p *Publisher) checkSize(e *event.Event) error {
	header := HeaderBytes(e)
	if header > MaxHeaderBytes {
		return &SizeError{What: "the limit of attributes as stored", Size: int64(header), Limit: MaxHeaderBytes}
	}
	size := int64(header + len(e.Data))
	if limit := p.conn.MaxPayload() - retryRoom; limit > 0 && size > limit {
		return &SizeError{What: "max_payload of the NATS server, less what a retry needs,", Size: size, Limit: limit}
	}
	return nil
}

// PublishRetry stores the delivery of m to the Trigger with the given UID for a later attempt: once at.Due has passed, or
// as soon as the subscriber takes it if that is zero. It returns the message's number in the retry stream.
func (p *Publisher) PublishRetry(ctx context.Context, to *Names, triggerUID string, m Message, at Progress) (sequence uint64, err error) {
	subject := to.BacklogPrefix() + triggerUID
	if !at.Due.IsZero() {
		subject = to.DelayPrefix(DelayClass(time.Until(at.Due))) + triggerUID
	}
	msg := newMessage(subject, &m)
	setProgress(msg.Header, at)
	return p.put(ctx, p.conn.health.retries(to), msg)
}

// Park stores the delivery of m to the Trigger with the given UID, given up for good, where people can look at it. It returns
// the message's number in the parking stream.
func (p *Publisher) Park(ctx context.Context, to *Names, triggerUID string, m Message, at Progress) (sequence uint64, err error) {
	msg := newMessage(to.ParkedPrefix+triggerUID, &m)
	setProgress(msg.Header, at)
	return p.put(ctx, p.conn.health.parked(to), msg)
}

func newMessage(subject string, m *Message) *nats.Msg {
	msg := encode(subject, m.Event)
	if m.ID != "" {
		msg.Header[nats.MsgIdHdr] = []string{m.ID}
	}
	return msg
}

// put publishes one message to the stream, waits for its PubAck, but not for one of a stream that is known not to take
// messages, and returns its sequence.
func (p *Publisher) put(ctx context.Context, to *condition, msg *nats.Msg) (sequence uint64, err error) {
	down, err := p.open(to)
	if err != nil {
		return 0, err
	}
	release, err := p.reserve(int64(len(msg.Data)) + messageOverhead)
	if err != nil {
		return 0, err
	}
	defer release()
	to.sent.Add(1)
	defer to.answered.Add(1)
	future, err := p.conn.js.PublishMsgAsync(msg)
	if err != nil {
		return 0, p.publishError(err, msg.Size())
	}
	select {
	case ack := <-future.Ok():
		return ack.Sequence, nil
	case err := <-future.Err():
		return 0, p.suspicious(to, p.publishError(err, msg.Size()))
	case <-down:
		return 0, stopped(to)
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// stopped is why the stream stopped taking messages while one was under way.
func stopped(to *condition) error {
	if _, err := to.now(); err != nil {
		return err
	}
	return ErrUnavailable // it has recovered since
}

// suspicious passes an error on, after a look at the stream if the error may be the stream's condition.
func (p *Publisher) suspicious(to *condition, err error) error {
	if errors.Is(err, ErrUnavailable) {
		p.conn.health.suspect(to)
	}
	return err
}

func errNotConnected() error {
	return fmt.Errorf("%w: %w: not connected to NATS", ErrNotSent, ErrUnavailable)
}

// open returns an error that matches [ErrNotSent] if the stream is known not to take messages now, or a channel that is
// closed once that is found. Without a connection, publishing would only wait for the connection's lock.
func (p *Publisher) open(to *condition) (down <-chan struct{}, err error) {
	if !p.conn.Connected() {
		return nil, errNotConnected()
	}
	if down, err = to.now(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	return down, nil
}

// reserve takes n bytes of the window, or fails at once: waiting would only hide from the producer that it is too fast.
func (p *Publisher) reserve(n int64) (release func(), err error) {
	if p.pending.Add(n) > p.maxBytes+n {
		p.pending.Add(-n)
		return nil, ErrBusy
	}
	return func() { p.pending.Add(-n) }, nil
}

// putBatch publishes the messages as one atomic batch: the server keeps all of them or none.
func (p *Publisher) putBatch(ctx context.Context, to *Names, msgs []Message) error {
	if len(msgs) > MaxBatch {
		return fmt.Errorf("%w: a batch holds at most %d events", ErrTooLarge, MaxBatch)
	}
	stream := p.conn.health.events(to)
	down, err := p.open(stream)
	if err != nil {
		return err
	}
	var size int64
	for i := range msgs {
		size += int64(len(msgs[i].Event.Data)) + messageOverhead
	}
	release, err := p.reserve(size)
	if err != nil {
		return err
	}
	defer release()
	ctx, end, err := p.begin(ctx, stream, down, p.batches)
	if err != nil {
		return err
	}
	defer end()
	return p.suspicious(stream, p.commitBatch(ctx, to, msgs))
}

// begin waits for one of the slots of what is sent together and bounds the time that it may take. The stream is looked at when that
// gets long, and what is under way ended if the stream is found down.
func (p *Publisher) begin(ctx context.Context, stream *condition, down <-chan struct{}, slots chan struct{}) (bounded context.Context, end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	select {
	case slots <- struct{}{}:
	case <-down:
		cancel()
		return nil, nil, stopped(stream)
	case <-ctx.Done():
		cancel()
		return nil, nil, fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
	slow := time.AfterFunc(slowAck, func() {
		p.conn.health.suspect(stream)
		select {
		case <-down:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { slow.Stop(); <-slots; cancel() }, nil
}

// commitBatch sends all messages but the last without waiting: the answer to the commit speaks for all of them.
func (p *Publisher) commitBatch(ctx context.Context, to *Names, msgs []Message) error {
	id := nuid.Next()
	for i := range msgs {
		msg := newMessage(to.EventSubject, &msgs[i])
		msg.Header[batchIDHeader] = []string{id}
		msg.Header[batchSequenceHeader] = []string{strconv.Itoa(i + 1)}
		if i < len(msgs)-1 {
			if err := p.conn.nc.PublishMsg(msg); err != nil {
				return p.publishError(err, msg.Size())
			}
			continue
		}
		msg.Header[batchCommitHeader] = []string{"1"}
		if _, err := p.conn.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(1)); err != nil {
			return p.batchError(ctx, to, msgs, err)
		}
	}
	return nil
}

// batchError tells why a batch was refused. A batch that holds an event stored before (de-duplication is on) is refused
// whole by the server, so it is sent again one by one: the events already there are dropped by their ids.
func (p *Publisher) batchError(ctx context.Context, to *Names, msgs []Message, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeBatchHasDuplicate {
		return p.publishError(err, newMessage(to.EventSubject, &msgs[len(msgs)-1]).Size())
	}
	stored, err := p.putEach(ctx, to, msgs)
	if errors.Is(err, ErrNotSent) && stored > 0 {
		return fmt.Errorf("%w after %d events of %d", ErrUnavailable, stored, len(msgs)) // those are stored
	}
	return err
}

// putEach publishes the messages one after the other and returns how many are stored.
func (p *Publisher) putEach(ctx context.Context, to *Names, msgs []Message) (stored int, err error) {
	for i := range msgs {
		if _, err := p.put(ctx, p.conn.health.events(to), newMessage(to.EventSubject, &msgs[i])); err != nil {
			return i, err
		}
	}
	return len(msgs), nil
}

// publishError sorts an error of nats.go into what a producer can act on. size is that of the message.
func (p *Publisher) publishError(err error, size int) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return &SizeError{What: "max_payload of the NATS server", Size: int64(size), Limit: p.conn.MaxPayload()}
	case errors.Is(err, jetstream.ErrTooManyStalledMsgs):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.As(err, &api):
		return apiError(api)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

func apiError(api *jetstream.APIError) error {
	kind := ErrUnavailable
	switch int(api.ErrorCode) {
	case codeMessageTooLarge, codeHeaderTooLarge, codeBatchTooLarge:
		kind = ErrTooLarge
	case codeStoreFailed, codeInsufficient, codeAccountResources, codeStorageResources, codeMemoryResources:
		kind = ErrFull
	case codeTooManyRequests, codeTooManyBatches, codeTooManySeries:
		kind = ErrBusy
	}
	return fmt.Errorf("%w: %w", kind, api)
}
