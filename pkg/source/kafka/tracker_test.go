package kafka

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTracker settles records in any order and holds the position to being the lowest that nothing unsettled is below.
func TestTracker(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tracker := newTracker()
		next := rapid.Int64Range(0, 5).Draw(t, "start")
		tracker.start(next)
		position := next
		var open []*slot
		var known []*slot
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "add") {
				next += rapid.Int64Range(1, 4).Draw(t, "gap")
				s := tracker.add(next-1, 2, time.Now())
				open, known = append(open, s), append(known, s)
			} else {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				tracker.settle(open[i])
				open = append(open[:i], open[i+1:]...)
			}
			want := position
			for _, s := range known {
				if !s.settled {
					break
				}
				want = s.offset + 1
			}
			if tracker.position != want {
				t.Fatalf("position %d, want %d", tracker.position, want)
			}
			if tracker.oldest().IsZero() != (len(open) == 0) {
				t.Fatalf("%d records are not settled, and the oldest is of %v", len(open), tracker.oldest())
			}
		}
	})
}

// TestTrackerUnknown commits nothing of a partition whose beginning is not known.
func TestTrackerUnknown(t *testing.T) {
	tracker := newTracker()
	if tracker.position >= 0 {
		t.Errorf("position %d before anything is known", tracker.position)
	}
	tracker.start(4)
	tracker.start(9)
	if tracker.position != 4 {
		t.Errorf("position %d, want the first that was set", tracker.position)
	}
}
