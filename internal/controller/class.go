package controller

import (
	"fmt"
	"strings"

	"github.com/agext/levenshtein"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
)

// ours says whether a Broker is of class Millrace.
func ours(b *eventingv1.Broker) bool {
	return b.Annotations[eventingv1.BrokerClassAnnotation] == eventingv1.BrokerClass
}

// misspelled says whether a Broker's class is ours but for a slip. Nobody else serves such a class, so it is for us to say
// what is wrong.
func misspelled(b *eventingv1.Broker) bool {
	const slips, longest = 2, 32
	class := b.Annotations[eventingv1.BrokerClassAnnotation]
	return !ours(b) && len(class) <= longest &&
		levenshtein.Distance(strings.ToLower(class), strings.ToLower(eventingv1.BrokerClass), nil) <= slips
}

// observeMisspelled fills in the status of a Broker whose class is misspelled.
func observeMisspelled(b *eventingv1.Broker, c resolve.Conditions) {
	c.False(eventingv1.ConditionTriggerChannelReady, eventingv1.ReasonWrongClass,
		fmt.Sprintf("nobody serves Brokers of class %q: write %s. As the class of a Broker cannot be changed, delete the Broker and create it anew",
			b.Annotations[eventingv1.BrokerClassAnnotation], eventingv1.BrokerClass))
	c.SumUp(eventingv1.ConditionTriggerChannelReady)
}
