package ledger_test

import (
	"context"
	"testing"
	"time"

	"millrace.dev/test/bench/ledger"
)

func TestAccount(t *testing.T) {
	l := ledger.New(2)
	l.Begin(0)
	for range 9000 { // more than a chunk
		seq := l.Send(time.Now())
		l.Receive(0, seq)
		l.Receive(1, seq)
	}
	if a := l.Account(); a.Err() != nil || a.Owed != 18_000 || l.Complete() != 9000 {
		t.Fatalf("got %+v, %d complete", a, l.Complete())
	}
	half := l.Send(time.Now())
	l.Receive(1, half)
	l.Receive(1, half)
	l.Receive(2, half)   // no such subscriber
	l.Receive(0, half+1) // not sent
	want := ledger.Account{Owed: 18_002, Lost: 1, Duplicate: 1, Strays: 2}
	if a := l.Account(); a != want || a.Err() == nil {
		t.Errorf("got %+v, want %+v and an error", a, want)
	}
	if err := l.Await(5 * time.Millisecond); err == nil {
		t.Error("Await does not say that an event is missing")
	}
}

func TestLatencyCountsFromWhenTheEventWasDue(t *testing.T) {
	l := ledger.New(1)
	l.Begin(0)
	l.Receive(0, l.Send(time.Now().Add(-time.Second)))
	if got := l.Latency().Max(); got < 1_000_000 {
		t.Errorf("an event due a second ago took %d µs", got)
	}
	l.Begin(0)
	if n := l.Latency().TotalCount(); n != 0 {
		t.Errorf("%d latencies after Begin", n)
	}
}

func TestWindow(t *testing.T) {
	l := ledger.New(1)
	l.Begin(1)
	if !l.Acquire(t.Context()) {
		t.Fatal("no room in an empty window")
	}
	seq := l.Send(time.Now())
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if l.Acquire(ended) {
		t.Fatal("room in a full window")
	}
	l.Receive(0, seq)
	l.Receive(0, seq) // a duplicate makes no room
	if !l.Acquire(t.Context()) || l.Acquire(ended) {
		t.Error("the window has not room for one more")
	}
}
