package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"millrace.dev/pkg/stream"
)

const (
	// provisionRetry is the pause after the store could not be asked, refusalRetry that after it said no.
	provisionRetry, refusalRetry = 500 * time.Millisecond, 10 * time.Second
	// verifyEvery is how often it is checked that streams are still there and can be written to: people delete them, and
	// disks get lost or full.
	verifyEvery = 15 * time.Second
	// sweepEvery is how often streams are looked for that no Broker wants.
	sweepEvery = time.Minute
	// DefaultSweepGrace is how long nobody must have wanted a stream before it is deleted.
	DefaultSweepGrace = time.Hour
)

// brokerStreams are a Broker's streams as they are to be.
type brokerStreams struct {
	names  *stream.Names
	limits stream.Limits
}

func (b brokerStreams) key() string { return b.names.Namespace + "/" + b.names.Name }

// streamsState is what is known of a Broker's streams.
type streamsState struct {
	limits  stream.Limits // those last asked for
	there   bool          // they exist, as of the last look
	written bool          // the limits were written, as far as the store permits
	err     error         // why the last look was not all it should be; nil if it was
	next    time.Time     // when to look again
	warned  int64         // the max_payload that was warned of
}

// refused says that the streams are missing for a reason that is their Broker's alone.
func (s *streamsState) refused() bool {
	return errors.Is(s.err, errNotMade) || errors.Is(s.err, stream.ErrRefused) && !errors.Is(s.err, stream.ErrUnavailable)
}

// errNotMade says that the streams are not there, and are for somebody else to make. Like a refusal it keeps no other
// Broker from being served.
var errNotMade = errors.New("the controller has not made the streams yet")

// provisioner makes sure that the streams of all Brokers exist, or only looks where a controller makes them. It tries for ever: NATS may
// come later than we do, and go.
type provisioner struct {
	conn *stream.Conn
	log  *slog.Logger
	wake chan struct{}
	// observe leaves it to somebody else to make streams.
	observe bool
	// grace, if not 0, is how long nobody must have wanted a stream before it is deleted; 0 deletes none.
	grace time.Duration
	swept time.Time

	mu     sync.Mutex
	want   []brokerStreams
	sure   bool // want is complete: no Broker is missing because of a mistake
	states map[string]*streamsState
}

// newProvisioner returns a provisioner whose conn is to be set before it runs. It deletes streams that nobody wants for
// the grace time, or none if that is 0.
func newProvisioner(log *slog.Logger, grace time.Duration) *provisioner {
	return &provisioner{log: log, grace: grace, wake: make(chan struct{}, 1), states: map[string]*streamsState{}}
}

// apply sets the streams that are wanted. sure says that they are all that is wanted.
func (p *provisioner) apply(want []brokerStreams, sure bool) {
	p.mu.Lock()
	p.want, p.sure = want, sure
	states := make(map[string]*streamsState, len(want))
	for _, w := range want {
		s := p.states[w.names.Events]
		if s == nil {
			s = &streamsState{}
		}
		if s.limits != w.limits {
			s.limits, s.next, s.written, s.warned = w.limits, time.Time{}, false, 0
		}
		states[w.names.Events] = s
	}
	p.states = states
	p.mu.Unlock()
	p.signal()
}

// recheck has all streams looked at anew, for NATS may have come back without them.
func (p *provisioner) recheck() {
	p.mu.Lock()
	for _, s := range p.states {
		s.next = time.Time{}
	}
	p.mu.Unlock()
	p.signal()
}

func (p *provisioner) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ready reports whether the Broker's streams exist.
func (p *provisioner) ready(n *stream.Names) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.states[n.Events]
	return s != nil && s.there
}

// check is nil if all streams exist, but for those that the store refuses: one Broker's impossible wish must not take
// the others out of service. If it refuses all of them, that is an error.
func (p *provisioner) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refused error
	usable := 0
	for _, w := range p.want {
		s := p.states[w.names.Events]
		switch {
		case s.there:
			usable++
		case s.refused():
			refused = fmt.Errorf("broker %s: %w", w.key(), s.err)
		case s.err != nil:
			return fmt.Errorf("broker %s: %w", w.key(), s.err)
		default:
			return fmt.Errorf("broker %s: its streams are not there yet", w.key())
		}
	}
	if usable == 0 {
		return refused
	}
	return nil
}

// writable is nil if the store takes events. A full disk takes the process out of service even if only one Broker has met
// it yet: the others will, and the server must be restarted. Any other fault does so if it is every Broker's. That a
// stream has reached its own limit is no fault.
func (p *provisioner) writable() error {
	p.mu.Lock()
	want := p.want
	p.mu.Unlock()
	var fault error
	usable := len(want) == 0
	for _, w := range want {
		switch err := p.conn.Writable(w.names); {
		case err == nil:
			usable = true
		case errors.Is(err, stream.ErrNoSpace):
			return fmt.Errorf("broker %s: %w", w.key(), err)
		default:
			fault = fmt.Errorf("broker %s: %w", w.key(), err)
		}
	}
	if usable {
		return nil
	}
	return fault
}

