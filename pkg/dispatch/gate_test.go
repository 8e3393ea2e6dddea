package dispatch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestGateClosesAfterFailuresInARowAndProbes(t *testing.T) {
	now := time.Unix(0, 0)
	var g gate
	for range gateThreshold - 1 {
		g.failed(now)
	}
	if !g.admit(now) {
		t.Fatal("closed too early")
	}
	g.succeeded()
	for range gateThreshold {
		if !g.admit(now) {
			t.Fatal("a success did not start the count anew")
		}
		g.failed(now)
	}
	pause := firstProbe
	for range 10 {
		if g.admit(now.Add(pause - 1)) {
			t.Fatalf("admitted before the probe was due after %s", pause)
		}
		now = now.Add(pause)
		if !g.admit(now) {
			t.Fatalf("no probe after %s", pause)
		}
		if g.admit(now.Add(time.Hour)) {
			t.Fatal("a second probe beside the first")
		}
		g.failed(now)
		pause = min(2*pause, maxProbe)
	}
	if pause != maxProbe {
		t.Errorf("the pause grew to %s only", pause)
	}
	now = now.Add(pause)
	if !g.admit(now) {
		t.Fatal("no probe")
	}
	g.succeeded()
	for range 2 {
		if !g.admit(now) {
			t.Error("still closed after a success")
		}
	}
}

func TestGateIgnoresLateFailuresAndCanceledProbes(t *testing.T) {
	now := time.Unix(0, 0)
	var g gate
	for range gateThreshold {
		g.failed(now)
	}
	at := g.probeAt
	g.failed(now.Add(100 * time.Millisecond)) // an attempt from before the gate closed
	if g.probeAt != at {
		t.Error("a late failure moved the probe")
	}
	if !g.admit(at) {
		t.Fatal("no probe")
	}
	g.cancel()
	if !g.admit(at) {
		t.Error("a canceled probe was not given back")
	}
}

func TestLaneWidthFollowsTheSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(&places{limit: DefaultMaxDeliveries}, newFlow())
		l.setMax(100)
		l.learn(overloaded)
		l.learn(overloaded) // at the same moment: counts once
		if w := l.state().width; w != 70 {
			t.Errorf("width %d after one slow-down, want 70", w)
		}
		for range 50 {
			time.Sleep(slowDownPause)
			l.learn(overloaded)
			l.learn(healthy) // keeps the gate open
		}
		if w := l.state().width; w > 4 || w < 1 {
			t.Errorf("width %d after many slow-downs, want 1 to 4", w)
		}
		for range 6000 {
			l.learn(healthy)
		}
		if w := l.state().width; w != 100 {
			t.Errorf("width %d after recovering, want 100", w)
		}
		l.setMax(10)
		if w := l.state().width; w != 10 {
			t.Errorf("width %d after the maximum fell to 10", w)
		}
		l.setMax(50)
		if w := l.state().width; w != 50 {
			t.Errorf("width %d after the maximum rose to 50", w)
		}
	})
}

func TestFailingWithoutOverloadKeepsTheWidth(t *testing.T) {
	l := newLane(&places{limit: DefaultMaxDeliveries}, newFlow())
	l.setMax(100)
	for range gateThreshold {
		l.learn(failing)
	}
	if s := l.state(); s.width != 100 || !s.closed {
		t.Errorf("%+v, want width 100 and the gate closed", s)
	}
}

func TestBacklogGetsItsShareOfTheLane(t *testing.T) {
	l := newLane(&places{limit: DefaultMaxDeliveries}, newFlow())
	l.setMax(10)
	l.setBehind(true)
	if got := l.share(); got != 5 {
		t.Errorf("new events may take %d places of 10 while a backlog waits, want 5", got)
	}
	if got, open := l.acquire(100); got != 10 || !open {
		t.Errorf("the backlog got %d places (open %v), want 10", got, open)
	}
	l.release(10)
	l.setMax(1)
	if got := l.share(); got != 1 {
		t.Errorf("new events may take %d places of 1, want 1", got)
	}
}
