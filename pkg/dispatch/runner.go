package dispatch

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

const (
	// startRetry is the pause before consuming is tried again, for example because the stream is not there yet.
	startRetry = 50 * time.Millisecond
	// maxRematches is how often an event is matched again whose evaluation ran out of time, rematchDelay the pause before.
	maxRematches = 3
	rematchDelay = 100 * time.Millisecond
	// pinnedShare is one over the part of MaxAckPending that events under way in all processes together take at most: the
	// rest is for events that settle quickly. The processes divide it evenly.
	pinnedShare = 2
	// transitShare is one over the part of the memory for events that lanes leave to events on their way to a backlog, so
	// that those always get on.
	transitShare = 4
	// deadLetterSuffix makes of a Trigger's UID the key under which its dead letters wait for their sink.
	deadLetterSuffix = "_dl"
)

// route is a place that deliveries go to: a Trigger's subscriber, or its dead letter sink.
type route struct {
	*Trigger
	lane   *lane
	counts *counters // of the Trigger
	key    string    // names the route in the retry stream
	name   string    // namespace/name of the Trigger
	seen   *observe.Trigger
	// address is the URL without its password.
	address string
	sink    *route // of a subscriber's route: that of the dead letter sink; nil for the sink's own
}

// view is what a runner serves at one moment. It is immutable.
type view struct {
	table *trigger.Table[*route]
	byKey map[string]*route
	held  map[string]bool // by key
	// shared are the routes with limits that the processes divide.
	shared  []*route
	archive bool
}

// runner serves one Broker.
type runner struct {
	opts  Options
	names *stream.Names
	// broker is what names are to a Recorder.
	broker *observe.Broker
	log    *slog.Logger

	view      atomic.Pointer[view]
	consuming atomic.Bool

	// unsettled counts the accepted events under way in this process.
	unsettled              atomic.Int64
	celErrors, cesqlErrors atomic.Uint64
	consumed, unmatched    atomic.Uint64
	successes              atomic.Uint64 // as counted for the log

	mu      sync.Mutex
	lanes   map[string]*lane // by key
	counts  map[string]*counters
	started sync.WaitGroup
	cancel  context.CancelFunc
	base    context.Context //nolint:containedctx // lifetime of the deliveries of this runner
	events  *stream.Consumption
	retries *retrier

	// Only the goroutine that handles events uses these.
	input   *trigger.Input
	matches []*route
	told    []*observe.Trigger
	flow    *flow
}

func newRunner(o Options, n *stream.Names) *runner {
	r := &runner{
		opts:   o,
		names:  n,
		broker: observe.NewBroker(n.Namespace, n.Name, n.UID),
		log:    o.Logger.With(slog.String("broker", n.Namespace+"/"+n.Name)),
		lanes:  map[string]*lane{},
		counts: map[string]*counters{},
		input:  trigger.NewInput(&event.Event{}),
		flow:   newFlow(),
	}
	r.retries = newRetrier(r)
	return r
}

