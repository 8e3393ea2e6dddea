package dispatch

import "time"

// rateWindow is how long a window is in which so many deliveries may begin as a Trigger's rate limit has a second. What it is longer than
// a second lets requests take differently long on their way, by up to so much, without more of them arriving in any second.
const rateWindow = 1050 * time.Millisecond

// burstShare is one over the part of a rate limit by which deliveries that were held up may follow each other at once: timers are never
// exact, and what they are late would otherwise be lost.
const burstShare = 50

// spacing spaces deliveries so that in each rateWindow no more than a number of them begin, whenever it begins: the first as
// well, as there is no credit to begin with. It is a pure state machine over the times it is given.
type spacing struct {
	rate int // deliveries in a rateWindow; 0 for none
	// every is the time between two deliveries, slack how much earlier one may begin after others were late.
	every, slack time.Duration
	// next is when the next is due.
	next time.Time
	// waiting deliveries were admitted and have not begun.
	waiting int
}

// set changes the rate at a time. No credit is taken over.
func (s *spacing) set(rate int, now time.Time) {
	if rate == s.rate {
		return
	}
	s.rate, s.every, s.slack = rate, 0, 0
	if rate == 0 {
		return
	}
	// Of burst deliveries at once and one each interval after them, at most burst-1 and what fits in between begin in a window.
	burst := 1 + rate/burstShare
	s.every = (rateWindow + time.Duration(rate-burst)) / time.Duration(rate-burst+1)
	s.slack = time.Duration(burst-1) * s.every
	if earliest := now.Add(s.slack); s.next.Before(earliest) {
		s.next = earliest
	}
}

// admit reports whether another delivery may wait for its time, which is to come within patience.
func (s *spacing) admit(now time.Time, patience time.Duration) bool {
	if s.rate == 0 {
		return false
	}
	if s.next.Add(time.Duration(s.waiting)*s.every - s.slack).After(now.Add(patience)) {
		return false
	}
	s.waiting++
	return true
}

// cancel takes back so many of what admit admitted.
func (s *spacing) cancel(n int) { s.waiting = max(0, s.waiting-n) }

// begin reports how long the next of the waiting deliveries still has to wait; if that is 0 it has begun.
func (s *spacing) begin(now time.Time) time.Duration {
	if wait := s.next.Add(-s.slack).Sub(now); wait > 0 {
		return wait
	}
	if s.next.Before(now) {
		s.next = now
	}
	s.next = s.next.Add(s.every)
	s.cancel(1)
	return 0
}
