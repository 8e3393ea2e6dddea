// Package dispatch takes stored events to the subscribers whose Triggers match.
//
// For each Broker a runner consumes the stream of accepted events, matches every event against an immutable table of
// the Broker's Triggers and offers each match to that Trigger's lane. A lane makes a bounded number of deliveries at
// once. What fails retryably, and what a full lane cannot take, is written to the Broker's retry stream, so a slow
// subscriber costs its own events time and nobody else's. The original is settled once each matched lane has settled
// its part: delivered, written to the retry stream, dead-lettered or parked.
package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// DefaultMaxConcurrency is how many deliveries to one Trigger's subscriber are made at once in one process.
const DefaultMaxConcurrency = 100

// DefaultOrphanGrace is how long the backlog of a Trigger that is not known is kept. Objects reach the processes at
// different times: one may already write what another does not know yet.
const DefaultOrphanGrace = 10 * time.Minute

// Broker is one Broker as the dispatcher needs it.
type Broker struct {
	// Names of the Broker's streams. They tell Brokers apart.
	Names *stream.Names
	// Triggers that are in effect.
	Triggers []*Trigger
	// Held are the UIDs of Triggers that exist but are not in effect, for example because their filter does not
	// compile. Deliveries that wait for them stay in the store.
	Held map[string]bool
	// Archive has a copy of each event stored in the archive before the event is settled.
	Archive bool
}

// Trigger is one Trigger in effect. It is immutable.
type Trigger struct {
	// Namespace, Name and UID are the object's.
	Namespace, Name, UID string
	// Filter selects the events.
	Filter *trigger.Filter
	// Subscriber is the resolved URL that events are posted to.
	Subscriber *url.URL
	// DeadLetterSink is the resolved URL for events that cannot be delivered; nil to park them.
	DeadLetterSink *url.URL
	// Policy says how often and how fast to try.
	Policy delivery.Policy
	// MaxConcurrency bounds the deliveries under way in all processes together; 0 means [DefaultMaxConcurrency] in each.
	MaxConcurrency int
	// RateLimit is how many deliveries may begin within any second, in all processes together; 0 for no limit.
	RateLimit int
	// Paused has no delivery to the subscriber begin: what matches waits in the backlog, however long. Deliveries to the dead
	// letter sink go on.
	Paused bool
	// State tells versions of the Trigger apart, for those who ask whether this one is in effect.
	State string
}

// Options configure a Dispatcher. Conn, Publisher and Sender are required.
type Options struct {
	Conn      *stream.Conn
	Publisher *stream.Publisher
	Sender    *delivery.Sender
	// Recorder, if set, is told what happens to events.
	Recorder observe.Recorder
	// NoLatencies spares deliveries the measuring of how long they take.
	NoLatencies bool
	// Tracer, if set, makes spans of those events whose trace is recorded.
	Tracer observe.Tracer
	// Logger receives what goes wrong; default slog.Default().
	Logger *slog.Logger
	// LogDeliveries has one in so many successful deliveries logged; 0 for none. Attempts that fail are always logged.
	LogDeliveries int
	// MaxAckPending bounds the unsettled events of one Broker over all processes; 0 means the default of package stream.
	MaxAckPending int
	// MaxInFlightBytes bounds the events under way in this process; 0 means [DefaultMaxInFlightBytes].
	MaxInFlightBytes int64
	// MaxDeliveries bounds the deliveries under way in this process; 0 means [DefaultMaxDeliveries].
	MaxDeliveries int
	// OrphanGrace is how long deliveries that wait for a Trigger that is not known are kept; default
	// [DefaultOrphanGrace].
	OrphanGrace time.Duration

	budgets *budgets
	peers   *stream.Peers
}

func (o Options) validate() error {
	if o.Conn == nil || o.Publisher == nil || o.Sender == nil {
		return errors.New("dispatch: Conn, Publisher and Sender are required")
	}
	return nil
}

// Dispatcher runs the runners of all Brokers.
type Dispatcher struct {
	opts   Options
	ctx    context.Context //nolint:containedctx // lifetime of the deliveries, which outlive every call of Apply
	cancel context.CancelFunc

	mu      sync.Mutex
	runners map[string]*runner // by name of the event stream
	stopped bool
	served  atomic.Pointer[map[stream.Version]bool] // the Triggers applied last
	leaving sync.WaitGroup                          // runners of removed Brokers that still finish
}

