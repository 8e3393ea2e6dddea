package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

const (
	// triggersAtOnce bounds how many Triggers are looked at at the same time; each may wait for the API server or a filter.
	triggersAtOnce = 8
	// servedAnnotation of a status is the state of the Trigger that all filters have said to serve.
	servedAnnotation = "millrace.dev/served-state"
	// answerPatience is how long filters may take to say whether they serve a Trigger, servedRetry when they are asked again.
	answerPatience, servedRetry = 500 * time.Millisecond, 100 * time.Millisecond
)

// triggers reconciles the Triggers of our Brokers.
type triggers struct {
	reconciler
	compiler *trigger.Compiler
	filters  *stream.Observer
}

func (r *triggers) setUp(m ctrl.Manager) error {
	c, err := ctrl.NewControllerManagedBy(m).For(&eventingv1.Trigger{}).
		Watches(&eventingv1.Broker{}, enqueueTriggersOf(r.client)).
		Watches(&eventingv1.Broker{}, enqueueReferrers(r.client, &eventingv1.TriggerList{}, brokerKind())).
		Watches(&corev1.Service{}, enqueueReferrers(r.client, &eventingv1.TriggerList{}, serviceKind())).
		WithOptions(controller.Options{MaxConcurrentReconciles: triggersAtOnce}).
		Build(r)
	r.objects.notify(c, &eventingv1.TriggerList{})
	return err
}

// Reconcile makes a Trigger's status what it should be.
func (r *triggers) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	t := &eventingv1.Trigger{}
	err := r.client.Get(ctx, request.NamespacedName, t)
	if apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil
	}
	if err != nil || t.DeletionTimestamp != nil {
		return ctrl.Result{}, err
	}
	broker, err := brokerOf(ctx, r.client, t)
	if err != nil || !concernsUs(t, broker) {
		return ctrl.Result{}, err
	}
	eventingv1.DefaultTrigger(t)
	restoreGenerations(&t.Status.Status)
	old := t.DeepCopy()
	again, err := r.observe(ctx, t, broker)
	if err != nil || equality.Semantic.DeepEqual(old.Status, t.Status) {
		return ctrl.Result{RequeueAfter: again}, err
	}
	return ctrl.Result{RequeueAfter: again}, r.write(ctx, change{
		old: old, object: t, before: &old.Status.Status, after: &t.Status.Status,
	})
}

// concernsUs says whether a Trigger's status is ours to write. That of one without a Broker is anybody's; once it has
// been said that there is none, the word of another implementation is as good as ours, and two would contradict each
// other for ever.
func concernsUs(t *eventingv1.Trigger, broker *eventingv1.Broker) bool {
	if broker != nil {
		return ours(broker) || misspelled(broker)
	}
	said := meta.FindStatusCondition(t.Status.Conditions, eventingv1.ConditionBrokerReady)
	return said == nil || said.Status == metav1.ConditionTrue || said.Reason != eventingv1.ReasonBrokerDoesNotExist ||
		t.Status.ObservedGeneration != t.Generation
}

// observe fills in the Trigger's status and returns when to look again, 0 if only a change can make a difference.
func (r *triggers) observe(ctx context.Context, t *eventingv1.Trigger, broker *eventingv1.Broker) (time.Duration, error) {
	t.Status.ObservedGeneration = t.Generation
	c := resolve.Conditions{Status: &t.Status.Status, Now: r.now()}
	resolve.BrokerReady(t.BrokerName().String(), broker, c)
	lookups := r.lookups(ctx)
	lookup := resolve.Lookup(lookups.lookup)
	lookup.Subscriber(t, c)
	lookups.remark(eventingv1.ConditionSubscriberResolved, c)
	lookup.TriggerSink(t, broker, c)
	lookups.remark(eventingv1.ConditionDeadLetterSinkResolved, c)
	lookups.dependency(t, c)
	if lookups.err != nil {
		return 0, lookups.err
	}
	again := r.subscription(ctx, t, broker, c)
	resolve.Paused(t, c)
	if again == 0 && lookups.look {
		again = lookAgain
	}
	c.SumUp(eventingv1.ConditionBrokerReady, eventingv1.ConditionSubscriberResolved, eventingv1.ConditionDeadLetterSinkResolved,
		eventingv1.ConditionDependencyReady, eventingv1.ConditionSubscriptionReady)
	return again, nil
}

