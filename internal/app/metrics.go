package app

import (
	"cmp"
	"errors"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/telemetry"
	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/observe"
)

// The labels. Those that OpenTelemetry's semantic conventions have a name for are named so.
const (
	labelBroker  = attribute.Key("messaging.destination.name")              // namespace/name
	labelTrigger = attribute.Key("messaging.destination.subscription.name") // namespace/name
	labelSystem  = attribute.Key("messaging.system")
	labelMethod  = attribute.Key("http.request.method")
	labelStatus  = attribute.Key("http.response.status_code")
	labelError   = attribute.Key("error.type")
	labelKind    = attribute.Key("kind")
	labelSource  = attribute.Key("source")
	labelReason  = attribute.Key("reason")
	labelOutcome = attribute.Key("outcome")
	labelDialect = attribute.Key("dialect")
	labelState   = attribute.Key("state")
)

type (
	report        = func(value float64, labels ...attribute.KeyValue)
	reportLatency = func(latency observe.Latency, labels ...attribute.KeyValue)
	labels        = []attribute.Key
)

// registerMetrics exposes what the parts of the process count.
func (p *process) registerMetrics() error {
	err := p.metrics.Gauge(telemetry.Description{
		Name: "millrace.nats.connected", Text: "1 while the connection to NATS is up, else 0.",
	}, func(r report) { r(oneIf(p.conn.Connected())) })
	if p.ingress != nil {
		err = errors.Join(err, registerIngress(p.metrics, p.ingress.handler))
	}
	if p.filter != nil {
		w := &waiting{conn: p.conn, log: p.log, catalog: func() adminapi.Catalog { return *p.parked.catalog.Load() }}
		err = errors.Join(err, registerFilter(p.metrics, p.filter.dispatcher), registerWaiting(p.metrics, w))
	}
	if p.journal != nil {
		err = errors.Join(err, registerJournal(p.metrics, p.journal.Stats))
	}
	if p.sources != nil {
		err = errors.Join(err, registerSources(p.metrics, p.sources))
	}
	return err
}

