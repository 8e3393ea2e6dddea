package stream_test

import (
	"testing"
	"time"

	"millrace.dev/pkg/stream"
)

func join(t testing.TB, c *stream.Conn, group string) *stream.Peers {
	t.Helper()
	p, err := c.Join(group)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func waitCount(t testing.TB, want int, all ...*stream.Peers) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, p := range all {
		for p.Count() != want {
			if time.Now().After(deadline) {
				t.Fatalf("a process knows of %d, want %d", p.Count(), want)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Processes know of each other at once, and of one that leaves or dies soon.
func TestPeersAreCounted(t *testing.T) {
	server := startServer(t)
	killed := dial(t, server)
	a, b, c := join(t, dial(t, server), "x"), join(t, dial(t, server), "x"), join(t, killed, "x")
	other := join(t, dial(t, server), "y")
	waitCount(t, 3, a, b, c)
	waitCount(t, 1, other)
	b.Leave()
	waitCount(t, 2, a, c)
	killed.Close() // without a word
	waitCount(t, 1, a)
	for _, p := range []*stream.Peers{a, c, other} {
		p.Leave()
	}
}
