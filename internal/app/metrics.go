package app

import (
	"cmp"
	"errors"

	"go.opentelemetry.io/otel/attribute"

	"millrace.dev/internal/telemetry"
	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/dispatch"
)

type report = func(value int64, labels ...attribute.KeyValue)

// registerMetrics exposes what the parts of the process count.
func (p *process) registerMetrics() error {
	err := p.metrics.Gauge("millrace.nats.connected", "1 while the connection to NATS is up, else 0.", func(r report) {
		up := int64(0)
		if p.conn.Connected() {
			up = 1
		}
		r(up)
	})
	if p.ingress != nil {
		err = errors.Join(err, registerIngress(p.metrics, p.ingress.handler))
	}
	if p.filter != nil {
		err = errors.Join(err, registerFilter(p.metrics, p.filter.dispatcher))
	}
	if p.sources != nil {
		err = errors.Join(err, registerSources(p.metrics, p.sources))
	}
	return err
}

func registerIngress(m *telemetry.Metrics, h *broker.Handler) error {
	return errors.Join(
		m.Counter("millrace.ingress.events", "Events accepted, that is stored and confirmed.", func(r report) {
			r(int64(h.Stats().AcceptedEvents))
		}),
		m.Counter("millrace.ingress.refused", "Requests refused, by reason.", func(r report) {
			for reason, n := range h.Stats().Refused {
				r(int64(n), attribute.String("reason", reason.String()))
			}
		}),
	)
}

// deliveryOutcomes are the ways in which a matched event can go on.
func deliveryOutcomes(c dispatch.Counts) map[string]uint64 {
	return map[string]uint64{
		"delivered": c.Delivered, "retried": c.Retried, "overflowed": c.Overflowed,
		"dead_lettered": c.DeadLettered, "parked": c.Parked,
	}
}

func registerFilter(m *telemetry.Metrics, d *dispatch.Dispatcher) error {
	perTrigger := func(value func(dispatch.TriggerStats) int64) telemetry.Observe {
		return func(r report) {
			for _, s := range d.Stats() {
				r(value(s), attribute.String("broker", s.Broker), attribute.String("trigger", s.Trigger))
			}
		}
	}
	return errors.Join(
		m.Counter("millrace.trigger.matched", "Events that matched the Trigger.",
			perTrigger(func(s dispatch.TriggerStats) int64 { return int64(s.Matched) })),
		m.Counter("millrace.trigger.attempts", "Requests made to the Trigger's subscriber.",
			perTrigger(func(s dispatch.TriggerStats) int64 { return int64(s.Attempts) })),
		m.Gauge("millrace.trigger.active", "Deliveries under way in this process.",
			perTrigger(func(s dispatch.TriggerStats) int64 { return int64(s.Active) })),
		m.Counter("millrace.trigger.events", "Matched events by what became of them.", func(r report) {
			for _, s := range d.Stats() {
				for outcome, n := range deliveryOutcomes(s.Counts) {
					r(int64(n), attribute.String("broker", s.Broker), attribute.String("trigger", s.Trigger),
						attribute.String("outcome", outcome))
				}
			}
		}),
		m.Counter("millrace.trigger.replies", "Replies of the Trigger's subscriber, by what became of them.", func(r report) {
			for _, s := range d.Stats() {
				for outcome, n := range map[string]uint64{"stored": s.Replies, "dropped": s.RepliesDropped, "ignored": s.RepliesIgnored} {
					r(int64(n), attribute.String("broker", s.Broker), attribute.String("trigger", s.Trigger),
						attribute.String("outcome", outcome))
				}
			}
		}),
		m.Counter("millrace.filter.errors", "Filter expressions that failed at evaluation and so did not match.", func(r report) {
			for _, s := range d.FilterErrors() {
				key := attribute.String("broker", s.Broker)
				r(int64(s.CEL), key, attribute.String("dialect", "cel"))
				r(int64(s.CESQL), key, attribute.String("dialect", "cesql"))
			}
		}),
	)
}

func registerSources(m *telemetry.Metrics, s *sources) error {
	each := func(value func(sourceState) int64) telemetry.Observe {
		return func(r report) {
			for _, state := range s.states() {
				r(value(state), attribute.String("source", state.key))
			}
		}
	}
	return errors.Join(
		m.Gauge("millrace.source.ready", "1 for the reason given, which is Ready if the source receives events.", func(r report) {
			for _, state := range s.states() {
				r(1, attribute.String("source", state.key), attribute.String("reason", cmp.Or(state.Reason, "Ready")))
			}
		}),
		m.Gauge("millrace.source.assigned", "Partitions that this process has.",
			each(func(s sourceState) int64 { return int64(s.Assigned) })),
		m.Gauge("millrace.source.lag", "Messages in these partitions that are not settled.",
			each(func(s sourceState) int64 { return s.Lag })),
		m.Gauge("millrace.source.oldest.seconds", "Age of the oldest message received and not settled.",
			each(func(s sourceState) int64 { return int64(s.Oldest.Seconds()) })),
		m.Gauge("millrace.source.held.bytes", "Bytes of messages received and not settled.",
			each(func(s sourceState) int64 { return s.Held })),
		m.Gauge("millrace.source.waiting", "Deliveries that wait to try the sink again.",
			each(func(s sourceState) int64 { return s.Outlet.Waiting })),
		m.Gauge("millrace.source.last.error.time", "When the sink last failed, in seconds since 1970; 0 if it never did.",
			each(func(s sourceState) int64 { return max(s.Outlet.LastErrorAt.Unix(), 0) })),
		m.Counter("millrace.source.failures", "Attempts to deliver that failed.",
			each(func(s sourceState) int64 { return int64(s.Outlet.Failed) })),
		m.Counter("millrace.source.events", "Messages by what became of them.", func(r report) {
			for _, state := range s.states() {
				for outcome, n := range map[string]uint64{
					"sent": state.Outlet.Sent, "dead_lettered": state.Outlet.DeadLettered, "dropped": state.Outlet.Dropped,
				} {
					r(int64(n), attribute.String("source", state.key), attribute.String("outcome", outcome))
				}
			}
		}),
	)
}
