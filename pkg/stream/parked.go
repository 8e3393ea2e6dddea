package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/pkg/event"
)

const (
	// MaxParkedPage is the largest number of events on one page of [Conn.ListParked].
	MaxParkedPage = 5000
	// pageIdle is after how long without a request the server forgets the reader of a page.
	pageIdle = 30 * time.Second
	// pageTries is how often a page is asked for that has events but none of them arrives.
	pageTries = 3
	// storeTimeout bounds a request to the server where the caller's context has no earlier end.
	storeTimeout = 10 * time.Second
	// codeSequenceNotFound and codeDeleteFailed are what the server answers to a request to delete what is not there.
	codeSequenceNotFound = 10043
	codeDeleteFailed     = 10057
	// sizeHeader is the size of the data that the server left out.
	sizeHeader = "Nats-Msg-Size"
)

var (
	// ErrNotParked says that no event is parked under the given sequence: it never was, or it was redriven, purged or has
	// become too old.
	ErrNotParked = errors.New("no event is parked under this sequence")
	// ErrBadUID says that a Trigger's UID holds characters that no UID has.
	ErrBadUID = errors.New("not the UID of a Trigger")
)

// Parked is a delivery that was given up and is kept for people to look at, redrive or purge.
type Parked struct {
	// Sequence is its number in the Broker's parking stream; numbers grow with time and are never used again.
	Sequence uint64
	// TriggerUID is the UID of the Trigger whose delivery it is.
	TriggerUID string
	// At is when it was parked.
	At time.Time
	// Size is the number of bytes of the event's data.
	Size int
	// Progress is how far the delivery had come.
	Progress Progress
	// Event is the event, without data when it comes from a list; nil if what is stored is not a CloudEvent.
	Event *event.Event
	// Problem says why Event is nil. It matches [ErrCorrupt].
	Problem error
}

// RedriveID is the message id of the delivery that a redrive makes of the parked one. It is the same at each try, so
// that a redrive repeated after a crash stores the delivery once. The time tells it from one of the same sequence in a
// stream that was deleted and made anew.
func (p *Parked) RedriveID() string {
	return "redrive/" + strconv.FormatUint(p.Sequence, 10) + "/" + strconv.FormatInt(p.At.UnixNano(), 36)
}

// ParkedQuery says which parked events a page is to hold.
type ParkedQuery struct {
	// TriggerUID, if not empty, leaves out the deliveries to all other Triggers.
	TriggerUID string
	// After leaves out this sequence and all before it.
	After uint64
	// Until, if not 0, leaves out all sequences after this one.
	Until uint64
	// Limit is the largest number of events on the page, at most and by default [MaxParkedPage].
	Limit int
}

// ParkedPage holds some parked events, in the order of their sequences.
type ParkedPage struct {
	Events []Parked
	// Next is the After of the next page; 0 if there is none.
	Next uint64
	// Pending is the number of events that matched the query when the page was read, those of later pages and those
	// after Until included.
	Pending uint64
}

// ListParked returns a page of the events parked for a Broker, without their data. It keeps nothing on the server
// between pages, so a reader may take any time between two of them.
func (c *Conn) ListParked(ctx context.Context, n *Names, q ParkedQuery) (ParkedPage, error) {
	if q.Limit <= 0 || q.Limit > MaxParkedPage {
		q.Limit = MaxParkedPage
	}
	filter, err := parkedSubject(n, q.TriggerUID)
	if err != nil {
		return ParkedPage{}, err
	}
	for range pageTries {
		var page ParkedPage
		var complete bool
		if page, complete, err = c.readPage(ctx, n, filter, q); err != nil {
			return ParkedPage{}, fmt.Errorf("list parked events: %w", err)
		}
		if complete {
			return page, nil
		}
	}
	return ParkedPage{}, fmt.Errorf("list parked events: %w: the server has events but sends none", ErrUnavailable)
}

// parkedSubject is the subject of a Trigger's parked events, or of all for an empty UID.
func parkedSubject(n *Names, triggerUID string) (string, error) {
	if triggerUID == "" {
		return n.ParkedPrefix + "*", nil
	}
	if strings.ContainsFunc(triggerUID, func(r rune) bool { return r <= ' ' || r == '.' || r == '*' || r == '>' || r >= 0x7f }) {
		return "", fmt.Errorf("%w: %q", ErrBadUID, triggerUID)
	}
	return n.ParkedPrefix + triggerUID, nil
}

