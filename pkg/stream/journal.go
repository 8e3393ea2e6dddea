package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/pkg/journal"
)

const (
	// JournalStream holds the journal of all Brokers.
	JournalStream = "millrace_journal"
	journalPrefix = "millrace.journal."
	// journalOwner marks the stream as ours, and as no Broker's.
	journalOwner = "millrace-journal"
	// maxJournalBlock is the largest block, in bytes; one that a server does not take is reported as not kept.
	maxJournalBlock = 1 << 20
	// journalFetch is how many blocks are asked for at a time.
	journalFetch = 500
	// journalDuplicates is how long a block is known that is stored again because its confirmation got lost.
	journalDuplicates = 2 * time.Minute
	// DefaultJournalBytes is what the journal may take in the store.
	DefaultJournalBytes = 256 << 20
	// DefaultJournalAge is how long it is kept.
	DefaultJournalAge = 72 * time.Hour
)

// JournalLimits bound the journal. The zero value of a field stands for its default.
type JournalLimits struct {
	// MaxBytes is what it may take in the store, which JetStream reserves; the oldest blocks are dropped beyond it. Default
	// [DefaultJournalBytes].
	MaxBytes int64
	// MaxAge is how long a block is kept at most. Default [DefaultJournalAge].
	MaxAge time.Duration
	// Replicas of the stream. Default 1: to lose the journal loses no event.
	Replicas int
}

// EnsureJournal creates the stream of the journal, or brings it to the given limits. Its errors are those of [Conn.Ensure].
func (c *Conn) EnsureJournal(ctx context.Context, l JournalLimits) error {
	return c.ensureStream(ctx, jetstream.StreamConfig{
		Name:       JournalStream,
		Subjects:   []string{journalPrefix + "*"},
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardOld,
		Replicas:   cmp.Or(l.Replicas, 1),
		MaxMsgs:    -1,
		MaxBytes:   cmp.Or(l.MaxBytes, DefaultJournalBytes),
		MaxAge:     cmp.Or(l.MaxAge, DefaultJournalAge),
		MaxMsgSize: maxJournalBlock,
		Duplicates: min(journalDuplicates, cmp.Or(l.MaxAge, DefaultJournalAge)),
		Metadata:   map[string]string{ownerKey: journalOwner},
	})
}

// StoreJournal stores blocks and returns those that were not confirmed before ctx ended. It implements [journal.Store].
func (c *Conn) StoreJournal(ctx context.Context, blocks []journal.Block) (failed []journal.Block) {
	if !c.Connected() {
		return blocks
	}
	futures := make([]jetstream.PubAckFuture, len(blocks))
	for i, b := range blocks {
		msg := &nats.Msg{Subject: journalPrefix + b.Subject, Data: b.Data}
		if b.ID != "" {
			msg.Header = nats.Header{nats.MsgIdHdr: {b.ID}}
		}
		futures[i], _ = c.js.PublishMsgAsync(msg) // nil after an error
	}
	for i, f := range futures {
		if f == nil {
			failed = append(failed, blocks[i])
			continue
		}
		select {
		case <-f.Ok():
		case err := <-f.Err():
			c.log.DebugContext(ctx, "a block of the journal was not stored", slog.Any("error", err))
			failed = append(failed, blocks[i])
		case <-ctx.Done():
			failed = append(failed, blocks[i])
		}
	}
	return failed
}

// ErrNoJournal says that there is no journal to read: it is turned off, or could not be made.
var ErrNoJournal = errors.New("there is no journal in the store")

// ReadJournal reads the blocks of a subject that are there when it is called. It implements [journal.Store]; its errors match
// [ErrNoJournal] or [ErrUnavailable].
func (c *Conn) ReadJournal(ctx context.Context, subject string, each func(stored time.Time, data []byte) bool) error {
	consumer, err := c.js.CreateConsumer(ctx, JournalStream, jetstream.ConsumerConfig{
		FilterSubject:     journalPrefix + subject,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: pageIdle,
		MemoryStorage:     true,
		Replicas:          1,
	})
	if err != nil {
		return journalError(err)
	}
	defer c.forget(ctx, JournalStream, consumer.CachedInfo().Name)
	for left := consumer.CachedInfo().NumPending; left > 0; {
		batch, err := consumer.FetchNoWait(int(min(left, journalFetch)))
		if err != nil {
			return journalError(err)
		}
		got := uint64(0)
		for msg := range batch.Messages() {
			meta, err := msg.Metadata()
			if err != nil {
				return fmt.Errorf("read a block's position: %w", err)
			}
			got++
			if !each(meta.Timestamp, msg.Data()) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
		if got == 0 { // what is left was dropped for its age meanwhile, or the connection broke
			return journalError(batch.Error())
		}
		left -= min(left, got)
	}
	return nil
}

// FollowJournal calls each for the blocks that are stored from now on, until ctx ends. It implements [journal.Store].
func (c *Conn) FollowJournal(ctx context.Context, each func(data []byte)) error {
	consumer, err := c.js.OrderedConsumer(ctx, JournalStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{journalPrefix + "*"}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		return journalError(err)
	}
	cc, err := consumer.Consume(func(msg jetstream.Msg) { each(msg.Data()) })
	if err != nil {
		return journalError(err)
	}
	<-ctx.Done()
	cc.Stop()
	<-cc.Closed()
	return nil
}

func journalError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return ErrNoJournal
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// Waits says whether the message of a sequence is still in one of a Broker's streams.
func (c *Conn) Waits(ctx context.Context, stream string, sequence uint64) (bool, error) {
	err := c.request(ctx, "STREAM.MSG.GET."+stream, map[string]any{"seq": sequence}, nil)
	switch {
	case errors.Is(err, ErrNotParked):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for message %d of %s: %w", sequence, stream, err)
	}
	return true, nil
}
