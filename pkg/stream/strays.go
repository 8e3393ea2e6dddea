package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// strayAge is how long a message must have been one that the consumer takes for acked before it counts as a stray. In a
// cluster the server removes such messages itself, after half a minute.
const strayAge = time.Minute

// reclaim looks for strays until the consumption stops.
//
// A server that runs alone and is killed may have written that a message is acked, but not that it is removed. Such a
// message is below the consumer's ack floor, so it is never handed out again, and stays in the work queue for ever: it
// pins its block of storage, counts against the limit, and makes the backlog look old.
func (s *Consumption) reclaim() {
	tick := time.NewTicker(strayAge)
	defer tick.Stop()
	var floor uint64
	for {
		select {
		case <-s.base.Done():
			return
		case <-tick.C:
		}
		now, err := s.conn.requeueStrays(s.base, s.opts, floor)
		if err != nil {
			s.opts.Logger.Debug("cannot look for messages left behind", slog.String("stream", s.opts.Stream), slog.Any("error", err))
			continue
		}
		floor = now
	}
}

// requeueStrays stores the strays of a consumer again, so that they are handed out like new ones, and returns the
// consumer's ack floor of now, which is to be the floor of the next call. Messages above the given floor are left alone:
// the server may be about to remove them.
//
// Most strays were settled, and to repeat them is what a killed server may do. To remove them instead would rely on the
// consumer's state where it contradicts that of the stream, and lose an event if it is the former that is wrong.
func (c *Conn) requeueStrays(ctx context.Context, o ConsumeOptions, floor uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, strayAge/2)
	defer cancel()
	st, err := c.js.Stream(ctx, o.Stream)
	if err != nil {
		return 0, fmt.Errorf("look up stream %s: %w", o.Stream, err)
	}
	consumer, err := st.Consumer(ctx, o.Name)
	if err != nil {
		return 0, fmt.Errorf("look up consumer %s of %s: %w", o.Name, o.Stream, err)
	}
	now := consumer.CachedInfo().AckFloor.Stream
	until := min(floor, now) // a consumer made anew begins at 0 again
	filter := o.FilterSubject
	if filter == "" {
		filter = ">"
	}
	for next := st.CachedInfo().State.FirstSeq; next <= until; {
		msg, err := st.GetMsg(ctx, next, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence > until {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("look for strays in %s: %w", o.Stream, err)
		}
		if err := c.requeue(ctx, st, msg); err != nil {
			return 0, fmt.Errorf("requeue message %d of %s: %w", msg.Sequence, o.Stream, err)
		}
		o.Logger.WarnContext(ctx, "a message was left behind in the store and is queued again",
			slog.String("stream", o.Stream), slog.Uint64("sequence", msg.Sequence))
		next = msg.Sequence + 1
	}
	return now, nil
}

// requeue moves a message to the end of its stream. Its id makes sure that several processes, or one that is killed in
// between, store one copy.
func (c *Conn) requeue(ctx context.Context, st jetstream.Stream, stray *jetstream.RawStreamMsg) error {
	msg := &nats.Msg{Subject: stray.Subject, Header: nats.Header{}, Data: stray.Data}
	for name, values := range stray.Header {
		if !strings.HasPrefix(name, "Nats-") { // what it asked of the server was for the time when it was stored first
			msg.Header[name] = values
		}
	}
	msg.Header.Set(nats.MsgIdHdr, "stray/"+strconv.FormatUint(stray.Sequence, 10))
	if _, err := c.js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("store it again: %w", err)
	}
	if err := st.DeleteMsg(ctx, stray.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		return fmt.Errorf("remove it: %w", err)
	}
	return nil
}
