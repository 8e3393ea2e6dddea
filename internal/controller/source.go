package controller

import (
	"context"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/stream"
)

const (
	// sourcesAtOnce bounds how many sources of a kind are looked at at the same time; each may wait for the API server or for a
	// process that runs sources.
	sourcesAtOnce = 8
	// askEvery is how often the processes are asked how a source is, and askSoon how soon again while that is not known.
	askEvery, askSoon = 5 * time.Second, 500 * time.Millisecond
	// rewriteEvery is how often messages and numbers are written that have changed while all conditions are as they were.
	rewriteEvery = 30 * time.Second
)

// sourceKind is a kind of source.
type sourceKind struct {
	object func() sourcesv1.Source
	list   func() client.ObjectList
}

func sourceKinds() []sourceKind {
	return []sourceKind{
		{func() sourcesv1.Source { return &sourcesv1.KafkaSource{} }, func() client.ObjectList { return &sourcesv1.KafkaSourceList{} }},
		{func() sourcesv1.Source { return &sourcesv1alpha1.RocketMQSource{} }, func() client.ObjectList { return &sourcesv1alpha1.RocketMQSourceList{} }},
	}
}

// sources reconciles the sources of a kind: it finds out where their events go, and asks those who run them how they are.
type sources struct {
	reconciler
	kind      sourceKind
	processes *stream.Observer
}

func (r *sources) setUp(m ctrl.Manager) error {
	c, err := ctrl.NewControllerManagedBy(m).For(r.kind.object()).
		Watches(&corev1.Service{}, enqueueReferrers(r.client, r.kind.list(), serviceKind())).
		Watches(&eventingv1.Broker{}, enqueueReferrers(r.client, r.kind.list(), brokerKind())).
		WithOptions(controller.Options{MaxConcurrentReconciles: sourcesAtOnce}).
		Build(r)
	if err != nil {
		return err
	}
	r.objects.notify(c, r.kind.list())
	return nil
}

// Reconcile makes a source's status what it should be.
func (r *sources) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	s := r.kind.object()
	err := r.client.Get(ctx, request.NamespacedName, s)
	if apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil // the group's offsets are the user's
	}
	if err != nil || s.GetDeletionTimestamp() != nil {
		return ctrl.Result{}, err
	}
	s.Default()
	restoreGenerations(&s.Observed().Status)
	old, _ := s.DeepCopyObject().(sourcesv1.Source)
	again, err := r.observe(ctx, s)
	if err != nil || !worthWriting(old.Observed(), s.Observed(), r.now()) {
		return ctrl.Result{RequeueAfter: again}, err
	}
	return ctrl.Result{RequeueAfter: again}, r.write(ctx, change{
		old: old, object: s, before: &old.Observed().Status, after: &s.Observed().Status,
	})
}

// observe fills in the source's status and returns when to look again.
func (r *sources) observe(ctx context.Context, s sourcesv1.Source) (time.Duration, error) {
	status := s.Observed()
	status.ObservedGeneration = s.GetGeneration()
	status.ConsumerGroup = s.Group()
	c := resolve.Conditions{Status: &status.Status, Now: r.now()}
	lookups := r.lookups(ctx)
	lookup := resolve.Lookup(lookups.lookup)
	lookup.SourceSink(s, c)
	lookups.remark(sourcesv1.ConditionSinkProvided, c)
	lookup.SourceDeadLetterSink(s, c)
	lookups.remark(eventingv1.ConditionDeadLetterSinkResolved, c)
	if lookups.err != nil {
		return 0, lookups.err
	}
	again := r.running(ctx, s, c)
	if lookups.look {
		again = min(again, lookAgain)
	}
	c.SumUp(sourcesv1.ConditionSinkProvided, eventingv1.ConditionDeadLetterSinkResolved, sourcesv1.ConditionConnectionEstablished)
	return again, nil
}

// running sets ConnectionEstablished by what those say who run the source, and returns when to ask them again.
func (r *sources) running(ctx context.Context, s sourcesv1.Source, c resolve.Conditions) time.Duration {
	const kind = sourcesv1.ConditionConnectionEstablished
	status := s.Observed()
	if faults := s.Validate(); len(faults) > 0 {
		status.Consumption = nil
		c.False(kind, eventingv1.ReasonInvalidSpec, faults.ToAggregate().Error())
		return lookAgain
	}
	if !meta.IsStatusConditionTrue(status.Conditions, sourcesv1.ConditionSinkProvided) ||
		!meta.IsStatusConditionTrue(status.Conditions, eventingv1.ConditionDeadLetterSinkResolved) {
		status.Consumption = nil
		c.Set(kind, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet, "the source is run once all addresses are there")
		return lookAgain
	}
	state := resolve.SourceState(s)
	confirmed := status.Annotations[servedAnnotation] == state
	members, raw, err := r.processes.Reports(ctx, string(s.GetUID()), answerPatience)
	if err != nil {
		if !confirmed || meta.FindStatusCondition(status.Conditions, kind) == nil {
			c.Set(kind, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet, "those who run sources cannot be asked, as NATS is away or this controller has only just started")
		}
		return storeRetry
	}
	reports := resolve.Reports{Processes: members, State: state, Confirmed: confirmed}
	for _, text := range raw {
		var report resolve.Report
		if json.Unmarshal(text, &report) == nil {
			reports.Reports = append(reports.Reports, report)
		}
	}
	status.Consumption = reports.Consumption(r.now())
	if resolve.Running(reports, c) {
		status.Annotations = map[string]string{servedAnnotation: state}
	}
	if meta.FindStatusCondition(status.Conditions, kind).Status == metav1.ConditionUnknown {
		return askSoon
	}
	return askEvery
}

// worthWriting says whether a status is so different from the last that it is to be written now. Numbers change all the time, and
// so may messages that tell of errors.
func worthWriting(old, now *sourcesv1.SourceStatus, at metav1.Time) bool {
	if equality.Semantic.DeepEqual(unchanging(old, true), unchanging(now, true)) {
		return false
	}
	recent := old.Consumption != nil && at.Sub(old.Consumption.Time.Time) < rewriteEvery
	return !recent || !equality.Semantic.DeepEqual(unchanging(old, false), unchanging(now, false))
}

// unchanging returns the status without the time it was taken, and without numbers and messages unless they are wanted.
func unchanging(s *sourcesv1.SourceStatus, messages bool) *sourcesv1.SourceStatus {
	s = s.DeepCopy()
	switch {
	case !messages:
		s.Consumption = nil
		for i := range s.Conditions {
			s.Conditions[i].Message = ""
		}
	case s.Consumption != nil:
		s.Consumption.Time = metav1.Time{}
		if s.Consumption.Lag == 0 {
			s.Consumption.OldestSeconds = 0
		}
	}
	return s
}