// apply builds the table of b and swaps it in. Lanes stay with their Trigger; those of removed Triggers are dropped once
// the deliveries that hold them have ended.
func (r *runner) apply(b *Broker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &view{archive: b.Archive, byKey: make(map[string]*route, 2*len(b.Triggers)), held: make(map[string]bool, 2*len(b.Held))}
	lanes, counts := make(map[string]*lane, 2*len(b.Triggers)), make(map[string]*counters, len(b.Triggers))
	now := time.Now()
	entries := make([]trigger.Entry[*route], 0, len(b.Triggers))
	for _, t := range b.Triggers {
		c := r.counts[t.UID]
		if c == nil {
			c = &counters{}
		}
		counts[t.UID] = c
		main := &route{Trigger: t, counts: c, key: t.UID, name: t.Namespace + "/" + t.Name, address: t.Subscriber.Redacted()}
		main.seen = &observe.Trigger{Broker: r.broker, Namespace: t.Namespace, Name: t.Name, UID: t.UID, Key: main.name}
		main.sink = &route{Trigger: t, counts: c, key: t.UID + deadLetterSuffix, name: main.name, seen: main.seen, address: t.DeadLetterSink.Redacted()}
		for _, rt := range []*route{main, main.sink} {
			rt.lane = r.lane(rt.key)
			lanes[rt.key], v.byKey[rt.key] = rt.lane, rt
		}
		main.lane.setPaused(t.Paused)
		main.lane.setPart(r.part(t, now), now)
		main.sink.lane.setMax(limitOf(t))
		if t.MaxConcurrency > 0 || t.RateLimit > 0 {
			v.shared = append(v.shared, main)
		}
		entries = append(entries, trigger.Entry[*route]{Filter: t.Filter, Target: main})
	}
	for uid := range b.Held {
		v.held[uid], v.held[uid+deadLetterSuffix] = true, true
	}
	v.table = trigger.NewTable(entries)
	r.lanes, r.counts = lanes, counts
	r.view.Store(v)
	r.retries.wakeUp()
}

func (r *runner) lane(key string) *lane {
	if l := r.lanes[key]; l != nil {
		return l
	}
	return newLane(r.opts.budgets.places, r.flow)
}

// part is what this process has of the limits of a Trigger, which hold for all processes together. Who has joined only now has nothing of a
// rate: others may use all of it until they have heard.
func (r *runner) part(t *Trigger, now time.Time) part {
	p := part{concurrency: limitOf(t), limited: t.RateLimit > 0}
	if t.MaxConcurrency > 0 {
		p.concurrency = r.opts.peers.Part(t.MaxConcurrency, now)
	}
	if p.limited && r.opts.peers.Settled(now) {
		p.rate = r.opts.peers.Part(t.RateLimit, now)
	}
	return p
}

// divide gives lanes their part anew, as processes come and go.
func (r *runner) divide(now time.Time) {
	for _, rt := range r.view.Load().shared {
		rt.lane.setPart(r.part(rt.Trigger, now), now)
	}
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
		r.retries.run(ctx)
	})
}

// consume reports whether the events are being consumed, having tried to.
func (r *runner) consume(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	c, err := r.opts.Conn.Consume(ctx, stream.ConsumeOptions{
		Stream: r.names.Events, MaxAckPending: r.opts.MaxAckPending, Logger: r.log,
	}, r.onEvent)
	if err != nil {
		r.log.DebugContext(ctx, "cannot consume yet", slog.Any("error", err))
		return false
	}
	r.events = c
	return true
}

// stop fetches no more and waits for what is under way until ctx ends.
func (r *runner) stop(ctx context.Context) {
	r.cancel()
	r.started.Wait()
	if r.events != nil {
		if err := r.events.Stop(ctx); err != nil {
			r.log.WarnContext(ctx, "stopped before everything was settled; what is left comes again", slog.Any("error", err))
		}
	}
	r.retries.stop(ctx)
}

