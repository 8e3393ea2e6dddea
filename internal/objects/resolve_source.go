package objects

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/resolve"
)

// source fills in the status of a source, as far as it follows from the manifests.
func (r *resolver) source(source sourcesv1.Source, set *Set, now metav1.Time) {
	status := source.Observed()
	status.ObservedGeneration = source.GetGeneration()
	c := resolve.Conditions{Status: &status.Status, Now: now}
	target, fault := r.sink(&source.Common().Sink)
	status.SinkURI = target
	resolved(c, sourcesv1.ConditionSinkProvided, sourcesv1.ReasonSinkUnresolved, fault)
	SecretsProvided(source, set, c)
	r.sourceDeadLetterSink(source, c)
	c.SumUp(sourcesv1.ConditionSinkProvided, sourcesv1.ConditionSecretsProvided, eventingv1.ConditionDeadLetterSinkResolved)
}

// resolved sets a condition: True without a fault, else False.
func resolved(c resolve.Conditions, kind, reason string, fault error) {
	if fault != nil {
		c.False(kind, reason, fault.Error())
		return
	}
	c.True(kind, eventingv1.ReasonReady)
}

func (r *resolver) sourceDeadLetterSink(source sourcesv1.Source, c resolve.Conditions) {
	delivery := source.Common().Delivery
	if delivery == nil || delivery.DeadLetterSink == nil {
		c.True(eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkNotConfigured)
		return
	}
	target, fault := r.sink(delivery.DeadLetterSink)
	source.Observed().DeadLetterSinkURI = target
	resolved(c, eventingv1.ConditionDeadLetterSinkResolved, eventingv1.ReasonDeadLetterSinkUnresolved, fault)
}

// sink is destination for what may write to a Broker's stream: a Broker of ours needs no address.
func (r *resolver) sink(dest *eventingv1.Destination) (target *string, fault error) {
	if ref := dest.Ref; sourcesv1.IsBroker(dest) && r.brokerURL == nil {
		if name := (types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}); r.brokers[name] {
			return nil, nil
		}
	}
	address, err := resolve.Lookup(r.lookup).Destination(dest)
	return address.URL, err
}

// SecretsProvided sets the condition of that name by the Secrets of a Set.
func SecretsProvided(source sourcesv1.Source, set *Set, c resolve.Conditions) {
	resolved(c, sourcesv1.ConditionSecretsProvided, sourcesv1.ReasonSecretMissing, missingSecret(source, set))
}

// missingSecret says which Secret, or key of one, the source refers to and is not there; nil if there is none such.
func missingSecret(source sourcesv1.Source, set *Set) error {
	for _, ref := range source.SecretRefs() {
		if _, ok := set.Secret(source.GetNamespace(), ref.Name, ref.Key); ok || ref.Optional != nil && *ref.Optional {
			continue
		}
		return resolve.Faultf("there is no Secret %s/%s with the key %s: add it, or correct the reference", source.GetNamespace(), ref.Name, ref.Key)
	}
	return nil
}