func registerJournal(m *telemetry.Metrics, stats func() journal.Stats) error {
	return errors.Join(
		m.Counter(telemetry.Description{
			Name: "millrace.journal.records", Unit: "{record}", Labels: labels{labelOutcome},
			Text: "Records of the journal that are in the store (kept), that found no room or were not taken (dropped), and refusals " +
				"beyond the rate that is kept (omitted).",
		}, func(r report) {
			s := stats()
			r(float64(s.Kept), labelOutcome.String("kept"))
			r(float64(s.Dropped), labelOutcome.String("dropped"))
			r(float64(s.Omitted), labelOutcome.String("omitted"))
		}),
		m.Counter(telemetry.Description{
			Name: "millrace.journal.blocks", Unit: "{block}", Text: "Blocks of the journal that this process has stored.",
		}, func(r report) { r(float64(stats().Blocks)) }),
		m.Counter(telemetry.Description{
			Name: "millrace.journal.stored.size", Unit: "By", Text: "Their bytes, compressed. --journal-max-bytes bounds what is kept of them.",
		}, func(r report) { r(float64(stats().Bytes)) }),
	)
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func registerIngress(m *telemetry.Metrics, h *broker.Handler) error {
	m.Histogram(telemetry.Description{
		Name:   "http.server.request.duration",
		Text:   "Requests of producers, until the answer was decided: a 202 once the events are stored; error.type is the reason of a refusal.",
		Labels: labels{labelBroker, labelMethod, labelStatus, labelError},
	}, func(r reportLatency) {
		for _, b := range h.ByBroker() {
			for _, a := range b.Requests {
				r(a.Latency, withError(a.Reason, labelBroker.String(b.Broker), labelMethod.String("POST"), labelStatus.Int(a.Status))...)
			}
		}
	})
	m.Histogram(telemetry.Description{
		Name:   "messaging.client.operation.duration",
		Text:   "Writes of the ingress to the store, until JetStream had confirmed that it keeps all events of a request.",
		Labels: labels{labelSystem, attribute.Key("messaging.operation.name"), labelBroker, labelError},
	}, func(r reportLatency) {
		for _, b := range h.ByBroker() {
			for _, a := range b.Publishes {
				r(a.Latency, withError(a.Reason, labelBroker.String(b.Broker), labelSystem.String("nats"),
					attribute.String("messaging.operation.name", "publish"))...)
			}
		}
	})
	return errors.Join(
		m.Counter(telemetry.Description{
			Name: "millrace.ingress.events", Unit: "{event}", Text: "Events accepted, that is stored and confirmed.", Labels: labels{labelBroker},
		}, func(r report) {
			for _, b := range h.ByBroker() {
				if b.Broker != "" {
					r(float64(b.Events), labelBroker.String(b.Broker))
				}
			}
		}),
		m.Counter(telemetry.Description{
			Name: "millrace.ingress.refused", Unit: "{request}", Text: "Requests refused, by reason.", Labels: labels{labelReason},
		}, func(r report) {
			for reason, n := range h.Stats().Refused {
				r(float64(n), labelReason.String(reason.String()))
			}
		}),
		m.Gauge(telemetry.Description{
			Name: "http.server.active_requests", Unit: "{request}", Text: "Requests being served.", Labels: labels{labelMethod},
		}, func(r report) { r(float64(h.Stats().InFlightRequests), labelMethod.String("POST")) }),
	)
}

// withError adds the label for what went wrong, if something did.
func withError(reason string, all ...attribute.KeyValue) []attribute.KeyValue {
	if reason != "" {
		all = append(all, labelError.String(reason))
	}
	return all
}

// deliveryOutcomes are the ways in which a matched event can go on.
func deliveryOutcomes(c dispatch.Counts) map[string]uint64 {
	return map[string]uint64{
		"delivered": c.Delivered, "retried": c.Retried, "overflowed": c.Overflowed,
		"dead_lettered": c.DeadLettered, "parked": c.Parked,
	}
}

func ofTrigger(broker, trigger string, more ...attribute.KeyValue) []attribute.KeyValue {
	return append([]attribute.KeyValue{labelBroker.String(broker), labelTrigger.String(trigger)}, more...)
}

func registerFilter(m *telemetry.Metrics, d *dispatch.Dispatcher) error {
	perTrigger := func(value func(dispatch.TriggerStats) float64) telemetry.Observe {
		return func(r report) {
			for _, s := range d.Stats() {
				r(value(s), ofTrigger(s.Broker, s.Trigger)...)
			}
		}
	}
	perOutcome := func(values func(dispatch.Counts) map[string]uint64) telemetry.Observe {
		return func(r report) {
			for _, s := range d.Stats() {
				for outcome, n := range values(s.Counts) {
					r(float64(n), ofTrigger(s.Broker, s.Trigger, labelOutcome.String(outcome))...)
				}
			}
		}
	}
	perBroker := func(value func(dispatch.BrokerStats) uint64) telemetry.Observe {
		return func(r report) {
			for _, b := range d.BrokerStats() {
				r(float64(value(b)), labelBroker.String(b.Broker), labelSystem.String("nats"))
			}
		}
	}
	both, ofBroker := labels{labelBroker, labelTrigger}, labels{labelBroker, labelSystem}
	registerLatencies(m, d)
	return errors.Join(
		m.Counter(telemetry.Description{
			Name: "messaging.client.consumed.messages", Unit: "{message}", Labels: ofBroker,
			Text: "Events taken from the store and matched with all Triggers, those that the store handed out again included.",
		}, perBroker(func(b dispatch.BrokerStats) uint64 { return b.Consumed })),
		m.Counter(telemetry.Description{
			Name: "millrace.filter.unmatched", Unit: "{event}", Text: "Events that matched no Trigger.", Labels: ofBroker,
		}, perBroker(func(b dispatch.BrokerStats) uint64 { return b.Unmatched })),
		m.Counter(telemetry.Description{
			Name: "millrace.trigger.matched", Unit: "{event}", Text: "Events that matched the Trigger.", Labels: both,
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return float64(s.Matched) })),
		m.Counter(telemetry.Description{
			Name: "millrace.trigger.attempts", Unit: "{request}", Text: "Requests made to the Trigger's subscriber.", Labels: both,
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return float64(s.Attempts) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.active", Unit: "{delivery}", Text: "Deliveries under way in this process.", Labels: both,
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return float64(s.Active) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.width", Unit: "{delivery}", Labels: both,
			Text: "Deliveries that may be under way in this process; fewer than allowed after the subscriber was overloaded.",
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return float64(s.Width) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.queued", Unit: "{event}", Text: "Events that wait in the memory of this process for a place.", Labels: both,
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return float64(s.Queued) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.down", Labels: both,
			Text: "1 while this process holds the subscriber to be down and sends it nothing but one event now and then, else 0.",
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return oneIf(s.GateClosed) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.paused", Labels: both,
			Text: "1 while the Trigger is paused by hand, else 0.",
		}, perTrigger(func(s dispatch.TriggerStats) float64 { return oneIf(s.Paused) })),
		m.Counter(telemetry.Description{
			Name: "millrace.trigger.events", Unit: "{event}", Labels: labels{labelBroker, labelTrigger, labelOutcome},
			Text: "Matched events by what became of them: delivered, dead_lettered and parked are the end; retried and overflowed ones wait in the store.",
		}, perOutcome(deliveryOutcomes)),
		m.Counter(telemetry.Description{
			Name: "millrace.trigger.replies", Unit: "{event}", Labels: labels{labelBroker, labelTrigger, labelOutcome},
			Text: "Replies of the subscriber: stored, dropped for having passed too many hops, or ignored because they are no CloudEvents.",
		}, perOutcome(func(c dispatch.Counts) map[string]uint64 {
			return map[string]uint64{"stored": c.Replies, "dropped": c.RepliesDropped, "ignored": c.RepliesIgnored}
		})),
		m.Counter(telemetry.Description{
			Name: "millrace.filter.errors", Unit: "{error}", Labels: labels{labelBroker, labelDialect},
			Text: "Filter expressions that failed at evaluation and so did not match.",
		}, func(r report) {
			for _, s := range d.FilterErrors() {
				r(float64(s.CEL), labelBroker.String(s.Broker), labelDialect.String("cel"))
				r(float64(s.CESQL), labelBroker.String(s.Broker), labelDialect.String("cesql"))
			}
		}),
	)
}