// subscription sets SubscriptionReady, which is True once all filters serve the Trigger as it is now, and returns when
// to ask them again.
//
// What they have said once stays true: a filter never goes back, and one that starts takes no event before it knows all
// Triggers. So filters may come, go and be down without a Trigger being less ready: what it is to get waits in the store.
func (r *triggers) subscription(ctx context.Context, t *eventingv1.Trigger, broker *eventingv1.Broker, c resolve.Conditions) time.Duration {
	const kind = eventingv1.ConditionSubscriptionReady
	if faults := r.check(t, broker); len(faults) > 0 {
		c.False(kind, eventingv1.ReasonInvalidSpec, faults.ToAggregate().Error())
		return 0
	}
	if broker == nil || !ours(broker) || t.Status.SubscriberURI == nil || !meta.IsStatusConditionTrue(t.Status.Conditions, eventingv1.ConditionDeadLetterSinkResolved) {
		c.Set(kind, metav1.ConditionUnknown, eventingv1.ReasonNotServedYet, "the filters serve the Trigger once its Broker and all addresses are there")
		return 0
	}
	state := resolve.State(t, broker)
	if t.Status.Annotations[servedAnnotation] == state {
		c.True(kind, eventingv1.ReasonReady)
		return 0
	}
	filters, behind, err := r.filters.Ask(ctx, stream.Version{UID: string(t.UID), State: state}, answerPatience)
	switch {
	case err != nil:
		c.Set(kind, metav1.ConditionUnknown, eventingv1.ReasonNotServedYet, "the filters cannot be asked whether they serve the Trigger, as NATS is away or this controller has only just started")
	case filters == 0:
		c.False(kind, eventingv1.ReasonNoFilter, "no filter is running: check the Deployment broker-filter, and that it reaches NATS")
		return storeRetry
	case behind > 0:
		c.Set(kind, metav1.ConditionUnknown, eventingv1.ReasonNotServedYet, "not every filter serves the Trigger yet; if this lasts, look at the logs of broker-filter")
	default:
		t.Status.Annotations = map[string]string{servedAnnotation: state}
		c.True(kind, eventingv1.ReasonReady)
		return 0
	}
	return servedRetry
}

// check returns why the data plane cannot serve the Trigger, whatever its subscriber.
func (r *triggers) check(t *eventingv1.Trigger, broker *eventingv1.Broker) field.ErrorList {
	errs := eventingv1.ValidateTrigger(t)
	if t.BrokerName().Namespace != t.Namespace {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "brokerRef", "namespace"),
			"must be the Trigger's own: a Trigger may not take the events of another namespace"))
	}
	_, filterErrs := r.compiler.Compile(t)
	errs = append(errs, explainDropped(t, filterErrs)...)
	if broker != nil {
		_, policyErrs := delivery.ResolvePolicy(t.Spec.Delivery, broker.Spec.Delivery, t.Annotations, broker.Annotations)
		for _, err := range policyErrs { // it looks at some of what was looked at above
			if !slices.ContainsFunc(errs, func(e *field.Error) bool { return e.Field == err.Field }) {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// explainDropped adds to the error of an element of spec.filters with nothing in it how that may have come. Our CRD refuses
// such an element; Knative's makes one of a filter that it does not know.
func explainDropped(t *eventingv1.Trigger, errs field.ErrorList) field.ErrorList {
	for _, err := range errs {
		for i := range t.Spec.Filters {
			if equality.Semantic.DeepEqual(t.Spec.Filters[i], eventingv1.Filter{}) && err.Field == field.NewPath("spec", "filters").Index(i).String() {
				err.Detail += fmt.Sprintf("; if cel was in it, the CRD of Triggers in this cluster does not keep that: write the annotation %s instead", eventingv1.CELFilterAnnotation)
			}
		}
	}
	return errs
}
