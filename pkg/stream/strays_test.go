package stream

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/event"
)

// A server that was killed at the wrong moment is made by putting back the messages that it had before they were acked.
func TestStraysAreHandedOutAgain(t *testing.T) {
	dir := t.TempDir()
	n := NewNames("default", "live", "uid")
	with := func(do func(*Conn)) {
		srv, err := devserver.Start(devserver.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Stop()
		c, err := Dial(ConnOptions{InProcess: srv, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		do(c)
	}
	// receive takes events until want of them have come, and acks them.
	receive := func(c *Conn, want int) map[string]int {
		got := make(chan string, 10)
		s, err := c.Consume(t.Context(), ConsumeOptions{Stream: n.Events}, func(d *Delivery) {
			got <- d.Event.Value(event.ID)
			d.Ack()
		})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for range want {
			select {
			case id := <-got:
				seen[id]++
			case <-time.After(10 * time.Second):
				t.Fatalf("received %v, want %d events", seen, want)
			}
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	publish := func(c *Conn, ids ...string) {
		for _, id := range ids {
			e := &event.Event{}
			e.Set(event.SpecVersion, "1.0", event.String)
			e.Set(event.ID, id, event.String)
			e.Set(event.Source, "/test", event.String)
			e.Set(event.Type, "test", event.String)
			if err := NewPublisher(c, 0).Publish(t.Context(), n, Message{Event: e, ID: "id of " + id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func(c *Conn) int {
		st, err := c.StreamState(t.Context(), n.Events)
		if err != nil {
			t.Fatal(err)
		}
		return int(st.Messages)
	}

	with(func(c *Conn) {
		if err := c.Ensure(t.Context(), n, Limits{}); err != nil {
			t.Fatal(err)
		}
		publish(c, "a", "b", "c")
	})
	messages := filepath.Join(dir, "jetstream", "$G", "streams", n.Events, "msgs")
	before := filepath.Join(t.TempDir(), "before")
	if err := os.CopyFS(before, os.DirFS(messages)); err != nil {
		t.Fatal(err)
	}
	with(func(c *Conn) { receive(c, 3) })
	if err := os.RemoveAll(messages); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(messages, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}

	with(func(c *Conn) {
		publish(c, "d")
		if got := receive(c, 1); got["d"] != 1 || left(c) != 3 {
			t.Fatalf("received %v and %d are left: the server has learned to deal with strays, so we need not any more", got, left(c))
		}
		o := ConsumeOptions{Stream: n.Events}.withDefaults(c)
		floor, err := c.requeueStrays(t.Context(), o, 0)
		if err != nil {
			t.Fatal(err)
		}
		if left(c) != 3 {
			t.Fatalf("%d are left, but nothing was known of the floor: the server may have been about to remove them", left(c))
		}
		for range 2 { // the second finds nothing
			if _, err := c.requeueStrays(t.Context(), o, floor); err != nil {
				t.Fatal(err)
			}
		}
		if got := receive(c, 3); got["a"] != 1 || got["b"] != 1 || got["c"] != 1 || left(c) != 0 {
			t.Errorf("received %v and %d are left, want each once and none", got, left(c))
		}
	})
}
