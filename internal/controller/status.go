package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// maxNote is the longest note of an Event, in bytes.
const maxNote = 1024

// reconciler is what all reconcilers have in common.
type reconciler struct {
	client  client.Client
	events  events.EventRecorder
	objects *objects
	// services is the domain that follows a Service's name and namespace.
	services string
	now      func() metav1.Time
}

// change is a new status of an object.
type change struct {
	old, object   client.Object
	before, after *eventingv1.Status
}

// restoreGenerations puts back what Knative's CRDs drop of conditions, so that a status is not taken for a changed one. All of
// our conditions speak of the generation that the status does.
func restoreGenerations(s *eventingv1.Status) {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.ObservedGeneration == 0 {
			c.ObservedGeneration = s.ObservedGeneration
		}
	}
}

// write stores the new status and, if Ready is not what it was, tells of it in an Event.
func (r *reconciler) write(ctx context.Context, c change) error {
	patch := client.MergeFromWithOptions(c.old, client.MergeFromWithOptimisticLock{})
	err := r.client.Status().Patch(ctx, c.object, patch)
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // the cache is behind: what is newer will be looked at when it gets here, and is not told of twice
	case err != nil:
		return fmt.Errorf("write status: %w", err)
	}
	was := meta.FindStatusCondition(c.before.Conditions, eventingv1.ConditionReady)
	is := meta.FindStatusCondition(c.after.Conditions, eventingv1.ConditionReady)
	if was != nil && was.Status == is.Status && was.Reason == is.Reason && was.Message == is.Message {
		return nil
	}
	if is.Status == metav1.ConditionUnknown {
		return nil // it will be known in a moment
	}
	kind, note := corev1.EventTypeWarning, is.Message
	if is.Status == metav1.ConditionTrue {
		kind, note = corev1.EventTypeNormal, "The object is ready."
	}
	r.events.Eventf(c.object, nil, kind, is.Reason, "Reconcile", "%s", note[:min(len(note), maxNote)])
	return nil
}
