package dispatch

import (
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

func eventOf(bytes int) *event.Event { return &event.Event{Data: make([]byte, bytes)} }

// Lanes that take what they may and give nothing back, one after the other, leave the next one room.
func TestStuckLanesLeaveRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 1<<12).Draw(t, "size")
		stuck := rapid.IntRange(1, 16).Draw(t, "stuck lanes")
		b := newBudget(1 << 18)
		for range stuck {
			var held atomic.Int64
			for b.takeFor(&held, eventOf(size)) {
			}
		}
		var next atomic.Int64
		if !b.takeFor(&next, eventOf(size)) {
			t.Fatalf("%d stuck lanes with events of %d bytes left nothing of %d", stuck, size, b.limit)
		}
	})
}

// What a lane is told that it may take, it then gets.
func TestAffordableEventsAreTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBudget(rapid.Int64Range(1<<10, 1<<20).Draw(t, "limit"))
		var others, held atomic.Int64
		for range rapid.IntRange(0, 50).Draw(t, "taken by others") {
			b.takeFor(&others, eventOf(1<<10))
		}
		size := rapid.IntRange(1, 1<<14).Draw(t, "size")
		for range rapid.IntRange(0, 5).Draw(t, "taken before") {
			b.takeFor(&held, eventOf(size))
		}
		for i, n := 0, b.affords(held.Load(), int64(size)); i < n; i++ {
			if !b.takeFor(&held, eventOf(size)) {
				t.Fatalf("event %d of %d was not to be had", i+1, n)
			}
		}
	})
}

func TestFreePermitsPartOfWhatIsLeft(t *testing.T) {
	left := free{messages: 10, bytes: 1000}
	for _, c := range []struct {
		messages, bytes, size int64
		want                  bool
	}{
		{0, 0, 250, true},
		{0, 0, 251, false},
		{4, 100, 150, true},
		{5, 100, 1, false},
	} {
		if got := left.permits(c.messages, c.bytes, c.size); got != c.want {
			t.Errorf("a lane with %d messages and %d bytes may have %d more: %v, want %v", c.messages, c.bytes, c.size, got, c.want)
		}
	}
	if (free{}).permits(0, 0, 1) {
		t.Error("a lane may have what is not there")
	}
}

// Lanes that take all the places they may and never give one back leave every other lane one, and together take little more
// than there are.
func TestStuckLanesLeavePlaces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &places{limit: rapid.Int64Range(1, 1<<12).Draw(t, "limit")}
		lanes := rapid.IntRange(1, 300).Draw(t, "lanes")
		for range lanes {
			l := newLane(p, newFlow())
			l.setMax(DefaultMaxConcurrency)
			got, _ := l.acquire(DefaultMaxConcurrency)
			if got < 1 {
				t.Fatal("a lane got no place at all")
			}
			if more, _ := l.acquire(DefaultMaxConcurrency); more > 0 && l.active > int(p.limit)/placePart {
				t.Fatalf("a lane got %d places of %d", l.active, p.limit)
			}
		}
		if taken := p.taken.Load(); taken > p.limit+int64(lanes) {
			t.Fatalf("%d lanes took %d places of %d", lanes, taken, p.limit)
		}
	})
}

// A Trigger alone that asks for ten times the default concurrency gets it.
func TestPlacesSufficeForOneTrigger(t *testing.T) {
	const most = 10 * DefaultMaxConcurrency
	l := newLane(&places{limit: DefaultMaxDeliveries}, newFlow())
	l.setMax(most)
	for total := 0; total < most; {
		got, _ := l.acquire(1)
		if total += got; got == 0 {
			t.Fatalf("got %d places of %d, want %d", total, DefaultMaxDeliveries, most)
		}
	}
}

func TestPlacesComeBack(t *testing.T) {
	p := &places{limit: 100}
	l := newLane(p, newFlow())
	l.setMax(100)
	got, _ := l.acquire(100)
	l.release(got)
	if p.taken.Load() != 0 || got != 50 {
		t.Errorf("got %d places, want half of 100; %d are taken at the end, want 0", got, p.taken.Load())
	}
}