// readPage reads a page through a consumer of its own. It is not complete if none of the events that must be there came.
func (c *Conn) readPage(ctx context.Context, n *Names, filter string, q ParkedQuery) (_ ParkedPage, complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	consumer, err := c.js.CreateConsumer(ctx, n.Parked, jetstream.ConsumerConfig{
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       q.After + 1,
		FilterSubject:     filter,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: pageIdle,
		HeadersOnly:       true,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return ParkedPage{}, false, storeError(err)
	}
	defer c.forget(ctx, n.Parked, consumer.CachedInfo().Name)
	page := ParkedPage{Pending: consumer.CachedInfo().NumPending}
	if page.Pending == 0 {
		return page, true, nil
	}
	batch, err := consumer.FetchNoWait(int(min(uint64(q.Limit), page.Pending)))
	if err != nil {
		return ParkedPage{}, false, storeError(err)
	}
	if err := page.fill(ctx, batch.Messages(), n, q); err != nil {
		return ParkedPage{}, false, err
	}
	if len(page.Events) == 0 && page.Next != 0 {
		return page, false, nil
	}
	return page, true, nil
}

// fill takes messages up to the first that is missing, and says with Next where to go on.
func (p *ParkedPage) fill(ctx context.Context, messages <-chan jetstream.Msg, n *Names, q ParkedQuery) error {
	p.Next = q.After + 1 // not 0: there are more, as long as no message says otherwise
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		case msg, ok := <-messages:
			if !ok {
				return nil
			}
			meta, err := msg.Metadata()
			if err != nil {
				return fmt.Errorf("read a message's position: %w", err)
			}
			if meta.Sequence.Consumer != uint64(len(p.Events))+1 {
				return nil // one was lost on its way: the next page begins with it
			}
			if q.Until != 0 && meta.Sequence.Stream > q.Until {
				p.Next = 0
				return nil
			}
			size, _ := strconv.Atoi(msg.Headers().Get(sizeHeader))
			p.Events = append(p.Events, newParked(n, parkedMessage{
				sequence: meta.Sequence.Stream, subject: msg.Subject(), header: msg.Headers(), at: meta.Timestamp, size: size,
			}))
			p.Next = meta.Sequence.Stream
			if meta.NumPending == 0 {
				p.Next = 0
			}
		}
	}
}

// forget removes the consumer of a page. If it fails, the server does it after a while.
func (c *Conn) forget(ctx context.Context, stream, consumer string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = c.js.DeleteConsumer(ctx, stream, consumer)
}

// GetParked returns one parked event with its data. The error matches [ErrNotParked] if there is none of this sequence.
func (c *Conn) GetParked(ctx context.Context, n *Names, sequence uint64) (*Parked, error) {
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := c.request(ctx, "STREAM.MSG.GET."+n.Parked, map[string]any{"seq": sequence}, &answer); err != nil {
		return nil, fmt.Errorf("get parked event %d: %w", sequence, err)
	}
	m := parkedMessage{
		sequence: sequence, subject: answer.Message.Subject, data: answer.Message.Data, at: answer.Message.Time,
		size: len(answer.Message.Data),
	}
	if len(answer.Message.Header) > 0 {
		var err error
		if m.header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return nil, fmt.Errorf("get parked event %d: %w: %w", sequence, ErrCorrupt, err)
		}
	}
	p := newParked(n, m)
	return &p, nil
}

// DeleteParked removes one parked event. The error matches [ErrNotParked] if there is none of this sequence.
func (c *Conn) DeleteParked(ctx context.Context, n *Names, sequence uint64) error {
	err := c.request(ctx, "STREAM.MSG.DELETE."+n.Parked, map[string]any{"seq": sequence, "no_erase": true}, nil)
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == codeDeleteFailed {
		// The server says so too if the message was removed before.
		if _, getErr := c.GetParked(ctx, n, sequence); errors.Is(getErr, ErrNotParked) {
			err = ErrNotParked
		}
	}
	if err != nil {
		return fmt.Errorf("delete parked event %d: %w", sequence, err)
	}
	return nil
}

// PurgeParked removes all parked events of a Trigger, or of all Triggers for an empty UID, up to and with the given
// sequence, and returns how many it removed.
func (c *Conn) PurgeParked(ctx context.Context, n *Names, triggerUID string, until uint64) (uint64, error) {
	filter, err := parkedSubject(n, triggerUID)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Purged uint64 `json:"purged"`
	}
	if err := c.request(ctx, "STREAM.PURGE."+n.Parked, map[string]any{"filter": filter, "seq": until + 1}, &answer); err != nil {
		return 0, fmt.Errorf("purge parked events: %w", err)
	}
	return answer.Purged, nil
}

// ParkedState says what a Broker's parking stream holds.
type ParkedState struct {
	// Messages is the number of parked events, Bytes what they take in the store.
	Messages, Bytes uint64
	// Last is the sequence that was used last; 0 if none was.
	Last uint64
}

// ParkedState returns what the Broker's parking stream holds.
func (c *Conn) ParkedState(ctx context.Context, n *Names) (ParkedState, error) {
	var answer struct {
		State jetstream.StreamState `json:"state"`
	}
	if err := c.request(ctx, "STREAM.INFO."+n.Parked, struct{}{}, &answer); err != nil {
		return ParkedState{}, fmt.Errorf("count parked events: %w", err)
	}
	return ParkedState{Messages: answer.State.Msgs, Bytes: answer.State.Bytes, Last: answer.State.LastSeq}, nil
}

// request asks the JetStream API directly, where the client library would ask twice or hide a part of the answer.
func (c *Conn) request(ctx context.Context, subject string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	msg, err := c.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+subject, text)
	if err != nil {
		return storeError(err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &failed); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if failed.Error != nil {
		return storeError(failed.Error)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

// parkedMessage is what the store has of a parked event.
type parkedMessage struct {
	sequence uint64
	subject  string
	header   nats.Header
	data     []byte
	at       time.Time
	size     int
}

func newParked(n *Names, m parkedMessage) Parked {
	p := Parked{
		Sequence: m.sequence, TriggerUID: strings.TrimPrefix(m.subject, n.ParkedPrefix), At: m.at, Size: m.size,
		Progress: progressOf(m.header),
	}
	p.Event, p.Problem = decode(m.header, m.data)
	return p
}

// storeError sorts an error of nats.go or the server into what a caller can act on.
func storeError(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch api.ErrorCode {
	case jetstream.JSErrCodeMessageNotFound, codeSequenceNotFound:
		return ErrNotParked
	case jetstream.JSErrCodeStreamNotFound:
		return fmt.Errorf("%w: its stream is not there yet", ErrUnavailable)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}
