package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

const (
	// startRetry is the pause before consuming is tried again, for example because the stream is not there yet.
	startRetry = 50 * time.Millisecond
	// heldRetry is the pause before a delivery is looked at again whose Trigger is not in effect.
	heldRetry = 15 * time.Second
	// maxRematches is how often an event is matched again whose evaluation ran out of time, rematchDelay the pause before.
	maxRematches = 3
	rematchDelay = 100 * time.Millisecond
	// busyRetry is the pause before a due retry that found its lane full is looked at again.
	busyRetry = 250 * time.Millisecond
)

// target is a Trigger with its lane: what a match in the table leads to.
type target struct {
	*Trigger
	lane *lane
	key  string // namespace/name
}

// view is what a runner serves at one moment. It is immutable.
type view struct {
	table *trigger.Table[*target]
	byUID map[string]*target
	held  map[string]bool
}

// runner serves one Broker.
type runner struct {
	opts  Options
	names *stream.Names
	log   *slog.Logger

	view      atomic.Pointer[view]
	consuming atomic.Bool

	celErrors, cesqlErrors atomic.Uint64

	mu      sync.Mutex
	lanes   map[string]*lane // by Trigger UID
	started sync.WaitGroup
	cancel  context.CancelFunc
	base    context.Context //nolint:containedctx // lifetime of the deliveries of this runner
	events  *stream.Consumption
	retries *stream.Consumption

	// Only the goroutine that handles events uses these.
	input   *trigger.Input
	matches []*target
}

func newRunner(o Options, n *stream.Names) *runner {
	return &runner{
		opts:  o,
		names: n,
		log:   o.Logger.With(slog.String("broker", n.Namespace+"/"+n.Name)),
		lanes: map[string]*lane{},
		input: trigger.NewInput(&event.Event{}),
	}
}

// apply builds the table of b and swaps it in. Lanes stay with their Trigger; those of removed Triggers are dropped once
// the deliveries that hold them have ended.
func (r *runner) apply(b *Broker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lanes := make(map[string]*lane, len(b.Triggers))
	entries := make([]trigger.Entry[*target], 0, len(b.Triggers))
	v := &view{byUID: make(map[string]*target, len(b.Triggers)), held: b.Held}
	for _, t := range b.Triggers {
		l := r.lanes[t.UID]
		if l == nil {
			l = &lane{}
		}
		l.setLimit(limitOf(t))
		lanes[t.UID] = l
		tg := &target{Trigger: t, lane: l, key: t.Namespace + "/" + t.Name}
		v.byUID[t.UID] = tg
		entries = append(entries, trigger.Entry[*target]{Filter: t.Filter, Target: tg})
	}
	v.table = trigger.NewTable(entries)
	r.lanes = lanes
	r.view.Store(v)
}

func limitOf(t *Trigger) int {
	if t.MaxConcurrency > 0 {
		return t.MaxConcurrency
	}
	return DefaultMaxConcurrency
}

// start consumes the Broker's streams as soon as they are there. parent bounds the deliveries.
func (r *runner) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	r.base, r.cancel = parent, cancel
	r.started.Go(func() {
		for !r.consume(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(startRetry):
			}
		}
		r.consuming.Store(true)
	})
}

// consume starts what is not yet running and reports whether all is.
func (r *runner) consume(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	if r.events == nil {
		r.events = r.subscribe(ctx, stream.ConsumeOptions{Stream: r.names.Events, MaxAckPending: r.opts.MaxAckPending}, r.onEvent)
	}
	if r.retries == nil {
		r.retries = r.subscribe(ctx, stream.ConsumeOptions{Stream: r.names.Retries, SubjectPrefix: r.names.RetryPrefix}, r.onRetry)
	}
	return r.events != nil && r.retries != nil
}

func (r *runner) subscribe(ctx context.Context, o stream.ConsumeOptions, handle func(*stream.Delivery)) *stream.Consumption {
	o.Logger = r.log
	c, err := r.opts.Conn.Consume(ctx, o, handle)
	if err != nil {
		r.log.DebugContext(ctx, "cannot consume yet", slog.String("stream", o.Stream), slog.Any("error", err))
		return nil
	}
	return c
}

// stop fetches no more and waits for what is under way until ctx ends.
func (r *runner) stop(ctx context.Context) {
	r.cancel()
	r.started.Wait()
	var wg sync.WaitGroup
	for _, c := range []*stream.Consumption{r.events, r.retries} {
		if c == nil {
			continue
		}
		wg.Go(func() {
			if err := c.Stop(ctx); err != nil {
				r.log.WarnContext(ctx, "stopped before everything was settled; what is left comes again", slog.Any("error", err))
			}
		})
	}
	wg.Wait()
}

// onEvent matches one accepted event and offers it to each matching Trigger's lane.
func (r *runner) onEvent(d *stream.Delivery) {
	v := r.view.Load()
	r.input.Reset(d.Event)
	r.matches = v.table.Match(r.input, r.matches[:0])
	failed := r.input.Errors()
	if failed.CELDeadline > 0 && d.Deliveries() <= maxRematches {
		// The machine may have been too busy for the expression. To say no match now could lose the event.
		d.Retry(rematchDelay)
		return
	}
	r.celErrors.Add(uint64(failed.CEL))
	r.cesqlErrors.Add(uint64(failed.CESQL))
	if len(r.matches) == 0 {
		d.Ack()
		return
	}
	s := &settlement{delivery: d}
	s.open.Store(int32(len(r.matches)))
	origin := "e" + formatSequence(d.Sequence())
	for _, t := range r.matches {
		t.lane.counts.matched.Add(1)
		j := job{to: t, event: d.Event, origin: origin, settle: s}
		if !t.lane.offer(j, r.run) {
			t.lane.counts.overflowed.Add(1)
			go r.postpone(j, 0)
		}
	}
}

// onRetry takes up a delivery that waits in the retry stream.
func (r *runner) onRetry(d *stream.Delivery) {
	v := r.view.Load()
	t := v.byUID[d.Key()]
	switch {
	case t != nil:
	case v.held[d.Key()]:
		d.Retry(heldRetry)
		return
	default:
		r.log.Info("drop a delivery whose Trigger was deleted", slog.String("trigger_uid", d.Key()))
		d.Ack()
		return
	}
	p := d.Progress()
	if wait := time.Until(p.Due); wait > 0 {
		d.Retry(wait)
		return
	}
	s := &settlement{delivery: d}
	s.open.Store(1)
	j := job{to: t, event: d.Event, origin: "r" + formatSequence(d.Sequence()), progress: p, settle: s}
	if !t.lane.offer(j, r.run) {
		d.Retry(busyRetry)
	}
}

func (r *runner) stats() []TriggerStats {
	v := r.view.Load()
	all := make([]TriggerStats, 0, len(v.byUID))
	for _, t := range v.byUID {
		s := TriggerStats{Broker: r.names.Namespace + "/" + r.names.Name, Trigger: t.key, Counts: t.lane.counts.read()}
		s.Active, s.Queued = t.lane.load()
		all = append(all, s)
	}
	return all
}
