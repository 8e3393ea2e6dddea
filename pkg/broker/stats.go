package broker

import (
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// served is a Table with what was counted for its Brokers. The Brokers of the next Table that are the same go on counting.
type served struct {
	table  *Table
	counts map[*Broker]*brokerCounters
}

// brokerCounters count for one Broker.
type brokerCounters struct {
	broker    *observe.Broker // nil of those that are for none
	events    atomic.Uint64
	responses observe.Responses
	publish   observe.Responses
}

func newServed(t *Table, before *served) *served {
	known := map[string]*brokerCounters{}
	if before != nil {
		for b, c := range before.counts {
			known[b.Names.Events] = c
		}
	}
	s := &served{table: t, counts: make(map[*Broker]*brokerCounters, len(t.brokers))}
	for _, b := range t.brokers {
		c := known[b.Names.Events]
		if c == nil {
			c = &brokerCounters{broker: observe.NewBroker(b.Names.Namespace, b.Names.Name, b.Names.UID)}
		}
		s.counts[b] = c
	}
	return s
}

// counters are those of b. A Broker that was removed while its request was served has none that anybody reads.
func (s *served) counters(b *Broker) *brokerCounters {
	if c := s.counts[b]; c != nil {
		return c
	}
	for of, c := range s.counts { // b is of an earlier Table
		if of.Names.Events == b.Names.Events {
			return c
		}
	}
	return &brokerCounters{broker: observe.NewBroker(b.Names.Namespace, b.Names.Name, b.Names.UID)}
}

// tell counts a request that was answered, and tells the Recorder of the events in it. b is nil if there is no such Broker.
func (h *Handler) tell(b *Broker, r *http.Request, begin time.Time, msgs []stream.Message, f *refusal) {
	counts := &h.unknown
	if b != nil {
		counts = h.table.Load().counters(b)
	}
	status, reason := http.StatusAccepted, ""
	if f != nil {
		status, reason = f.reason.Status(), f.reason.String()
	}
	now := h.opts.Now()
	a := observe.Arrival{Broker: counts.broker, From: r.RemoteAddr, At: begin, Took: now.Sub(begin), Refused: reason}
	if len(msgs) > 0 {
		a.Event = msgs[0].Event
	}
	if !h.opts.NoLatencies {
		counts.responses.Of(status, reason).Observe(a.Took, now, a.Event)
	}
	if h.opts.Recorder == nil {
		return
	}
	h.opts.Recorder.Arrived(a)
	for i := 1; i < len(msgs); i++ {
		a.Event = msgs[i].Event
		h.opts.Recorder.Arrived(a)
	}
}

// ByBroker are counts of one Broker since it was first in a Table.
type ByBroker struct {
	// Broker is namespace/name; empty for requests that named no Broker that there is.
	Broker string
	// Events were accepted.
	Events uint64
	// Requests by status and, if they were refused, [Reason], with the time until they were answered.
	Requests []observe.Response
	// Publishes to the store, by the [Reason] for which they failed, with the time until the store had confirmed.
	Publishes []observe.Response
}

// ByBroker returns the counts of the Brokers of the current Table, and of requests for none.
func (h *Handler) ByBroker() []ByBroker {
	all := []ByBroker{{Requests: h.unknown.responses.Read()}}
	served := h.table.Load()
	if served == nil {
		return all
	}
	for _, c := range served.counts {
		all = append(all, ByBroker{
			Broker: c.broker.Key, Events: c.events.Load(), Requests: c.responses.Read(), Publishes: c.publish.Read(),
		})
	}
	return all
}

// trace begins the spans of events that are about to be stored, and has these carry them. It returns nil for none.
func (h *Handler) trace(b *Broker, begin time.Time, msgs []stream.Message) []observe.Span {
	if h.opts.Tracer == nil {
		return nil
	}
	broker := h.table.Load().counters(b).broker
	var spans []observe.Span
	for i := range msgs {
		e := msgs[i].Event
		arrival := h.opts.Tracer.Begin(observe.Arrive, begin, broker, nil, e)
		if arrival == nil {
			continue
		}
		e.Headers = slices.Clone(e.Headers) // which the events of a batch share
		arrival.Tie(e)
		spans = append(spans, arrival)
		if store := h.opts.Tracer.Begin(observe.Store, h.opts.Now(), broker, nil, e); store != nil {
			spans = append(spans, store)
		}
	}
	return spans
}

func endAll(spans []observe.Span, f *refusal) {
	status, reason := http.StatusAccepted, ""
	if f != nil {
		status, reason = f.reason.Status(), f.reason.String()
	}
	for _, s := range slices.Backward(spans) {
		s.End(status, reason)
	}
}
