package controller

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/stream"
)

const (
	// verifyEvery is how often a Broker's streams are looked at without a cause: people delete them.
	verifyEvery = time.Minute
	// storeRetry is the pause after the store could not be asked, refusalRetry that after it said no.
	storeRetry, refusalRetry = 2 * time.Second, 10 * time.Second
	// brokersAtOnce bounds how many Brokers are looked at at the same time; each may wait for NATS.
	brokersAtOnce = 4
)

// brokers reconciles Brokers of class Millrace.
type brokers struct {
	reconciler
	conn   *stream.Conn
	limits func(*eventingv1.Broker) stream.Limits
	// ingress is the URL that a Broker's namespace and name are added to.
	ingress string
}

func (r *brokers) setUp(m ctrl.Manager) error {
	c, err := ctrl.NewControllerManagedBy(m).For(&eventingv1.Broker{}).
		Watches(&corev1.Service{}, enqueueReferrers(r.client, &eventingv1.BrokerList{}, serviceKind())).
		Watches(&eventingv1.Broker{}, enqueueReferrers(r.client, &eventingv1.BrokerList{}, brokerKind())).
		WithOptions(controller.Options{MaxConcurrentReconciles: brokersAtOnce}).
		Build(r)
	r.objects.notify(c, &eventingv1.BrokerList{})
	return err
}

// Reconcile makes a Broker's streams and status what they should be.
func (r *brokers) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	b := &eventingv1.Broker{}
	err := r.client.Get(ctx, request.NamespacedName, b)
	if apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil // its streams are for the sweeper
	}
	if err != nil || !ours(b) && !misspelled(b) || b.DeletionTimestamp != nil {
		return ctrl.Result{}, err
	}
	eventingv1.DefaultBroker(b)
	restoreGenerations(&b.Status.Status)
	old := b.DeepCopy()
	again, err := r.observe(ctx, b)
	if err != nil || equality.Semantic.DeepEqual(old.Status, b.Status) {
		return ctrl.Result{RequeueAfter: again}, err
	}
	return ctrl.Result{RequeueAfter: again}, r.write(ctx, change{
		old: old, object: b, before: &old.Status.Status, after: &b.Status.Status,
	})
}

// observe fills in the Broker's status and returns when to look again.
func (r *brokers) observe(ctx context.Context, b *eventingv1.Broker) (time.Duration, error) {
	status := &b.Status
	status.ObservedGeneration = b.Generation
	c := resolve.Conditions{Status: &status.Status, Now: r.now()}
	if !ours(b) {
		observeMisspelled(b, c)
		return 0, nil
	}

	name, address := "http", r.ingress+"/"+b.Namespace+"/"+b.Name
	status.Address = &eventingv1.Addressable{Name: &name, URL: &address}
	status.Addresses = []eventingv1.Addressable{*status.Address}
	c.True(eventingv1.ConditionAddressable, eventingv1.ReasonReady)

	lookups := r.lookups(ctx)
	resolve.Lookup(lookups.lookup).BrokerSink(b, c)
	lookups.remark(eventingv1.ConditionDeadLetterSinkResolved, c)
	if lookups.err != nil {
		return 0, lookups.err
	}
	again := r.provide(ctx, b, c)
	if lookups.look {
		again = min(again, lookAgain)
	}
	c.SumUp(eventingv1.ConditionTriggerChannelReady, eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ConditionAddressable)
	return again, nil
}

// provide makes the Broker's streams and returns when to look at them again. What is wrong with the Broker itself is
// told in the same condition: its streams are not what its author had in mind.
func (r *brokers) provide(ctx context.Context, b *eventingv1.Broker, c resolve.Conditions) time.Duration {
	const kind = eventingv1.ConditionTriggerChannelReady
	err := r.conn.Ensure(ctx, stream.NewNames(b.Namespace, b.Name, string(b.UID)), r.limits(b))
	faults := eventingv1.ValidateBroker(b)
	var refused *stream.RefusedError
	switch {
	case errors.Is(err, stream.ErrUnavailable):
		c.False(kind, eventingv1.ReasonStoreUnavailable,
			"NATS JetStream does not answer the controller: check that it runs and that the controller may reach it")
		return storeRetry
	case errors.As(err, &refused): // the first of its streams speaks for the others
		c.False(kind, eventingv1.ReasonStreamRefused, refused.Error())
		return refusalRetry
	case len(faults) > 0:
		c.False(kind, eventingv1.ReasonInvalidSpec, faults.ToAggregate().Error())
	case err != nil: // ErrKept: the streams work, with other settings
		c.Set(kind, metav1.ConditionTrue, eventingv1.ReasonStreamSettingsKept, err.Error())
	default:
		c.True(kind, eventingv1.ReasonReady)
	}
	return verifyEvery
}

// brokerOf returns the Broker of a Trigger, nil if there is none.
func brokerOf(ctx context.Context, c client.Reader, t *eventingv1.Trigger) (*eventingv1.Broker, error) {
	b := &eventingv1.Broker{}
	err := c.Get(ctx, t.BrokerName(), b)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return b, err
}
