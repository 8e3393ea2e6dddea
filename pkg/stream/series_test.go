package stream_test

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// numbered returns messages with the numbers from first to before last as ids.
func numbered(first, last int) []stream.Message {
	var msgs []stream.Message
	for i := first; i < last; i++ {
		msgs = append(msgs, stream.Message{Event: newEvent(fmt.Sprint(i), []byte("x")), ID: fmt.Sprint("m", i)})
	}
	return msgs
}

// storedIDs takes n events out of the stream.
func storedIDs(t *testing.T, c *stream.Conn, n *stream.Names, count int) []string {
	t.Helper()
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	var ids []string
	for range count {
		d := receive(t, got)
		d.Ack()
		ids = append(ids, d.Event.Value(event.ID))
	}
	stop(t, s)
	return ids
}

func wantInOrder(t *testing.T, ids []string, count int) {
	t.Helper()
	for i := range count {
		if ids[i] != fmt.Sprint(i) {
			t.Fatalf("event %s is at place %d", ids[i], i)
		}
	}
}

// TestPublishInOrder stores each message once, whichever of them were stored before.
func TestPublishInOrder(t *testing.T) {
	for name, before := range map[string][2]int{
		"none before": {0, 0}, "the first": {0, 10}, "some between": {500, 510}, "the last": {990, 1000}, "all": {0, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			c, n := startBroker(t, stream.Limits{})
			p := stream.NewPublisher(c, 0)
			if stored, err := p.PublishInOrder(t.Context(), n, numbered(before[0], before[1])...); err != nil || stored != before[1]-before[0] {
				t.Fatalf("before: %d are stored, %v", stored, err)
			}
			if stored, err := p.PublishInOrder(t.Context(), n, numbered(0, 1000)...); err != nil || stored != 1000 {
				t.Fatalf("%d are stored, %v", stored, err)
			}
			ids := storedIDs(t, c, n, 1000)
			if name != "some between" && name != "the last" {
				wantInOrder(t, ids, 1000)
			}
			if left := messages(t, c, n.Events); left != 0 {
				t.Errorf("%d are stored twice", left)
			}
			if p.PendingBytes() != 0 {
				t.Errorf("%d bytes still counted as pending", p.PendingBytes())
			}
		})
	}
}