func registerLatencies(m *telemetry.Metrics, d *dispatch.Dispatcher) {
	attempts := func(with func(observe.Response) []attribute.KeyValue) telemetry.ObserveLatency {
		return func(r reportLatency) {
			for _, l := range d.Latencies() {
				for _, a := range l.Attempts {
					r(a.Latency, ofTrigger(l.Broker, l.Trigger, with(a)...)...)
				}
			}
		}
	}
	m.Histogram(telemetry.Description{
		Name:   "http.client.request.duration",
		Text:   "Attempts to deliver, until the answer was read. error.type is the status of a refusal, or why there is no answer.",
		Labels: labels{labelBroker, labelTrigger, labelMethod, labelStatus, labelError},
	}, attempts(func(a observe.Response) []attribute.KeyValue {
		reason := a.Reason
		if a.Status >= 300 {
			reason = strconv.Itoa(a.Status)
		}
		return withError(reason, statusOf(a, labelMethod.String("POST"))...)
	}))
	m.Histogram(telemetry.Description{
		Name: "kn.eventing.dispatch.duration", Text: "The same by the name that Knative Eventing has for it.",
		Labels: labels{labelBroker, labelTrigger, labelStatus},
	}, attempts(func(a observe.Response) []attribute.KeyValue { return statusOf(a) }))
	m.Histogram(telemetry.Description{
		Name: "kn.eventing.process.duration", Labels: labels{labelBroker, labelTrigger},
		Text: "From when an event was taken up by this process until an attempt began: the wait for a place. The name is Knative Eventing's.",
	}, func(r reportLatency) {
		for _, l := range d.Latencies() {
			r(l.Process, ofTrigger(l.Broker, l.Trigger)...)
		}
	})
	m.Histogram(telemetry.Description{
		Name: "millrace.trigger.delivery.duration", Labels: labels{labelBroker, labelTrigger},
		Text: "End to end: from an event's arrival at the Broker until the subscriber had accepted it, all retries and waiting included.",
	}, func(r reportLatency) {
		for _, l := range d.Latencies() {
			r(l.EndToEnd, ofTrigger(l.Broker, l.Trigger)...)
		}
	})
}

// statusOf adds the status of the answer. An attempt that had none is given as 0, so that each series has the label.
func statusOf(a observe.Response, all ...attribute.KeyValue) []attribute.KeyValue {
	return append(all, labelStatus.Int(a.Status))
}

