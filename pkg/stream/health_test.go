package stream_test

import (
	"errors"
	"testing"

	"millrace.dev/pkg/stream"
)

// A stream at its own limit can be written to: its Broker is full, the store is not.
func TestWritableTellsTheStoreFromItsLimit(t *testing.T) {
	t.Parallel()
	c := dial(t, startServer(t))
	n := stream.NewNames("default", "b", "0123456789")
	if err := c.Ensure(t.Context(), n, stream.Limits{MaxMessages: 1}); err != nil {
		t.Fatal(err)
	}
	p := stream.NewPublisher(c, 0)
	if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent("1", nil)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent("2", nil)}); !errors.Is(err, stream.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	c.Verify(n)
	c.Close() // waits for the answer
	if err := c.Writable(n); err != nil {
		t.Errorf("at its limit: %v", err)
	}
}
