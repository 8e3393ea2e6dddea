package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// State counts what a stream holds.
type State struct {
	Messages, Bytes uint64
	// Last is the sequence that was used last, which is how many messages the stream has ever had.
	Last uint64
	// Oldest is when the oldest message was stored; zero if there is none.
	Oldest time.Time
}

// StreamState returns the state of one of a Broker's streams.
func (c *Conn) StreamState(ctx context.Context, name string) (State, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return State{}, fmt.Errorf("look up stream %s: %w", name, err)
	}
	st := s.CachedInfo().State
	return State{Messages: st.Msgs, Bytes: st.Bytes, Last: st.LastSeq, Oldest: st.FirstTime}, nil
}

// SubjectCounts returns how many messages each subject of a stream below the given prefix has.
func (c *Conn) SubjectCounts(ctx context.Context, name, prefix string) (map[string]uint64, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", name, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("count the subjects of stream %s: %w", name, err)
	}
	return info.State.Subjects, nil
}

// PurgeSubject removes all messages of one subject from a stream.
func (c *Conn) PurgeSubject(ctx context.Context, name, subject string) error {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", name, err)
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return fmt.Errorf("purge %s of stream %s: %w", subject, name, err)
	}
	return nil
}

// Oldest returns since when the oldest message of a subject has waited: since it was stored, or as long before as its progress
// says. It is zero if there is none.
func (c *Conn) Oldest(ctx context.Context, name, subject string) (time.Time, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return time.Time{}, fmt.Errorf("look up stream %s: %w", name, err)
	}
	msg, err := s.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, fmt.Errorf("look at the oldest message of %s: %w", subject, err)
	}
	if since := progressOf(msg.Header).Since; !since.IsZero() && since.Before(msg.Time) {
		return since, nil
	}
	return msg.Time, nil
}
