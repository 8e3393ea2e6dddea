package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

const (
	// concurrency is how many events a redrive or purge works on at a time.
	concurrency = 16
	// eventTimeout bounds the work on one event that was begun.
	eventTimeout = 20 * time.Second
	// maxMissing is how many Triggers that exist no more a result names.
	maxMissing = 10
)

// tally counts what an operation does, for several goroutines.
type tally[T any] struct {
	mu      sync.Mutex
	result  T
	failure error // why the operation cannot go on
}

func (t *tally[T]) count(f func(*T)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.result)
}

// fail records the first reason for which there is no going on.
func (t *tally[T]) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure == nil {
		t.failure = err
	}
}

func (t *tally[T]) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failure
}

// soFar returns the counts at this moment. Events under way are selected and not yet counted as anything else.
func (t *tally[T]) soFar() *T {
	t.mu.Lock()
	defer t.mu.Unlock()
	result := t.result
	return &result
}

// fate is what became of one event of a redrive.
type fate = func(*RedriveResult)

func selected(r *RedriveResult)   { r.Selected++ }
func redriven(r *RedriveResult)   { r.Redriven++ }
func waiting(r *RedriveResult)    { r.Redriven++; r.Waiting++ }
func unreadable(r *RedriveResult) { r.Unreadable++ }
func tooLarge(r *RedriveResult)   { r.TooLarge++ }
func gone(r *RedriveResult)       { r.Gone++ }
func failed(r *RedriveResult)     { r.Failed++ }

// redrive is one redrive under way.
type redrive struct {
	opts   *Options
	broker string // namespace/name
	scan   *scan
	pace   *rate.Limiter

	missing map[string]bool // UIDs in result.Missing
	tally[RedriveResult]
}

func newRedrive(o *Options, b *Broker, s *scan, perSecond float64) *redrive {
	limit := rate.Inf
	if perSecond > 0 {
		limit = rate.Limit(perSecond)
	}
	r := &redrive{opts: o, broker: b.key(), scan: s, pace: rate.NewLimiter(limit, 1), missing: map[string]bool{}}
	r.result.DryRun = s.selector.dryRun
	return r
}

// run works until all is done, ctx ends or the store fails. Events begun with are finished in any case, so that the
// counts are exact.
func (r *redrive) run(ctx context.Context) error {
	var workers errgroup.Group
	workers.SetLimit(concurrency)
	for p, err := range r.scan.events(ctx) {
		if err != nil || !r.next(ctx, &workers, p) {
			r.fail(err)
			break
		}
	}
	_ = workers.Wait() // they report through r
	r.count(func(result *RedriveResult) {
		result.Selected += r.scan.missing
		result.Gone += r.scan.missing
	})
	return r.failed()
}

// next starts the work on one event and reports whether to go on.
func (r *redrive) next(ctx context.Context, workers *errgroup.Group, p *stream.Parked) bool {
	b := r.opts.Catalog()[r.broker]
	if b == nil {
		r.fail(problemf(http.StatusNotFound, "the Broker %s was deleted meanwhile", r.broker))
		return false
	}
	t, ok := b.Triggers[p.TriggerUID]
	if !ok {
		r.keep(p.TriggerUID)
		return true
	}
	done := redriven
	if !t.Ready {
		done = waiting
	}
	if r.scan.selector.dryRun {
		r.pretend(p, done)
		return !r.enough()
	}
	if r.pace.Wait(ctx) != nil {
		r.fail(context.Cause(ctx))
		return false
	}
	r.count(selected)
	sequence := p.Sequence
	workers.Go(func() error {
		r.count(r.one(ctx, sequence, done))
		return nil
	})
	return r.failed() == nil && !r.enough()
}

// pretend counts what would become of the event.
func (r *redrive) pretend(p *stream.Parked, done fate) {
	if p.Event == nil {
		done = unreadable
	}
	r.count(selected)
	r.count(done)
}

// enough reports whether as many events are done, or being done, as the selection wants.
func (r *redrive) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := r.scan.selector.limit
	return limit > 0 && r.result.Selected-r.result.NoTrigger >= limit
}

