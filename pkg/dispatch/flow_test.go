package dispatch

import (
	"testing"
	"testing/synctest"
	"time"
)

// flowUnderTest is a flow with one lane, full, whose subscriber takes each event for as long as every says.
func flowUnderTest(t *testing.T, every time.Duration) (f *flow, full *lane, run func(job)) {
	t.Helper()
	end := make(chan struct{})
	t.Cleanup(func() {
		close(end)
		synctest.Wait()
	})
	run = func(job) {
		select {
		case <-time.After(every):
		case <-end:
		}
	}
	f = newFlow()
	p := &places{limit: DefaultMaxDeliveries}
	full = newLane(p, f)
	full.setMax(1)
	f.begin(time.Now())
	f.offered(full, time.Now())
	events := 0
	for full.offer(job{event: eventOf(1), pins: true}, free{messages: 1 << 20, bytes: 1 << 30}, run) {
		events++
	}
	if events < 2 {
		t.Fatalf("the lane took %d events at once", events)
	}
	return f, full, run
}

// awaitRoom waits as a runner does and reports whether there was room in the end.
func awaitRoom(f *flow, l *lane) bool {
	since := time.Now()
	for {
		l.mu.Lock()
		room := len(l.queue) < l.maxQueue()
		l.mu.Unlock()
		if room {
			return true
		}
		if !f.await(l, since, nil) {
			return false
		}
	}
}

func TestFlowWaitsForAQuickLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l, _ := flowUnderTest(t, goodPace/4)
		start := time.Now()
		if !awaitRoom(f, l) {
			t.Fatal("did not wait")
		}
		if waited := time.Since(start); waited == 0 || waited > goodPace {
			t.Errorf("waited %s for a lane that ends a delivery every %s", waited, goodPace/4)
		}
	})
}

func TestFlowDoesNotWait(t *testing.T) {
	for name, of := range map[string]struct {
		every time.Duration
		alter func(*flow, *lane)
	}{
		"for a slow lane": {every: 3 * goodPace, alter: func(*flow, *lane) { time.Sleep(paceSamples * 3 * goodPace) }},
		"for a lane whose gate is closed": {every: goodPace / 4, alter: func(_ *flow, l *lane) {
			for range gateThreshold {
				l.learn(failing)
			}
		}},
		"while another lane has nothing to do": {every: goodPace / 4, alter: func(f *flow, l *lane) {
			other := newLane(l.places, f)
			other.setMax(1)
			time.Sleep(hungryAfter)
			f.offered(other, time.Now())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, l, run := flowUnderTest(t, of.every)
				of.alter(f, l)
				start := time.Now()
				for l.offer(job{event: eventOf(1), pins: true}, free{messages: 1 << 20, bytes: 1 << 30}, run) {
				}
				if f.await(l, start, nil) || time.Since(start) > 0 {
					t.Errorf("waited %s", time.Since(start))
				}
			})
		})
	}
}

// A lane counts as hungry for as long as it has had room, whatever gave it room.
func TestLaneIsHungryOnceItHadRoom(t *testing.T) {
	for name, of := range map[string]struct{ take, give func(*lane) }{
		"a new one": {func(*lane) {}, func(l *lane) { l.setMax(1) }},
		"its gate opens": {func(l *lane) {
			l.setMax(1)
			for range gateThreshold {
				l.learn(failing)
			}
		}, func(l *lane) { l.learn(healthy) }},
		"places are given back": {func(l *lane) {
			l.setMax(1)
			l.acquire(1)
		}, func(l *lane) { l.release(1) }},
		"more deliveries are allowed": {func(l *lane) {
			l.setMax(1)
			l.acquire(1)
		}, func(l *lane) { l.setMax(2) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(&places{limit: DefaultMaxDeliveries}, newFlow())
				of.take(l)
				time.Sleep(time.Minute)
				if l.hungry(time.Now()) {
					t.Fatal("hungry without room")
				}
				of.give(l)
				if l.hungry(time.Now()) {
					t.Error("hungry at once")
				}
				time.Sleep(hungryAfter)
				if !l.hungry(time.Now()) {
					t.Errorf("not hungry after %s", hungryAfter)
				}
			})
		})
	}
}

// A subscriber that hangs is given up after a while, once, and a lane that was offered nothing for long is not looked after.
func TestFlowGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l, _ := flowUnderTest(t, time.Hour)
		idle := newLane(l.places, f)
		idle.setMax(1)
		f.offered(idle, time.Now().Add(-2*watchFor))
		start := time.Now()
		if awaitRoom(f, l) {
			t.Fatal("there was room")
		}
		if waited := time.Since(start); waited < patience || waited > 2*patience {
			t.Errorf("waited %s, want about %s", waited, patience)
		}
		if len(f.lanes) != 1 {
			t.Errorf("%d lanes are watched, want 1", len(f.lanes))
		}
		if again := time.Now(); awaitRoom(f, l) || time.Since(again) > 0 {
			t.Error("waited again")
		}
	})
}

// Only lanes with events queued are looked at; one is known again when it gets more after it was empty.
func TestFlowKnowsWhereEventsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, l, run := flowUnderTest(t, time.Hour)
		idle := newLane(l.places, f)
		idle.setMax(1)
		for round := range 2 {
			if got := f.queues(); len(got) != 1 || got[0] != l {
				t.Fatalf("round %d: events wait in %d lanes, want the full one alone", round, len(got))
			}
			time.Sleep(maxQueueAge + time.Millisecond)
			if len(l.overdue(time.Now())) == 0 {
				t.Fatalf("round %d: no event is overdue", round)
			}
			if got := f.queues(); len(got) != 0 {
				t.Fatalf("round %d: events wait in %d lanes after all were taken off", round, len(got))
			}
			for !l.offer(job{event: eventOf(1), pins: true}, free{messages: 1 << 20, bytes: 1 << 30}, run) || len(l.queue) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
}
