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

// The members of a group have parts of what it divides that add up to all of it; who leaves has its part for a while.
func TestPeersDivide(t *testing.T) {
	server := startServer(t)
	var all []*stream.Peers
	for range 3 {
		all = append(all, join(t, dial(t, server), "x"))
	}
	waitCount(t, 3, all...)
	now := time.Now()
	sum := func(n int, at time.Time, of ...*stream.Peers) (sum int) {
		for _, p := range of {
			part := p.Part(n, at)
			if part < n/3 || part > (n+1)/2 {
				t.Errorf("a part of %d in %d", part, n)
			}
			sum += part
		}
		return sum
	}
	for _, n := range []int{1, 2, 3, 7, 100} {
		if got := sum(n, now, all...); got != n {
			t.Errorf("the parts of %d are %d", n, got)
		}
	}
	if all[0].Settled(now) || !all[0].Settled(now.Add(time.Hour)) {
		t.Error("a member is settled at once, or never")
	}
	all[0].Leave()
	waitCount(t, 2, all[1:]...)
	if got := sum(100, time.Now(), all[1:]...); got > 67 {
		t.Errorf("the parts of those that stay were %d at once", got)
	}
	if got := sum(100, time.Now().Add(time.Minute), all[1:]...); got != 100 {
		t.Errorf("the parts of those that stay are %d", got)
	}
	for _, p := range all[1:] {
		p.Leave()
	}
}
