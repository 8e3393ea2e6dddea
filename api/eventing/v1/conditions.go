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
	// ConditionTriggerChannelReady says whether what lies between a Broker and its Triggers, its streams, is there.
	ConditionTriggerChannelReady = "TriggerChannelReady"
	// ConditionDependencyReady says whether what a Trigger depends on by annotation is Ready.
	ConditionDependencyReady = "DependencyReady"
	// ConditionSubscriptionReady says whether the data plane serves a Trigger.
	ConditionSubscriptionReady = "SubscriptionReady"
	// ConditionPaused says whether no filter delivers the events of a Trigger that is to be paused. Other Triggers do not have it:
	// programs take a condition that is not True for a fault. It has no part in Ready.
	ConditionPaused = "Paused"
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
	// ReasonDependencyNotConfigured says that a Trigger depends on nothing, which is no fault.
	ReasonDependencyNotConfigured = "DependencyNotConfigured"
	// ReasonDependencyNotReady is the reason of a Trigger that depends on an object that is not Ready or not there.
	ReasonDependencyNotReady = "DependencyNotReady"
	// ReasonInvalidSpec is the reason of an object that got past the API server with mistakes in it.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonWrongClass is the reason of a Broker whose class is misspelled.
	ReasonWrongClass = "WrongClass"
	// ReasonNoFilter is the reason of a Trigger that nobody serves because no filter is running.
	ReasonNoFilter = "NoFilter"
	// ReasonNotServedYet is the reason of a Trigger that not every filter is known to serve yet.
	ReasonNotServedYet = "NotServedYet"
	// ReasonStoreUnavailable is the reason of a Broker whose streams could not be asked for.
	ReasonStoreUnavailable = "StoreUnavailable"
	// ReasonStreamRefused is the reason of a Broker whose streams the store does not make as asked.
	ReasonStreamRefused = "StreamRefused"
	// ReasonStreamSettingsKept says that a Broker's streams work with settings other than those asked for.
	ReasonStreamSettingsKept = "StreamSettingsKept"
	// ReasonServicePortMissing says that events go to a port that the Service does not have. That keeps no object from being
	// Ready: whether somebody answers is a matter of delivery.
	ReasonServicePortMissing = "ServicePortMissing"
	// ReasonPaused is the reason of a Trigger that is paused by annotation.
	ReasonPaused = "PausedByAnnotation"
	// ReasonReady is the reason of conditions that are True.
	ReasonReady = "Ready"
)
