package app

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// The reasons why a Trigger is not in effect that the data plane itself finds.
const (
	reasonInvalidFilter   = "InvalidFilter"
	reasonInvalidDelivery = "InvalidDelivery"
	reasonInvalidURI      = "SubscriberURIInvalid"
)

// model is what the data plane serves, built from one set of objects. It is immutable.
type model struct {
	brokers []*brokerModel
	sources []*sourceModel
	// orphans are the Triggers whose Broker is not there.
	orphans  []triggerStatus
	problems []objects.Problem
	// skipped counts what the manifests hold that is not ours, by what it is.
	skipped map[string]int
}

// brokerModel is one Broker with its Triggers.
type brokerModel struct {
	names    *stream.Names
	limits   stream.Limits
	object   *eventingv1.Broker
	ingress  *broker.Broker
	dispatch *dispatch.Broker
	triggers []triggerStatus
}

func (b *brokerModel) key() string { return b.names.Namespace + "/" + b.names.Name }

// triggerStatus says whether a Trigger is in effect.
type triggerStatus struct {
	key, subscriber string
	paused          bool
	// reason and message are empty if it is.
	reason, message string
}

// table is what the ingress admits events for.
func (m *model) table() *broker.Table {
	brokers := make([]*broker.Broker, len(m.brokers))
	for i, b := range m.brokers {
		brokers[i] = b.ingress
	}
	return broker.NewTable(brokers)
}

// dispatch is what the filter serves.
func (m *model) dispatch() []*dispatch.Broker {
	brokers := make([]*dispatch.Broker, len(m.brokers))
	for i, b := range m.brokers {
		brokers[i] = b.dispatch
	}
	return brokers
}

// streams are what the store is to hold.
func (m *model) streams() []brokerStreams {
	streams := make([]brokerStreams, len(m.brokers))
	for i, b := range m.brokers {
		streams[i] = brokerStreams{b.names, b.limits}
	}
	return streams
}

// notInEffect are the Triggers that get no events.
func (m *model) notInEffect() []triggerStatus {
	found := slices.Clone(m.orphans)
	for _, b := range m.brokers {
		for _, t := range b.triggers {
			if t.reason != "" {
				found = append(found, t)
			}
		}
	}
	return found
}

// builder turns sets of objects into models. It keeps what it compiled, so that a change of one Trigger among thousands
// costs the compilation of one. It is not safe for concurrent use.
type builder struct {
	defaults LimitDefaults
	compiler *trigger.Compiler
	open     sourceOpener               // nil if sources are not run here
	compiled map[string]compiledTrigger // by UID
}

type compiledTrigger struct {
	generation int64
	annotation string // which the API server does not count as a new generation
	filter     *trigger.Filter
	errs       field.ErrorList
}

func newBuilder(defaults LimitDefaults, open sourceOpener) (*builder, error) {
	c, err := trigger.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("prepare filters: %w", err)
	}
	return &builder{defaults: defaults, compiler: c, open: open, compiled: map[string]compiledTrigger{}}, nil
}

// build does no I/O.
func (b *builder) build(set *objects.Set) *model {
	m := &model{problems: slices.Clone(set.Problems), skipped: set.Skipped}
	byKey := map[string]*brokerModel{}
	for _, o := range set.Brokers {
		bm := newBrokerModel(o, b.defaults)
		m.brokers = append(m.brokers, bm)
		byKey[bm.key()] = bm
	}
	used := make(map[string]compiledTrigger, len(set.Triggers))
	for _, o := range set.Triggers {
		bm := byKey[o.BrokerName().String()]
		if bm == nil {
			m.orphans = append(m.orphans, orphan(o))
			continue
		}
		c := b.compile(o)
		used[string(o.UID)] = c
		m.problems = append(m.problems, bm.add(o, c, set)...)
	}
	b.compiled = used
	sources, problems := b.newSources(set, byKey)
	m.sources, m.problems = sources, append(m.problems, problems...)
	slices.SortFunc(m.brokers, func(x, y *brokerModel) int { return cmp.Compare(x.key(), y.key()) })
	return m
}

func newBrokerModel(o *eventingv1.Broker, defaults LimitDefaults) *brokerModel {
	n := stream.NewNames(o.Namespace, o.Name, string(o.UID))
	dedup, _ := strconv.ParseBool(o.Annotations[eventingv1.DeduplicateAnnotation])
	limits, eventBytes := defaults.Resolve(o)
	return &brokerModel{
		names:    n,
		limits:   limits,
		object:   o,
		ingress:  &broker.Broker{Names: n, Deduplicate: dedup, MaxEventBytes: eventBytes},
		dispatch: &dispatch.Broker{Names: n, Held: map[string]bool{}, Archive: limits.ArchiveMaxAge > 0},
	}
}

