package devserver

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

// The store never gets what the disk has not, what it has already is never taken from it, and others keep their part.
func TestBoundedStore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<45).Draw(t, "size")
		used := rapid.Int64Range(0, size).Draw(t, "used")
		free := rapid.Int64Range(0, size-used).Draw(t, "free")
		got := boundedStore(used, free, size)
		if got < minStore || got > maxStore {
			t.Fatalf("%d is out of bounds", got)
		}
		if got > minStore && got > used+free-minReserve {
			t.Fatalf("%d of %d leaves less than the reserve", got, used+free)
		}
		if least := min(used+free-maxReserve, maxStore); got < least {
			t.Fatalf("%d: want at least %d", got, least)
		}
	})
}

// A server whose JetStream went off is replaced, on the same port, and clients come back to it.
func TestServerIsReplaced(t *testing.T) {
	t.Parallel()
	s, err := Start(Options{Dir: t.TempDir(), Listen: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	back := make(chan struct{}, 1)
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	first, address := s.server(), s.Addr().String()
	if err := first.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-back:
	case <-time.After(30 * time.Second):
		t.Fatal("no new server")
	}
	if s.server() == first || !s.server().JetStreamEnabled() || s.Addr().String() != address {
		t.Errorf("want a new server with JetStream at %s, got one at %s", address, s.Addr())
	}
}
