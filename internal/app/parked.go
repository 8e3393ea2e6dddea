package app

import (
	"sync/atomic"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/replay"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// parked serves the admin API.
type parked struct {
	*adminapi.Handler
	catalog atomic.Pointer[adminapi.Catalog]
	replays *replay.Worker
}

// newParked returns the API on a Publisher of its own, so that a redrive of many events does not fill the window of
// those that are being delivered.
func newParked(conn *stream.Conn, d *dispatch.Dispatcher, o *Options) *parked {
	p := &parked{}
	p.catalog.Store(&adminapi.Catalog{})
	redriver := stream.NewPublisher(conn, 0)
	options := adminapi.Options{
		Replays: conn,
		Reader:  conn, Remover: conn, Redriver: redriver, Logger: o.Logger,
		Guard:   adminapi.Guard{Access: o.Access},
		Pauses:  o.pauser,
		Counts:  func() []adminapi.TriggerCounts { return countTriggers(d) },
		Catalog: func() adminapi.Catalog { return *p.catalog.Load() },
	}
	if !o.Journal.Off {
		options.Journal = conn
	}
	p.Handler = adminapi.New(options)
	p.replays = &replay.Worker{Store: conn, Redriver: redriver, Find: p.find, Log: o.Logger}
	return p
}

// find returns a Trigger of a Broker for replays.
func (p *parked) find(broker, uid string) (replay.Target, bool) {
	b := (*p.catalog.Load())[broker]
	if b == nil {
		return replay.Target{}, false
	}
	t, ok := b.Triggers[uid]
	return replay.Target{Names: b.Names, Trigger: t.Name, TriggerUID: uid, Filter: t.Filter}, ok
}

func countTriggers(d *dispatch.Dispatcher) []adminapi.TriggerCounts {
	stats := d.Stats()
	counts := make([]adminapi.TriggerCounts, len(stats))
	for i, s := range stats {
		counts[i] = adminapi.TriggerCounts{
			Broker: s.Broker, Trigger: s.Trigger, Matched: s.Matched, Attempts: s.Attempts, Failed: s.Attempts - min(s.Attempts, s.Delivered+uint64(s.Active)),
			Delivered: s.Delivered, DeadLettered: s.DeadLettered, Parked: s.Parked, Waiting: s.Waiting,
			Active: s.Active, Queued: s.Queued, Width: s.Width, Down: s.GateClosed, Paused: s.Paused, RateLimit: s.RateLimit,
		}
	}
	return counts
}

// apply takes up what there is. in is nil where events are taken up by others.
func (p *parked) apply(set *objects.Set, m *model, in *ingress) {
	c := newCatalog(set, m)
	if in != nil {
		for _, b := range c {
			b.URL = in.url(b.Names)
		}
	}
	p.catalog.Store(&c)
}

// newCatalog returns the Brokers of m and all Triggers of theirs in set, those that are not in effect included.
func newCatalog(set *objects.Set, m *model) adminapi.Catalog {
	catalog := make(adminapi.Catalog, len(m.brokers))
	inEffect := map[string]*trigger.Filter{}
	reasons := map[string]string{}
	for _, b := range m.brokers {
		catalog[b.key()] = &adminapi.Broker{Names: b.names, Triggers: map[string]adminapi.Trigger{}}
		for _, t := range b.dispatch.Triggers {
			inEffect[t.UID] = t.Filter
		}
		for _, t := range b.triggers {
			reasons[t.key] = t.reason
		}
	}
	for _, t := range set.Triggers {
		if b := catalog[t.Namespace+"/"+t.Spec.Broker]; b != nil {
			name, filter := t.Namespace+"/"+t.Name, inEffect[string(t.UID)]
			b.Triggers[string(t.UID)] = adminapi.Trigger{Name: name, Ready: filter != nil, Reason: reasons[name], Filter: filter}
		}
	}
	return catalog
}