// New returns a Dispatcher that does nothing until [Dispatcher.Apply].
func New(o Options) (*Dispatcher, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.OrphanGrace = cmp.Or(o.OrphanGrace, DefaultOrphanGrace)
	o.budgets = newBudgets(cmp.Or(o.MaxInFlightBytes, DefaultMaxInFlightBytes), int64(cmp.Or(o.MaxDeliveries, DefaultMaxDeliveries)))
	var err error
	if o.peers, err = o.Conn.Join(stream.FilterGroup); err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &Dispatcher{opts: o, ctx: ctx, cancel: cancel, runners: map[string]*runner{}}
	if err := o.peers.Answer(d.serves); err != nil {
		cancel()
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	return d, nil
}

// Apply makes the given Brokers the ones served. It returns at once. Brokers that stay go on without a break: events
// under way keep the Trigger they were matched with, later ones see the new table. Removed Brokers finish what is under
// way and leave the rest in the store.
func (d *Dispatcher) Apply(brokers []*Broker) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return
	}
	keep := make(map[string]bool, len(brokers))
	for _, b := range brokers {
		keep[b.Names.Events] = true
		if r := d.runners[b.Names.Events]; r != nil {
			r.apply(b)
			continue
		}
		r := newRunner(d.opts, b.Names)
		r.apply(b)
		r.start(d.ctx)
		d.runners[b.Names.Events] = r
	}
	for name, r := range d.runners {
		if !keep[name] {
			delete(d.runners, name)
			d.leaving.Go(func() { r.stop(d.ctx) })
		}
	}
	served := map[stream.Version]bool{}
	for _, b := range brokers {
		for _, t := range b.Triggers {
			served[stream.Version{UID: t.UID, State: t.State}] = true
		}
	}
	d.served.Store(&served)
}

// serves says whether every event that is fetched from now on is matched with that version of a Trigger.
func (d *Dispatcher) serves(v stream.Version) bool {
	served := d.served.Load()
	return served != nil && (*served)[v]
}

// Ready reports whether the named Broker's events are being consumed with the Triggers applied last.
func (d *Dispatcher) Ready(n *stream.Names) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.runners[n.Events]
	return r != nil && r.consuming.Load()
}

// Stop fetches no more events and waits until those under way are settled or ctx ends; what is unsettled then comes
// again later, here or in another process.
func (d *Dispatcher) Stop(ctx context.Context) {
	d.mu.Lock()
	d.stopped = true
	runners := d.runners
	d.runners = map[string]*runner{}
	d.mu.Unlock()
	for _, r := range runners {
		d.leaving.Go(func() { r.stop(ctx) })
	}
	done := make(chan struct{})
	go func() {
		d.leaving.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	d.cancel()
	<-done
	d.opts.peers.Leave()
}

// TriggerStats are a Trigger's counters since its Broker's runner started.
type TriggerStats struct {
	Broker, Trigger string
	Counts
	// Active deliveries and Queued ones in this process, and the Width of the lane, that is how many may be active, now.
	Active, Queued, Width int
	// GateClosed says that the subscriber is known to be down: only probes are sent.
	GateClosed bool
	// Paused says that no delivery is to begin.
	Paused bool
	// RateLimit is how many deliveries may begin in any second, in all processes together; 0 is no limit.
	RateLimit int
	// Waiting deliveries in the store's backlog, as counted a few seconds ago at most.
	Waiting uint64
}

// Stats returns the counters of all Triggers in effect.
func (d *Dispatcher) Stats() []TriggerStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []TriggerStats
	for _, r := range d.runners {
		all = append(all, r.stats()...)
	}
	return all
}

// Latencies are how long things took for a Trigger since its Broker's runner started.
type Latencies struct {
	Broker, Trigger string
	// Attempts at the subscriber, by how they ended.
	Attempts []observe.Response
	// Process is the time from when an event was taken up here until each attempt at it began.
	Process observe.Latency
	// EndToEnd is the time from an event's arrival at the Broker until the subscriber had accepted it.
	EndToEnd observe.Latency
}

// Latencies returns those of all Triggers in effect that attempts were made for.
func (d *Dispatcher) Latencies() []Latencies {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []Latencies
	for _, r := range d.runners {
		all = append(all, r.latencies()...)
	}
	return all
}

// BrokerStats counts what became of a Broker's events at matching, since its runner started in this process.
type BrokerStats struct {
	Broker string
	// Consumed events were taken from the store and matched; Unmatched of them matched no Trigger.
	Consumed, Unmatched uint64
}

// BrokerStats returns the counts of all Brokers.
func (d *Dispatcher) BrokerStats() []BrokerStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]BrokerStats, 0, len(d.runners))
	for _, r := range d.runners {
		all = append(all, BrokerStats{Broker: r.broker.Key, Consumed: r.consumed.Load(), Unmatched: r.unmatched.Load()})
	}
	return all
}

// FilterErrors counts the filter expressions of a Broker that failed at evaluation.
type FilterErrors struct {
	Broker     string
	CEL, CESQL uint64
}

// FilterErrors returns the counts of all Brokers since their runners started.
func (d *Dispatcher) FilterErrors() []FilterErrors {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]FilterErrors, 0, len(d.runners))
	for _, r := range d.runners {
		all = append(all, FilterErrors{
			Broker: r.names.Namespace + "/" + r.names.Name, CEL: r.celErrors.Load(), CESQL: r.cesqlErrors.Load(),
		})
	}
	return all
}
