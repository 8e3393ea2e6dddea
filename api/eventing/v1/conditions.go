package v1

// The condition types of Brokers and Triggers, as in the public Knative Eventing API.
const (
	// ConditionReady sums up the other conditions of an object.
	ConditionReady = "Ready"
	// ConditionAddressable says whether a Broker has an address to post events to.
	ConditionAddressable = "Addressable"
	// ConditionBrokerReady says whether the Broker of a Trigger is there and Ready.
	ConditionBrokerReady = "BrokerReady"
	// ConditionSubscriberResolved says whether the URL of a Trigger's subscriber is known.
	ConditionSubscriberResolved = "SubscriberResolved"
	// ConditionDeadLetterSinkResolved says whether the URL of the dead letter sink is known, where one is named.
	ConditionDeadLetterSinkResolved = "DeadLetterSinkResolved"
)

// The reasons of conditions. A reason is for programs; the message beside it tells people what to do.
const (
	// ReasonBrokerDoesNotExist is the reason of a Trigger whose Broker is not there.
	ReasonBrokerDoesNotExist = "BrokerDoesNotExist"
	// ReasonBrokerNotReady is the reason of a Trigger whose Broker is there but not Ready.
	ReasonBrokerNotReady = "BrokerNotReady"
	// ReasonSubscriberUnresolved is the reason of a Trigger whose subscriber has no known URL.
	ReasonSubscriberUnresolved = "SubscriberUnresolved"
	// ReasonDeadLetterSinkUnresolved is the reason of an object whose dead letter sink has no known URL.
	ReasonDeadLetterSinkUnresolved = "DeadLetterSinkUnresolved"
	// ReasonDeadLetterSinkNotConfigured says that no dead letter sink is named, which is no fault.
	ReasonDeadLetterSinkNotConfigured = "DeadLetterSinkNotConfigured"
	// ReasonReady is the reason of conditions that are True.
	ReasonReady = "Ready"
)
