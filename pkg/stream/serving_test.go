package stream_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/pkg/stream"
)

// TestObserverAsksEveryMember asks a group of which one member lags behind, one does not answer, and one dies.
func TestObserverAsksEveryMember(t *testing.T) {
	server := startServer(t)
	observer, err := dial(t, server).Observe("x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(observer.Close)
	want := stream.Version{UID: "u", State: "2"}
	if _, _, err := observer.Ask(t.Context(), want, time.Second); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("asked at once: %v, want that not every member can be known", err)
	}
	// waitAnswer waits until the question has that answer, each time with a good deal of patience.
	waitAnswer := func(what string, wantMembers, wantBehind int) {
		t.Helper()
		var members, behind int
		var err error
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if members, behind, err = observer.Ask(t.Context(), want, 200*time.Millisecond); err == nil && members == wantMembers && behind == wantBehind {
				return
			}
		}
		t.Fatalf("%s: %d members, %d behind, error %v; want %d and %d", what, members, behind, err, wantMembers, wantBehind)
	}
	waitAnswer("nobody there", 0, 0)

	var lags atomic.Bool
	lags.Store(true)
	answer := func(p *stream.Peers, serves func(stream.Version) bool) {
		if err := p.Answer(serves); err != nil {
			t.Fatal(err)
		}
	}
	killed := dial(t, server)
	up, behind, mute := join(t, dial(t, server), "x"), join(t, dial(t, server), "x"), join(t, killed, "x")
	other := join(t, dial(t, server), "y")
	answer(up, func(v stream.Version) bool { return v == want })
	answer(behind, func(v stream.Version) bool { return v == want && !lags.Load() })
	answer(other, func(stream.Version) bool { return false }) // of another group
	waitAnswer("one lags and one is mute", 3, 2)
	lags.Store(false)
	waitAnswer("one is mute", 3, 1)
	killed.Close()
	waitAnswer("the mute one is dead", 2, 0)
	waitCount(t, 2, up, behind) // an observer is no member
	up.Leave()
	waitAnswer("one has left", 1, 0)
	behind.Leave()
	waitAnswer("all have left", 0, 0)
	mute.Leave()
	other.Leave()
}

// TestObserverGathersReports asks a group of which one member does not know the object.
func TestObserverGathersReports(t *testing.T) {
	server := startServer(t)
	observer, err := dial(t, server).Observe("x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(observer.Close)
	if _, _, err := observer.Reports(t.Context(), "u", time.Second); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("asked at once: %v, want that not every member can be known", err)
	}
	for _, report := range []string{"fine", "two\nlines", ""} {
		p := join(t, dial(t, server), "x")
		t.Cleanup(p.Leave)
		if err := p.Report(func(uid string) []byte {
			if uid != "u" || report == "" {
				return nil
			}
			return []byte(report)
		}); err != nil {
			t.Fatal(err)
		}
	}
	var members int
	var reports [][]byte
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if members, reports, err = observer.Reports(t.Context(), "u", 5*time.Second); err == nil && members == 3 {
			break
		}
	}
	var got []string
	for _, report := range reports {
		got = append(got, string(report))
	}
	slices.Sort(got)
	if err != nil || members != 3 || !slices.Equal(got, []string{"fine", "two\nlines"}) {
		t.Errorf("%d members, reports %q, error %v", members, got, err)
	}
}
