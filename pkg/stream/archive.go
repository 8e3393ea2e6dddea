package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/pkg/event"
)

// storedHeader of a copy is when the event was accepted, which is before the copy was made.
const storedHeader = "Millrace-Stored"

// MaxArchivePage is the largest number of events on one page of [Conn.ReadArchive].
const MaxArchivePage = 64

// Archive stores a copy of an accepted event in the Broker's archive. Repeated within the duplicate window it stores it once. Its errors
// match [ErrUnavailable], [ErrBusy], [ErrFull] or [ErrTooLarge].
func (p *Publisher) Archive(ctx context.Context, to *Names, d *Delivery) error {
	if !p.conn.Connected() {
		return errNotConnected()
	}
	release, err := p.reserve(int64(len(d.Event.Data)) + messageOverhead)
	if err != nil {
		return err
	}
	defer release()
	// The time tells the sequence from that of a stream that was deleted and made anew.
	id := "archive/" + strconv.FormatUint(d.Sequence(), 10) + "/" + strconv.FormatInt(d.Stored().UnixNano(), 36)
	msg := newMessage(to.ArchiveSubject, &Message{Event: d.Event, ID: id})
	msg.Header.Set(storedHeader, d.Stored().UTC().Format(time.RFC3339Nano))
	future, err := p.conn.js.PublishMsgAsync(msg)
	if err != nil {
		return p.publishError(err, msg.Size())
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return p.publishError(err, msg.Size())
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// Archived is a copy of an accepted event.
type Archived struct {
	// Sequence is its number in the Broker's archive.
	Sequence uint64
	// Accepted is when the event was.
	Accepted time.Time
	// Event is nil if what is stored is not a CloudEvent.
	Event *event.Event
}

// ArchiveQuery says which copies a page is to hold.
type ArchiveQuery struct {
	// After leaves out this sequence and all before it.
	After uint64
	// Since, where After is 0, leaves out copies made before it, and so only events accepted before it.
	Since time.Time
	// Until leaves out all sequences after this one.
	Until uint64
}

// ArchivePage holds some copies, in the order of their sequences.
type ArchivePage struct {
	Events []Archived
	// Next is the After of the next page; 0 if there is none.
	Next uint64
}

// ReadArchive returns a page of at most [MaxArchivePage] copies. It keeps nothing on the server between pages. The error matches
// [ErrNoArchive] if the Broker has no archive, and [ErrUnavailable] if trying again may help.
func (c *Conn) ReadArchive(ctx context.Context, n *Names, q ArchiveQuery) (ArchivePage, error) {
	for range pageTries {
		page, complete, err := c.readArchive(ctx, n, q)
		if err != nil {
			return ArchivePage{}, fmt.Errorf("read the archive: %w", err)
		}
		if complete {
			return page, nil
		}
	}
	return ArchivePage{}, fmt.Errorf("read the archive: %w: the server has events but sends none", ErrUnavailable)
}

// ErrNoArchive says that a Broker has no archive.
var ErrNoArchive = errors.New("the Broker has no archive")

func (c *Conn) readArchive(ctx context.Context, n *Names, q ArchiveQuery) (_ ArchivePage, complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	config := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, InactiveThreshold: pageIdle, MemoryStorage: true, Replicas: 1,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: q.After + 1,
	}
	if q.After == 0 && !q.Since.IsZero() {
		config.DeliverPolicy, config.OptStartSeq, config.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &q.Since
	}
	consumer, err := c.js.CreateConsumer(ctx, n.Archive, config)
	if err != nil {
		return ArchivePage{}, false, archiveError(err)
	}
	info := consumer.CachedInfo()
	defer c.forget(ctx, n.Archive, info.Name)
	if info.NumPending == 0 {
		return ArchivePage{}, true, nil
	}
	batch, err := consumer.FetchNoWait(int(min(MaxArchivePage, info.NumPending)))
	if err != nil {
		return ArchivePage{}, false, archiveError(err)
	}
	var page ArchivePage
	for msg := range batch.Messages() {
		meta, err := msg.Metadata()
		if err != nil {
			return ArchivePage{}, false, fmt.Errorf("read a message's position: %w", err)
		}
		if meta.Sequence.Consumer != uint64(len(page.Events))+1 {
			break // one was lost on its way: the next page begins with it
		}
		if meta.Sequence.Stream > q.Until {
			page.Next = 0
			return page, true, nil
		}
		a := Archived{Sequence: meta.Sequence.Stream, Accepted: meta.Timestamp}
		if at, err := time.Parse(time.RFC3339Nano, msg.Headers().Get(storedHeader)); err == nil {
			a.Accepted = at
		}
		a.Event, _ = decode(msg.Headers(), msg.Data())
		page.Events, page.Next = append(page.Events, a), meta.Sequence.Stream
		if meta.NumPending == 0 || meta.Sequence.Stream == q.Until {
			page.Next = 0
			return page, true, nil
		}
	}
	return page, len(page.Events) > 0, nil
}

func archiveError(err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return ErrNoArchive
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// ArchiveState returns what the Broker's archive holds. The error matches [ErrNoArchive] if there is none.
func (c *Conn) ArchiveState(ctx context.Context, n *Names) (State, error) {
	s, err := c.js.Stream(ctx, n.Archive)
	if err != nil {
		return State{}, archiveError(err)
	}
	st := s.CachedInfo().State
	return State{Messages: st.Msgs, Bytes: st.Bytes, Last: st.LastSeq, Oldest: st.FirstTime}, nil
}
