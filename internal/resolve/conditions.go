package resolve

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// Conditions writes the conditions of a status. Each gets the status's ObservedGeneration, so that is to be set first.
type Conditions struct {
	Status *eventingv1.Status
	// Now is the time of a transition. A condition whose status stays the same keeps the time it has.
	Now metav1.Time
}

// True sets a condition that asks for nothing.
func (c Conditions) True(kind, reason string) { c.Set(kind, metav1.ConditionTrue, reason, "") }

// False sets a condition whose message says what to do.
func (c Conditions) False(kind, reason, message string) {
	c.Set(kind, metav1.ConditionFalse, reason, message)
}

// Set sets a condition.
func (c Conditions) Set(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: c.Status.ObservedGeneration, LastTransitionTime: c.Now,
	})
}

// copyFrom takes a condition over from another status.
func (c Conditions) copyFrom(other *eventingv1.Status, kind string) {
	if condition := meta.FindStatusCondition(other.Conditions, kind); condition != nil {
		c.Set(kind, condition.Status, condition.Reason, condition.Message)
	}
}

// SumUp sets Ready: True when each of kinds is, else what the first is that is not True. Each of kinds must be set.
func (c Conditions) SumUp(kinds ...string) {
	for _, kind := range kinds {
		condition := meta.FindStatusCondition(c.Status.Conditions, kind)
		if condition.Status != metav1.ConditionTrue {
			c.Set(eventingv1.ConditionReady, condition.Status, condition.Reason, condition.Message)
			return
		}
	}
	c.True(eventingv1.ConditionReady, eventingv1.ReasonReady)
}