// one redrives one event. It is stored for delivery first and removed when that is confirmed: a crash in between repeats
// it, under the same message id.
func (r *redrive) one(ctx context.Context, sequence uint64, done fate) fate {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	names := r.scan.names
	// It is read again: since it was listed it may have been redriven or purged.
	p, err := r.opts.Reader.GetParked(ctx, names, sequence)
	switch {
	case errors.Is(err, stream.ErrNotParked):
		return gone
	case err != nil:
		r.fail(err)
		return failed
	case p.Event == nil:
		return unreadable
	}
	_, err = r.opts.Redriver.PublishRetry(ctx, names, p.TriggerUID, stream.Message{Event: original(p), ID: p.RedriveID()}, stream.Progress{})
	switch {
	case errors.Is(err, stream.ErrTooLarge):
		return tooLarge
	case err != nil:
		r.fail(fmt.Errorf("store event %d for delivery: %w", sequence, err))
		return failed
	}
	err = r.opts.Remover.DeleteParked(ctx, names, sequence)
	switch {
	case errors.Is(err, stream.ErrNotParked):
		return gone // somebody else redrives it at the same time, under the same message id
	case err != nil:
		r.fail(fmt.Errorf("event %d is stored for delivery and still parked: %w", sequence, err))
		return failed
	}
	return done
}

// original returns the event as the subscriber is to get it: one that was on its way to a dead letter sink has lost what
// was added for the sink.
func original(p *stream.Parked) *event.Event {
	if !p.Progress.DeadLetter {
		return p.Event
	}
	e := p.Event.Clone()
	for _, name := range []string{
		delivery.ErrorDest, delivery.ErrorCode, delivery.ErrorData, delivery.ErrorAttempts, delivery.ErrorTrigger,
	} {
		e.Remove(name)
	}
	return e
}

// keep counts an event whose Trigger exists no more.
func (r *redrive) keep(triggerUID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Selected++
	r.result.NoTrigger++
	if !r.missing[triggerUID] && len(r.missing) < maxMissing {
		r.missing[triggerUID] = true
		r.result.Missing = append(r.result.Missing, triggerUID)
	}
}

// purge is one purge under way.
type purge struct {
	remover Remover
	scan    *scan
	tally[PurgeResult]
}

func newPurge(o *Options, s *scan) *purge {
	p := &purge{remover: o.Remover, scan: s}
	p.result.DryRun = s.selector.dryRun
	return p
}

// run works until all is done, ctx ends or the store fails. Events begun with are finished in any case.
func (p *purge) run(ctx context.Context) error {
	if p.scan.selector.wholesale() {
		return p.wholesale(ctx)
	}
	var workers errgroup.Group
	workers.SetLimit(concurrency)
	for e, err := range p.scan.events(ctx) {
		if err != nil || !p.next(ctx, &workers, e.Sequence) {
			p.fail(err)
			break
		}
	}
	_ = workers.Wait() // they report through p
	p.count(func(r *PurgeResult) {
		r.Selected += p.scan.missing
		r.Gone += p.scan.missing
	})
	return p.failed()
}

// wholesale leaves the work to the store, for which it is a moment's.
func (p *purge) wholesale(ctx context.Context) error {
	if p.scan.until == 0 {
		return nil
	}
	n, err := p.remover.PurgeParked(ctx, p.scan.names, p.scan.selector.triggerUID, p.scan.until)
	p.count(func(r *PurgeResult) { r.Selected, r.Purged = n, n })
	p.scan.examined, p.scan.total = n, n
	return err
}

// next removes one event and reports whether to go on.
func (p *purge) next(ctx context.Context, workers *errgroup.Group, sequence uint64) bool {
	if ctx.Err() != nil {
		p.fail(context.Cause(ctx))
		return false
	}
	p.count(func(r *PurgeResult) { r.Selected++ })
	if p.scan.selector.dryRun {
		p.count(func(r *PurgeResult) { r.Purged++ })
	} else {
		workers.Go(func() error {
			p.count(p.one(ctx, sequence))
			return nil
		})
	}
	return p.failed() == nil && !p.enough()
}

func (p *purge) enough() bool {
	limit := p.scan.selector.limit
	return limit > 0 && p.soFar().Selected >= limit
}

func (p *purge) one(ctx context.Context, sequence uint64) func(*PurgeResult) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	err := p.remover.DeleteParked(ctx, p.scan.names, sequence)
	switch {
	case errors.Is(err, stream.ErrNotParked):
		return func(r *PurgeResult) { r.Gone++ }
	case err != nil:
		p.fail(err)
		return func(r *PurgeResult) { r.Failed++ }
	default:
		return func(r *PurgeResult) { r.Purged++ }
	}
}
