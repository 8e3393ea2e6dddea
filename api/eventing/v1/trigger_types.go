package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// CELFilterAnnotation on a Trigger is a CEL expression that is ANDed with the Trigger's filters. It serves clusters
	// whose Trigger CRD is Knative's own and knows no cel field.
	CELFilterAnnotation = "millrace.dev/cel-filter"
	// MaxConcurrencyAnnotation on a Trigger bounds the deliveries in flight to its subscriber, over all filter replicas.
	MaxConcurrencyAnnotation = "millrace.dev/max-concurrency"
	// RateLimitAnnotation on a Trigger is how many requests its subscriber may get within any second: a whole number of at least 1. What is
	// over it waits in the store.
	RateLimitAnnotation = "millrace.dev/rate-limit"
	// PausedAnnotation on a Trigger, when "true", keeps deliveries to its subscriber from beginning. Events that match wait in
	// the store, and are delivered when the annotation is gone.
	PausedAnnotation = "millrace.dev/paused"
)

// Trigger sends those events of a Broker that match its filters to a subscriber.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=all;knative;eventing
// +kubebuilder:metadata:labels={"app.kubernetes.io/part-of=millrace","knative.dev/crd-install=true"}
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters"
// +kubebuilder:printcolumn:name="Broker",type=string,JSONPath=".spec.broker"
// +kubebuilder:printcolumn:name="Subscriber_URI",type=string,JSONPath=".status.subscriberUri"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Paused",type=string,JSONPath=".status.conditions[?(@.type=='Paused')].status"
type Trigger struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired state.
	// +kubebuilder:validation:XValidation:rule="has(self.broker) == has(oldSelf.broker) && (!has(self.broker) || self.broker == oldSelf.broker)",message="spec.broker cannot be changed: delete the Trigger and create it anew"
	// +optional
	Spec TriggerSpec `json:"spec,omitempty"`
	// Status is the observed state.
	// +optional
	Status TriggerStatus `json:"status,omitempty"`
}

// TriggerSpec is the desired state of a Trigger.
//
// +kubebuilder:validation:XValidation:rule="has(self.broker) || has(self.brokerRef)",message="write broker, the name of the Broker whose events are wanted"
// +kubebuilder:validation:XValidation:rule="!(has(self.broker) && has(self.brokerRef))",message="broker and brokerRef cannot be given together: keep broker for a Broker of the same namespace"
// +kubebuilder:validation:XValidation:rule="!has(self.brokerRef) || self.brokerRef.kind == 'Broker'",message="brokerRef.kind must be Broker"
type TriggerSpec struct {
	// Broker is the name of the Broker, in the Trigger's namespace, whose events are wanted.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Broker string `json:"broker,omitempty"`
	// BrokerRef names a Broker of another namespace.
	// +optional
	BrokerRef *KReference `json:"brokerRef,omitempty"`
	// Filter selects events by attributes. It is ignored when Filters is not empty.
	// +kubebuilder:default={}
	// +optional
	Filter *TriggerFilter `json:"filter,omitempty"`
	// Filters are expressions that must all be true for an event to be delivered. A non-empty list replaces Filter.
	// +kubebuilder:validation:MaxItems=128
	// +optional
	// +listType=atomic
	Filters []Filter `json:"filters,omitempty"`
	// Subscriber receives the events.
	Subscriber Destination `json:"subscriber"`
	// Delivery overrides, as a whole, the delivery of the Broker.
	// +optional
	Delivery *DeliverySpec `json:"delivery,omitempty"`
}

// TriggerFilter selects events by one of its dialects. An empty filter matches every event.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.attributes) && has(self.sourceAndType))",message="attributes and sourceAndType cannot be given together: write source and type under attributes"
type TriggerFilter struct {
	// Attributes must all be equal to the event's; an empty value asks only that the attribute be there and not empty.
	// Not to be given together with SourceAndType.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]+$'))",message="attribute names are made of lower-case letters and digits"
	// +optional
	Attributes map[string]string `json:"attributes,omitempty"`
	// SourceAndType asks for an exact source and type. (Millrace)
	// +optional
	SourceAndType *SourceAndType `json:"sourceAndType,omitempty"`
	// CEL is an expression over ce (the event's attributes) and data (its JSON body), ANDed with the other fields.
	// (Millrace)
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	CEL string `json:"cel,omitempty"`
}