// TestPublishInOrderAgain has what is known pass in series too, wherever in one it ends: the server gives a few answers for each, where it
// would give one for each message.
func TestPublishInOrderAgain(t *testing.T) {
	s := startServer(t)
	c, n := startBrokerIn(t, s, stream.Limits{})
	nc := admin(t, s).Conn()
	answers, err := nc.SubscribeSync("_INBOX.>")
	if err != nil || nc.Flush() != nil {
		t.Fatal(err)
	}
	p := stream.NewPublisher(c, 0)
	publish := func(from, to int) (count int) {
		t.Helper()
		before, _, _ := answers.Pending()
		if stored, err := p.PublishInOrder(t.Context(), n, numbered(from, to)...); err != nil || stored != to-from {
			t.Fatalf("%d to %d: %d are stored, %v", from, to, stored, err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		after, _, _ := answers.Pending()
		return after - before
	}
	publish(0, 1000)
	publish(1000, 1500)
	for _, part := range [][2]int{{0, 1000}, {700, 1200}, {1000, 2000}, {1, 1000}, {1999, 2001}, {1990, 2500}} {
		if count := publish(part[0], part[1]); count > 20 {
			t.Errorf("%d to %d: %d answers", part[0], part[1], count)
		}
	}
	wantInOrder(t, storedIDs(t, c, n, 2500), 2500)
}

// TestPublishInOrderOneByOne stores in a stream that takes no series, as those that were made before there were any.
func TestPublishInOrderOneByOne(t *testing.T) {
	s := startServer(t)
	c, n := startBrokerIn(t, s, stream.Limits{})
	js := admin(t, s)
	old := config(t, js, n.Events)
	old.AllowBatchPublish = false
	if _, err := js.UpdateStream(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	p := stream.NewPublisher(c, 0)
	for _, last := range []int{50, 100} {
		if stored, err := p.PublishInOrder(t.Context(), n, numbered(0, last)...); err != nil || stored != last {
			t.Fatalf("%d are stored, %v", stored, err)
		}
	}
	wantInOrder(t, storedIDs(t, c, n, 100), 100)
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d are stored twice", left)
	}
}

// TestPublishInOrderStops stores nothing behind a message that is not stored, and says how many are.
func TestPublishInOrderStops(t *testing.T) {
	for name, c := range map[string]struct {
		limits stream.Limits
		known  int // how many are stored before
		spoil  int // the message that is made too large
		stored int
		err    error
	}{
		"too large for the server":      {stream.Limits{}, 0, 40, 40, stream.ErrTooLarge},
		"too large for the stream":      {stream.Limits{MaxEventBytes: 4096}, 0, 40, 40, stream.ErrTooLarge},
		"the first too large":           {stream.Limits{MaxEventBytes: 4096}, 0, 0, 0, stream.ErrTooLarge},
		"the last too large":            {stream.Limits{MaxEventBytes: 4096}, 0, 99, 99, stream.ErrTooLarge},
		"full":                          {stream.Limits{MaxMessages: 30}, 0, -1, 30, stream.ErrFull},
		"too large after what is known": {stream.Limits{MaxEventBytes: 4096}, 40, 40, 40, stream.ErrTooLarge},
		"full after what is known":      {stream.Limits{MaxMessages: 30}, 20, -1, 30, stream.ErrFull},
		"full, some known":              {stream.Limits{MaxMessages: 30}, 30, -1, 30, stream.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			conn, n := startBroker(t, c.limits)
			msgs := numbered(0, 100)
			if c.spoil >= 0 {
				size := 8192
				if c.limits.MaxEventBytes == 0 {
					size = int(conn.MaxPayload())
				}
				msgs[c.spoil].Event.Data = make([]byte, size)
			}
			p := stream.NewPublisher(conn, 0)
			if stored, err := p.PublishInOrder(t.Context(), n, msgs[:c.known]...); err != nil || stored != c.known {
				t.Fatalf("before: %d are stored, %v", stored, err)
			}
			stored, err := p.PublishInOrder(t.Context(), n, msgs...)
			if stored != c.stored || !errors.Is(err, c.err) {
				t.Errorf("%d are stored, %v; want %d and %v", stored, err, c.stored, c.err)
			}
			if got := messages(t, conn, n.Events); got != uint64(c.stored) {
				t.Errorf("%d are in the stream, want %d", got, c.stored)
			}
		})
	}
}

// TestPublishInOrderMany has more series under way than the server queues messages for.
func TestPublishInOrderMany(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if stored, err := p.PublishInOrder(t.Context(), n, numbered(i*1000, i*1000+1000)...); stored != 1000 || err != nil {
				t.Errorf("%d are stored, %v", stored, err)
			}
		})
	}
	all.Wait()
	if got := messages(t, c, n.Events); got != 20_000 {
		t.Errorf("%d are in the stream", got)
	}
}

// TestPublishInOrderAway tells that the server is gone, or the stream.
func TestPublishInOrderAway(t *testing.T) {
	s, err := devserver.Start(devserver.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	n := stream.NewNames("a", "b", "c")
	p := stream.NewPublisher(c, 0)
	if stored, err := p.PublishInOrder(t.Context(), n, numbered(0, 10)...); stored != 0 || !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("without a stream: %d are stored, %v", stored, err)
	}
	s.Stop()
	if stored, err := p.PublishInOrder(t.Context(), n, numbered(0, 10)...); stored != 0 || !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("without a server: %d are stored, %v", stored, err)
	}
}