// compile compiles the Trigger's filter, unless it is the same as at the last build.
func (b *builder) compile(o *eventingv1.Trigger) compiledTrigger {
	c, ok := b.compiled[string(o.UID)]
	annotation := o.Annotations[eventingv1.CELFilterAnnotation]
	if ok && c.generation == o.Generation && c.annotation == annotation {
		return c
	}
	c = compiledTrigger{generation: o.Generation, annotation: annotation}
	c.filter, c.errs = b.compiler.Compile(o)
	return c
}

// add takes the Trigger up if it can be in effect, and returns what keeps it from that.
func (b *brokerModel) add(o *eventingv1.Trigger, c compiledTrigger, set *objects.Set) []objects.Problem {
	t, status, errs := newTrigger(o, b.object, c)
	b.triggers = append(b.triggers, status)
	if t == nil {
		b.dispatch.Held[string(o.UID)] = true
		return set.Explain(objects.Key{Kind: eventingv1.KindTrigger, Namespace: o.Namespace, Name: o.Name}, errs)
	}
	b.dispatch.Triggers = append(b.dispatch.Triggers, t)
	return nil
}

// newTrigger returns the Trigger as the dispatcher needs it, or nil and why it cannot be in effect.
func newTrigger(o *eventingv1.Trigger, of *eventingv1.Broker, c compiledTrigger) (*dispatch.Trigger, triggerStatus, field.ErrorList) {
	status := triggerStatus{key: o.Namespace + "/" + o.Name}
	fail := func(reason string, errs field.ErrorList) (*dispatch.Trigger, triggerStatus, field.ErrorList) {
		status.reason, status.message = reason, errs.ToAggregate().Error()
		return nil, status, errs
	}
	if cond := notReady(o); cond != nil {
		status.reason, status.message = cond.Reason, cond.Message
		return nil, status, nil
	}
	if len(c.errs) > 0 {
		return fail(reasonInvalidFilter, c.errs)
	}
	policy, errs := delivery.ResolvePolicy(o.Spec.Delivery, of.Spec.Delivery, o.Annotations, of.Annotations)
	if len(errs) > 0 {
		return fail(reasonInvalidDelivery, errs)
	}
	subscriber, sink, errs := endpoints(o)
	if len(errs) > 0 {
		return fail(reasonInvalidURI, errs)
	}
	status.subscriber, status.paused = subscriber.Redacted(), o.Paused()
	limit, _ := strconv.Atoi(o.Annotations[eventingv1.MaxConcurrencyAnnotation])
	rate, _ := strconv.Atoi(o.Annotations[eventingv1.RateLimitAnnotation])
	return &dispatch.Trigger{
		Namespace: o.Namespace, Name: o.Name, UID: string(o.UID),
		Filter: c.filter, Subscriber: subscriber, DeadLetterSink: sink, Policy: policy, MaxConcurrency: limit,
		Paused: status.paused, RateLimit: rate,
		State: resolve.State(o, of),
	}, status, nil
}

// orphan is the status of a Trigger of a Broker that is not there.
func orphan(o *eventingv1.Trigger) triggerStatus {
	status := triggerStatus{
		key: o.Namespace + "/" + o.Name, reason: eventingv1.ReasonBrokerDoesNotExist,
		message: "there is no Broker " + o.BrokerName().String(),
	}
	if cond := falseCondition(o, eventingv1.ConditionBrokerReady); cond != nil {
		status.reason, status.message = cond.Reason, cond.Message
	}
	return status
}

// notReady returns the condition by which whoever resolved the Trigger keeps it out of effect, or nil. Other conditions
// do not: a Trigger must not miss events because its Broker, or what it depends on, is not well for a while, and Ready
// waits in turn for it to be in effect.
func notReady(o *eventingv1.Trigger) *metav1.Condition {
	if c := falseCondition(o, eventingv1.ConditionSubscriberResolved, eventingv1.ConditionDeadLetterSinkResolved); c != nil {
		return c
	}
	if o.Status.SubscriberURI == nil {
		return &metav1.Condition{Reason: eventingv1.ReasonSubscriberUnresolved, Message: "the subscriber has no address yet"}
	}
	return nil
}

// falseCondition returns the first of the Trigger's conditions of the given kinds that is False, or nil.
func falseCondition(o *eventingv1.Trigger, kinds ...string) *metav1.Condition {
	for _, kind := range kinds {
		if c := meta.FindStatusCondition(o.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionFalse {
			return c
		}
	}
	return nil
}

// endpoints parses the resolved URLs of the Trigger.
func endpoints(o *eventingv1.Trigger) (subscriber, sink *url.URL, errs field.ErrorList) {
	parse := func(raw *string, path ...string) *url.URL {
		if raw == nil {
			return nil
		}
		u, err := url.Parse(*raw)
		if err != nil {
			errs = append(errs, field.Invalid(field.NewPath(path[0], path[1:]...), *raw, "is no URL: write one such as http://service.namespace.svc.cluster.local/path"))
		}
		return u
	}
	subscriber = parse(o.Status.SubscriberURI, "spec", "subscriber", "uri")
	sink = parse(o.Status.DeadLetterSinkURI, "spec", "delivery", "deadLetterSink", "uri")
	return subscriber, sink, errs
}