// faults are the Brokers whose streams are not as they should be, with the reason, unless it is that the store cannot be
// asked.
func (p *provisioner) faults() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[string]string{}
	for _, w := range p.want {
		if s := p.states[w.names.Events]; s.err != nil && !errors.Is(s.err, stream.ErrUnavailable) {
			found["broker "+w.key()] = s.err.Error()
		} else if err := p.conn.Writable(w.names); err != nil {
			found["broker "+w.key()] = err.Error()
		}
	}
	return found
}

// run provisions until ctx ends.
func (p *provisioner) run(ctx context.Context) error {
	for {
		next := p.round(ctx)
		p.sweep(ctx)
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-p.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// round looks at all streams that are due and returns when the next are.
func (p *provisioner) round(ctx context.Context) time.Time {
	next := time.Now().Add(verifyEvery)
	p.mu.Lock()
	want := p.want
	p.mu.Unlock()
	for _, w := range want {
		if at := p.look(ctx, w); at.Before(next) {
			next = at
		}
	}
	return next
}

// look makes sure of one Broker's streams, if it is time to, and returns when to look again.
func (p *provisioner) look(ctx context.Context, w brokerStreams) time.Time {
	p.mu.Lock()
	s := p.states[w.names.Events]
	if s == nil || s.limits != w.limits || time.Now().Before(s.next) {
		next := time.Now().Add(verifyEvery)
		if s != nil {
			next = s.next
		}
		p.mu.Unlock()
		return next
	}
	written, before := s.written, s.err
	p.mu.Unlock()

	err := p.provide(ctx, w, written)
	p.conn.Verify(w.names)
	p.report(ctx, w, before, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.err = err
	s.there = err == nil || !errors.Is(err, stream.ErrUnavailable) && !s.refused()
	if s.limits != w.limits { // others were asked for meanwhile
		return time.Now()
	}
	s.written = written && s.there || err == nil
	p.warnOfPayload(ctx, w, s)
	s.next = time.Now().Add(pauseAfter(err))
	return s.next
}

func pauseAfter(err error) time.Duration {
	switch {
	case err == nil:
		return verifyEvery
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, errNotMade):
		return provisionRetry
	default:
		return refusalRetry
	}
}

// provide makes the streams, or only checks that they are there still: limits are written once, so that two processes
// with different defaults do not undo each other's work for ever.
func (p *provisioner) provide(ctx context.Context, w brokerStreams, written bool) error {
	if written || p.observe {
		exist, err := p.conn.Exist(ctx, w.names)
		switch {
		case err != nil || exist:
			return err
		case p.observe:
			return errNotMade
		}
		p.log.WarnContext(ctx, "streams of a broker are gone; making them anew", slog.String("broker", w.key()))
	}
	return p.conn.Ensure(ctx, w.names, w.limits)
}

// report logs an error that is new.
func (p *provisioner) report(ctx context.Context, w brokerStreams, before, now error) {
	if now == nil || ctx.Err() != nil || before != nil && before.Error() == now.Error() {
		return
	}
	p.log.WarnContext(ctx, "the streams of a broker are not as they should be; trying again",
		slog.String("broker", w.key()), slog.Any("error", now))
}

// warnOfPayload warns once of a NATS server that takes only smaller messages than the Broker allows. The caller holds mu.
func (p *provisioner) warnOfPayload(ctx context.Context, w brokerStreams, s *streamsState) {
	have, need := p.conn.MaxPayload(), stream.RequiredPayload(w.limits)
	if have == 0 || have >= need || s.warned == have {
		return
	}
	s.warned = have
	p.log.WarnContext(ctx, "NATS takes smaller messages than the broker allows; larger events are answered 413 until max_payload is raised",
		slog.String("broker", w.key()), slog.Int64("max_payload", have), slog.Int64("needed", need))
}

// sweep deletes streams that nobody wants, if that is asked for.
func (p *provisioner) sweep(ctx context.Context) {
	p.mu.Lock()
	want, sure := p.want, p.sure
	p.mu.Unlock()
	if p.grace <= 0 || !sure || time.Since(p.swept) < min(sweepEvery, p.grace) {
		return
	}
	p.swept = time.Now()
	keep := make([]*stream.Names, len(want))
	for i, w := range want {
		keep[i] = w.names
	}
	deleted, err := p.conn.Sweep(ctx, keep, p.grace)
	for _, name := range deleted {
		p.log.InfoContext(ctx, "deleted a stream that no broker wants", slog.String("stream", name))
	}
	if err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "cannot look for streams that no broker wants; trying again", slog.Any("error", err))
	}
}