func registerWaiting(m *telemetry.Metrics, w *waiting) error {
	perBroker := func(value func(brokerWaiting) float64) telemetry.Observe {
		return func(r report) {
			for _, b := range w.read() {
				r(value(b), labelBroker.String(b.broker))
			}
		}
	}
	perTrigger := func(tell func(t triggerWaiting, r report, of ...attribute.KeyValue)) telemetry.Observe {
		return func(r report) {
			for _, b := range w.read() {
				for name, t := range b.triggers {
					tell(t, r, ofTrigger(b.broker, name)...)
				}
			}
		}
	}
	return errors.Join(
		m.Gauge(telemetry.Description{
			Name: "millrace.broker.stored", Unit: "{event}", Labels: labels{labelBroker},
			Text: "Accepted events that are not settled by all Triggers. Every filter reports what the store says, as it does for what waits.",
		}, perBroker(func(b brokerWaiting) float64 { return float64(b.events.Messages) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.broker.stored.size", Unit: "By", Labels: labels{labelBroker}, Text: "Their bytes in the store.",
		}, perBroker(func(b brokerWaiting) float64 { return float64(b.events.Bytes) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.backlog", Unit: "{event}", Labels: labels{labelBroker, labelTrigger, labelState},
			Text: "Events that wait in the store for the Trigger: ready for a place, or delayed until the next attempt is due.",
		}, perTrigger(func(t triggerWaiting, r report, of ...attribute.KeyValue) {
			r(float64(t.backlog), append(of[:2:2], labelState.String("ready"))...)
			r(float64(t.delayed), append(of[:2:2], labelState.String("delayed"))...)
		})),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.oldest.age", Unit: "s", Labels: labels{labelBroker, labelTrigger},
			Text: "How long the oldest of these has waited; 0 if none does.",
		}, perTrigger(func(t triggerWaiting, r report, of ...attribute.KeyValue) {
			age := 0.0
			if !t.oldest.IsZero() {
				age = max(0, time.Since(t.oldest).Seconds())
			}
			r(age, of...)
		})),
		m.Gauge(telemetry.Description{
			Name: "millrace.trigger.parked", Unit: "{event}", Labels: labels{labelBroker, labelTrigger},
			Text: "Events that were given up and are kept for people to look at, see dead-letters.md.",
		}, perTrigger(func(t triggerWaiting, r report, of ...attribute.KeyValue) { r(float64(t.parked), of...) })),
	)
}

// labels are those of a source, with more after them.
func (s sourceState) labels(more ...attribute.KeyValue) []attribute.KeyValue {
	return append([]attribute.KeyValue{labelKind.String(s.kind), labelSource.String(s.key)}, more...)
}

func registerSources(m *telemetry.Metrics, s *sources) error {
	each := func(value func(sourceState) float64) telemetry.Observe {
		return func(r report) {
			for _, state := range s.states() {
				r(value(state), state.labels()...)
			}
		}
	}
	of := labels{labelKind, labelSource}
	return errors.Join(
		m.Gauge(telemetry.Description{
			Name: "millrace.source.ready", Labels: labels{labelKind, labelSource, labelReason},
			Text: "1 for the reason given, which is Ready if the source receives events.",
		}, func(r report) {
			for _, state := range s.states() {
				r(1, state.labels(labelReason.String(cmp.Or(state.Reason, "Ready")))...)
			}
		}),
		m.Gauge(telemetry.Description{Name: "millrace.source.assigned", Unit: "{partition}", Text: "Partitions that this process has.", Labels: of},
			each(func(s sourceState) float64 { return float64(s.Assigned) })),
		m.Gauge(telemetry.Description{Name: "millrace.source.lag", Unit: "{message}", Text: "Messages in these partitions that are not settled.", Labels: of},
			each(func(s sourceState) float64 { return float64(s.Lag) })),
		m.Gauge(telemetry.Description{Name: "millrace.source.oldest", Unit: "s", Text: "Age of the oldest message received and not settled.", Labels: of},
			each(func(s sourceState) float64 { return s.Oldest.Seconds() })),
		m.Gauge(telemetry.Description{Name: "millrace.source.held", Unit: "By", Text: "Bytes of messages received and not settled.", Labels: of},
			each(func(s sourceState) float64 { return float64(s.Held) })),
		m.Gauge(telemetry.Description{Name: "millrace.source.waiting", Unit: "{delivery}", Text: "Deliveries that wait to try the sink again.", Labels: of},
			each(func(s sourceState) float64 { return float64(s.Outlet.Waiting) })),
		m.Gauge(telemetry.Description{
			Name: "millrace.source.last.error.time", Labels: of, Text: "When the sink last failed, in seconds since 1970; 0 if it never did.",
		}, each(func(s sourceState) float64 { return float64(max(s.Outlet.LastErrorAt.Unix(), 0)) })),
		m.Counter(telemetry.Description{Name: "millrace.source.failures", Unit: "{request}", Text: "Attempts to deliver that failed.", Labels: of},
			each(func(s sourceState) float64 { return float64(s.Outlet.Failed) })),
		m.Counter(telemetry.Description{
			Name: "millrace.source.events", Unit: "{message}", Labels: labels{labelKind, labelSource, labelOutcome}, Text: "Messages by what became of them.",
		}, func(r report) {
			for _, state := range s.states() {
				for outcome, n := range map[string]uint64{
					"sent": state.Outlet.Sent, "dead_lettered": state.Outlet.DeadLettered, "dropped": state.Outlet.Dropped,
				} {
					r(float64(n), state.labels(labelOutcome.String(outcome))...)
				}
			}
		}),
	)
}