// onEvent matches one accepted event and offers it to each matching Trigger's lane.
func (r *runner) onEvent(d *stream.Delivery) {
	v := r.view.Load()
	var span observe.Span
	if r.opts.Tracer != nil {
		span = r.opts.Tracer.Begin(observe.Select, time.Now(), r.broker, nil, d.Event)
	}
	r.input.Reset(d.Event)
	r.matches = v.table.Match(r.input, r.matches[:0])
	failed := r.input.Errors()
	if span != nil {
		span.End(0, "")
	}
	if failed.CELDeadline > 0 && d.Deliveries() <= maxRematches {
		// The machine may have been too busy for the expression. To say no match now could lose the event.
		d.Retry(rematchDelay)
		return
	}
	r.celErrors.Add(uint64(failed.CEL))
	r.cesqlErrors.Add(uint64(failed.CESQL))
	r.consumed.Add(1)
	if r.opts.Recorder != nil {
		r.tellMatch(d, failed.CEL+failed.CESQL)
	}
	parts := len(r.matches)
	if parts == 0 {
		r.unmatched.Add(1)
	}
	if v.archive {
		parts++
	}
	if parts == 0 {
		d.Ack()
		return
	}
	s := newSettlement(r.base, d, parts, r.opts.budgets.events)
	if s == nil {
		return
	}
	now := time.Now()
	if r.unsettled.Add(1) == 1 {
		r.flow.begin(now)
	}
	s.after = func() { r.unsettled.Add(-1) }
	if v.archive {
		go r.archive(d, s)
	}
	origin := "e" + formatSequence(d.Sequence())
	for _, t := range r.matches {
		t.counts.matched.Add(1)
		r.flow.offered(t.lane, now)
		r.offer(job{to: t, event: d.Event, origin: origin, settle: s, taken: now, pins: true}, now)
	}
}

// archive stores a copy of the event and settles that part of it.
func (r *runner) archive(d *stream.Delivery, s *settlement) {
	err := insist(r.base, func(ctx context.Context) error {
		return r.opts.Publisher.Archive(ctx, r.names, d)
	}, func(err error, pause time.Duration) bool {
		r.log.Warn("cannot archive an event, trying again", slog.Duration("retry_in", pause), slog.Any("error", err))
		return true
	})
	if err == nil {
		s.done()
	}
}

// tellMatch tells the Recorder which Triggers matched.
func (r *runner) tellMatch(d *stream.Delivery, failed int) {
	r.told = r.told[:0]
	for _, t := range r.matches {
		r.told = append(r.told, t.seen)
	}
	r.opts.Recorder.Matched(observe.Match{
		Broker: r.broker, Event: d.Event, Sequence: d.Sequence(), Stored: d.Stored(), At: time.Now(), Triggers: r.told, Errors: failed,
		Again: d.Deliveries() > 1,
	})
}

// free is what is left of what lanes may keep unsettled.
func (r *runner) free() free {
	events := r.opts.budgets.events
	pinned := cmp.Or(r.opts.MaxAckPending, stream.DefaultMaxAckPending) / pinnedShare / r.opts.peers.Count()
	return free{
		messages: int64(max(1, pinned)) - r.unsettled.Load(),
		bytes:    events.left() - events.limit/transitShare,
	}
}

// offer gives a job to its lane, or to the backlog if the lane has no room for it and waiting is not worth while.
func (r *runner) offer(j job, since time.Time) {
	for !j.to.lane.offer(j, r.free(), r.run) {
		if !r.flow.await(j.to.lane, since, r.base.Done()) {
			j.to.counts.overflowed.Add(1)
			go r.postpone(j, 0, observe.Overflowed)
			return
		}
	}
}

func (r *runner) latencies() []Latencies {
	var all []Latencies
	for _, t := range r.view.Load().byKey {
		if t.sink != nil && t.counts.attempts.Load() > 0 {
			c := t.counts
			all = append(all, Latencies{
				Broker: r.broker.Key, Trigger: t.name,
				Attempts: c.responses.Read(), Process: c.process.Read(), EndToEnd: c.endToEnd.Read(),
			})
		}
	}
	return all
}

func (r *runner) stats() []TriggerStats {
	v := r.view.Load()
	all := make([]TriggerStats, 0, len(v.byKey)/2)
	for _, t := range v.byKey {
		if t.sink == nil {
			continue
		}
		l := t.lane.state()
		all = append(all, TriggerStats{
			Broker: r.names.Namespace + "/" + r.names.Name, Trigger: t.name, Counts: t.counts.read(),
			Active: l.active, Queued: l.queued, Width: l.width, GateClosed: l.closed, Paused: l.paused, RateLimit: t.RateLimit,
			Waiting: r.retries.waiting(t.key) + r.retries.waiting(t.sink.key),
		})
	}
	return all
}
