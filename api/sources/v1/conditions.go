package v1

import eventingv1 "millrace.dev/api/eventing/v1"

// The condition types of sources, beside Ready and DeadLetterSinkResolved.
const (
	// ConditionSinkProvided says whether it is known where the events go.
	ConditionSinkProvided = "SinkProvided"
	// ConditionSecretsProvided says whether the Secrets are there that the source refers to.
	ConditionSecretsProvided = "SecretsProvided"
	// ConditionConnectionEstablished says whether the processes that run sources receive what the source's system has.
	ConditionConnectionEstablished = "ConnectionEstablished"
)

// The reasons of conditions that are False. A reason is for programs; the message beside it tells people what to do.
const (
	// ReasonSinkUnresolved is the reason of a source whose sink has no known address.
	ReasonSinkUnresolved = "SinkUnresolved"
	// ReasonSecretMissing is the reason of a source that refers to a Secret, or a key of one, that is not there.
	ReasonSecretMissing = "SecretMissing"
	// ReasonSecretNotReadable is the reason of a source whose Secrets the processes that run sources may not read.
	ReasonSecretNotReadable = "SecretNotReadable"
	// ReasonNotResolvedYet is the reason of a source that has changed and whose sink was not looked up since.
	ReasonNotResolvedYet = "NotResolvedYet"
	// ReasonNoSourceProcess is the reason of a source that nobody runs because no broker-source does.
	ReasonNoSourceProcess = "NoSourceProcess"
	// ReasonNotServedYet is the reason of a source that is not known to be run as it is now.
	ReasonNotServedYet = eventingv1.ReasonNotServedYet
)

// IsBroker reports whether a destination is a Broker as such, whose stream can be written to.
func IsBroker(dest *eventingv1.Destination) bool {
	return dest.Ref != nil && dest.URI == nil && dest.Ref.Kind == eventingv1.KindBroker && dest.Ref.APIVersion == eventingv1.APIVersion
}

// SecretRefs implements [Source].
func (s *KafkaSource) SecretRefs() []*SecretKeySelector {
	var refs []*SecretKeySelector
	if sasl := s.Spec.Net.SASL; sasl.Enable {
		refs = Refs(sasl.User, sasl.Password, sasl.Type)
	}
	return append(refs, s.Spec.Net.TLS.Refs()...)
}

// Refs returns the references that are in use.
func (t *TLSSpec) Refs() []*SecretKeySelector {
	if !t.Enable {
		return nil
	}
	return Refs(t.Cert, t.Key, t.CACert)
}

// Refs returns the references of values that have one.
func Refs(values ...SecretValueFromSource) []*SecretKeySelector {
	var refs []*SecretKeySelector
	for _, value := range values {
		if value.SecretKeyRef != nil {
			refs = append(refs, value.SecretKeyRef)
		}
	}
	return refs
}
