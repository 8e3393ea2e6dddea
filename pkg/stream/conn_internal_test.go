package stream

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"
)

// The defaults of nats.go give up for good after two minutes without a server and hold back what is published meanwhile.
func TestConnectionNeverGivesUpAndBuffersNothing(t *testing.T) {
	// Nobody listens on this port: that must not be an error either.
	c, err := Dial(ConnOptions{URL: "nats://127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o := c.nc.Opts
	if o.MaxReconnect != -1 || !o.AllowReconnect || !o.RetryOnFailedConnect {
		t.Errorf("MaxReconnect %d, AllowReconnect %v, RetryOnFailedConnect %v: want -1, true, true",
			o.MaxReconnect, o.AllowReconnect, o.RetryOnFailedConnect)
	}
	if o.ReconnectBufSize != -1 {
		t.Errorf("ReconnectBufSize %d, want -1", o.ReconnectBufSize)
	}
	if o.FlusherTimeout <= 0 || o.FlusherTimeout >= ackTimeout {
		t.Errorf("a stuck write is given up after %s, want less than %s", o.FlusherTimeout, ackTimeout)
	}
	if c.Connected() || c.nc.Status() == nats.CLOSED {
		t.Errorf("status %s", c.nc.Status())
	}
}
