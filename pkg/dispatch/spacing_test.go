package dispatch

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// most is the largest number of times in any window so long, its end not included.
func most(times []time.Time, window time.Duration) (n int) {
	slices.SortFunc(times, time.Time.Compare)
	for from, to := 0, 0; to < len(times); to++ {
		for times[to].Sub(times[from]) >= window {
			from++
		}
		n = max(n, to-from+1)
	}
	return n
}

// Whatever the rate, whenever deliveries come and however late they are woken, no window has more of them than the rate; and as long as
// deliveries wait, the rate is nearly reached.
func TestSpacingHoldsInEveryWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spacing
		rate := rapid.IntRange(1, 300).Draw(t, "rate")
		now := time.Unix(0, 0)
		s.set(rate, now)
		var begun []time.Time
		for range rapid.IntRange(1, 1500).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0: // nothing comes for a while
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "pause")))
			default:
				if !s.admit(now, maxQueueAge) {
					now = now.Add(s.every / 4)
					continue
				}
				for wait := s.begin(now); wait > 0; wait = s.begin(now) {
					now = now.Add(wait + time.Duration(rapid.Int64Range(0, int64(20*time.Millisecond)).Draw(t, "late")))
				}
				begun = append(begun, now)
			}
			if s.waiting != 0 {
				t.Fatalf("%d wait, want none", s.waiting)
			}
		}
		if n := most(begun, rateWindow); n > rate {
			t.Fatalf("%d in a window, want %d", n, rate)
		}
	})
}

// A rate that falls holds from its first window on, and one that rises brings no burst.
func TestSpacingChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spacing
		now := time.Unix(0, 0)
		for range rapid.IntRange(1, 5).Draw(t, "rates") {
			rate := rapid.IntRange(1, 200).Draw(t, "rate")
			s.set(rate, now)
			var begun []time.Time
			for end := now.Add(2 * rateWindow); now.Before(end); {
				if s.admit(now, time.Hour) {
					now = now.Add(max(0, s.begin(now)))
					if s.waiting > 0 {
						s.begin(now)
					}
					begun = append(begun, now)
				}
			}
			if n := most(begun, rateWindow); n > rate || n < rate*9/10 {
				t.Fatalf("%d in a window, want nearly %d", n, rate)
			}
		}
	})
}

// Deliveries of a lane that is limited begin in their turn, whatever comes at a time, and those that would wait long do not get in.
func TestLaneKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(&places{limit: 1000}, newFlow())
		l.setPart(part{concurrency: 100, limited: true, rate: 40}, time.Now())
		var mu sync.Mutex
		var begun []time.Time
		refused := 0
		run := func(job) {
			l.turn(nil)
			mu.Lock()
			begun = append(begun, time.Now())
			mu.Unlock()
			time.Sleep(30 * time.Millisecond)
		}
		for range 50 {
			for range 20 {
				if !l.offer(job{event: eventOf(1)}, free{}, run) {
					refused++
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := most(begun, time.Second); n > 40 || len(begun) < 5*35 || len(begun)+refused != 50*20 {
			t.Errorf("%d in a second, %d in all, %d refused", n, len(begun), refused)
		}
		if l.active != 0 || l.spacing.waiting != 0 || len(l.queue) != 0 {
			t.Errorf("%d are left active, %d waiting, %d queued", l.active, l.spacing.waiting, len(l.queue))
		}
	})
}

// Who waits for its turn when its lane is paused, or loses its part, does not begin.
func TestPauseKeepsThoseThatWaitForTheirTurn(t *testing.T) {
	for name, stop := range map[string]func(*lane){
		"paused": func(l *lane) { l.setPaused(true) },
		"idle":   func(l *lane) { l.setPart(part{concurrency: 9, limited: true}, time.Now()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane(&places{limit: 1000}, newFlow())
				l.setPart(part{concurrency: 9, limited: true, rate: 10}, time.Now())
				var mu sync.Mutex
				began, kept := 0, 0
				run := func(job) {
					ok := l.turn(nil)
					mu.Lock()
					defer mu.Unlock()
					if ok {
						began++
					} else {
						kept++
					}
				}
				for range 3 {
					l.offer(job{event: eventOf(1)}, free{}, run)
				}
				synctest.Wait()
				stop(l)
				time.Sleep(time.Minute)
				synctest.Wait()
				if began != 1 || kept != 2 || l.active != 0 {
					t.Errorf("%d began and %d did not, want 1 and 2; %d active", began, kept, l.active)
				}
			})
		})
	}
}