// SourceAndType asks for an exact source and type; an empty string stands for any.
type SourceAndType struct {
	// Source must be equal to the event's source, unless it is empty.
	// +optional
	Source string `json:"source,omitempty"`
	// Type must be equal to the event's type, unless it is empty.
	// +optional
	Type string `json:"type,omitempty"`
}

// Filter is one filter expression: exactly one of its fields is to be set. Were several set, all would have to be true.
//
// All, any and not nest. A CRD's schema cannot refer to itself, so what they hold is left open there and checked when the
// Trigger is loaded.
//
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Filter struct {
	// All is true when each of its filters is.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	All []Filter `json:"all,omitempty"`
	// Any is true when one of its filters is.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	Any []Filter `json:"any,omitempty"`
	// Not is true when its filter is false.
	// +optional
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	Not *Filter `json:"not,omitempty"`
	// Exact is true when each attribute is equal to the value given.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]+$'))",message="attribute names are made of lower-case letters and digits"
	// +kubebuilder:validation:XValidation:rule="self.all(name, self[name] != '')",message="write a value for every attribute"
	// +optional
	Exact map[string]string `json:"exact,omitempty"`
	// Prefix is true when each attribute starts with the value given.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]+$'))",message="attribute names are made of lower-case letters and digits"
	// +kubebuilder:validation:XValidation:rule="self.all(name, self[name] != '')",message="write a value for every attribute"
	// +optional
	Prefix map[string]string `json:"prefix,omitempty"`
	// Suffix is true when each attribute ends with the value given.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]+$'))",message="attribute names are made of lower-case letters and digits"
	// +kubebuilder:validation:XValidation:rule="self.all(name, self[name] != '')",message="write a value for every attribute"
	// +optional
	Suffix map[string]string `json:"suffix,omitempty"`
	// CESQL is a CloudEvents SQL v1 expression.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	CESQL string `json:"cesql,omitempty"`
	// CEL is an expression over ce (the event's attributes) and data (its JSON body). (Millrace)
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	CEL string `json:"cel,omitempty"`
	// Attributes are as in spec.filter. (Millrace)
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[a-z0-9]+$'))",message="attribute names are made of lower-case letters and digits"
	// +optional
	Attributes map[string]string `json:"attributes,omitempty"`
	// SourceAndType is as in spec.filter. (Millrace)
	// +optional
	SourceAndType *SourceAndType `json:"sourceAndType,omitempty"`

	// Fault says why what was read is no filter; see [Filter.UnmarshalJSON]. It is empty of a sound one.
	Fault string `json:"-"`
}

// TriggerStatus is the observed state of a Trigger.
type TriggerStatus struct {
	Status         `json:",inline"`
	DeliveryStatus `json:",inline"`
	// SubscriberURI is the resolved URL of the subscriber.
	// +optional
	SubscriberURI *string `json:"subscriberUri,omitempty"`
	// SubscriberCACerts are the certification authorities of the subscriber.
	// +optional
	SubscriberCACerts *string `json:"subscriberCACerts,omitempty"`
	// SubscriberAudience is the OIDC audience of the subscriber.
	// +optional
	SubscriberAudience *string `json:"subscriberAudience,omitempty"`
	// Auth is the identity that deliveries are made under. (Knative's; Millrace leaves it empty)
	// +optional
	Auth *AuthStatus `json:"auth,omitempty"`
}

// AuthStatus is the identity of a sender of events.
type AuthStatus struct {
	// ServiceAccountName is the service account of the identity.
	// +optional
	ServiceAccountName *string `json:"serviceAccountName,omitempty"`
	// ServiceAccountNames are the service accounts, where there are several.
	// +optional
	ServiceAccountNames []string `json:"serviceAccountNames,omitempty"`
}

// TriggerList is a list of Triggers.
//
// +kubebuilder:object:root=true
type TriggerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Trigger `json:"items"`
}
