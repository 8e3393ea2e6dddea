package dispatch

import "time"

const (
	// gateThreshold is how many attempts in a row must fail in a way that tells of a subscriber in trouble before its
	// gate closes. It is above the attempts that one event makes by default, so that one event alone closes no gate.
	gateThreshold = 20
	// firstProbe is the pause before the first attempt through a closed gate, doubled for each that fails, up to maxProbe.
	firstProbe = 500 * time.Millisecond
	maxProbe   = 10 * time.Second
)

// gate keeps events from a subscriber that is known to be down, so that they wait in the store without spending attempts.
// While it is closed one attempt is let through at a time, and the first that succeeds opens it. It is a pure state
// machine over the times it is given.
type gate struct {
	failures int // in a row
	closed   bool
	probing  bool // an attempt was let through and has not ended
	probeAt  time.Time
	pause    time.Duration
}

// admit reports whether an attempt may be made now; if the gate is closed, the caller has then taken the one probe.
func (g *gate) admit(now time.Time) bool {
	if !g.closed {
		return true
	}
	if g.probing || now.Before(g.probeAt) {
		return false
	}
	g.probing = true
	return true
}

// cancel gives back a probe that came to no attempt.
func (g *gate) cancel() { g.probing = false }

// succeeded notes an attempt that shows the subscriber to be up, whatever it thinks of the event.
func (g *gate) succeeded() { *g = gate{} }

// failed notes an attempt that shows the subscriber to be in trouble.
func (g *gate) failed(now time.Time) {
	g.failures++
	switch {
	case !g.closed && g.failures >= gateThreshold:
		g.closed, g.pause = true, firstProbe
	case g.probing:
		g.pause = min(2*g.pause, maxProbe)
	default:
		return // still open, or a late failure of an attempt from before the gate closed
	}
	g.probing, g.probeAt = false, now.Add(g.pause)
}
