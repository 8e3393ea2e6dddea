package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sourcesv1 "millrace.dev/api/sources/v1"
)

// RocketMQSource sends the messages of RocketMQ topics to a sink, each as a CloudEvent. The servers must be of RocketMQ 5,
// which speak gRPC through their proxy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories=all;knative;sources
// +kubebuilder:metadata:labels={"app.kubernetes.io/part-of=millrace","duck.knative.dev/source=true","eventing.knative.dev/source=true","knative.dev/crd-install=true"}
// +kubebuilder:printcolumn:name="Topics",type=string,JSONPath=".spec.topics"
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=".spec.endpoint"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type RocketMQSource struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired state.
	// +kubebuilder:validation:XValidation:rule="self.consumerGroup == oldSelf.consumerGroup",message="spec.consumerGroup cannot be changed: delete the RocketMQSource and create it anew"
	Spec RocketMQSourceSpec `json:"spec"`
	// Status is the observed state.
	// +optional
	Status sourcesv1.SourceStatus `json:"status,omitempty"`
}

// Ordering says which events must not overtake each other.
// +kubebuilder:validation:Enum=unordered;fifo
type Ordering string

// The orderings.
const (
	// OrderingUnordered keeps no order.
	OrderingUnordered Ordering = "unordered"
	// OrderingFIFO keeps the order of messages with the same message group. The consumer group must have been created as an
	// orderly one.
	OrderingFIFO Ordering = "fifo"
)

// RocketMQSourceSpec is the desired state of a RocketMQSource.
type RocketMQSourceSpec struct {
	// Endpoint is the address, host:port, of a RocketMQ proxy.
	Endpoint string `json:"endpoint"`
	// InstanceNamespace is the namespace of the RocketMQ instance, if that has one, as those of cloud providers do.
	// +optional
	InstanceNamespace string `json:"instanceNamespace,omitempty"`
	// Topics are the topics whose messages are wanted.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Topics sourcesv1.StringList `json:"topics"`
	// ConsumerGroup is the group whose progress says what was delivered. It cannot be changed. A group that is new begins with
	// what is sent after the source has become Ready for the first time.
	ConsumerGroup string `json:"consumerGroup"`
	// Filter has the server leave out messages. The default is none.
	// +optional
	Filter *RocketMQFilter `json:"filter,omitempty"`
	// Ordering is unordered or fifo [unordered].
	// +optional
	Ordering Ordering `json:"ordering,omitempty"`
	// InvisibleDuration is for how long the server keeps a message that was received from others before it hands it out again;
	// it is extended for as long as the source holds the message. An ISO 8601 duration from PT10S to PT12H [PT30S].
	// +optional
	InvisibleDuration string `json:"invisibleDuration,omitempty"`
	// BatchSize is how many messages are received at once at most: 1 to 32 [32].
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	// +optional
	BatchSize *int32 `json:"batchSize,omitempty"`
	// Net says how to connect.
	// +optional
	Net RocketMQNetSpec `json:"net,omitempty"`

	sourcesv1.SourceSpec `json:",inline"`
}

// RocketMQFilter is a filter that the server evaluates. One of its fields must be set.
// +kubebuilder:validation:XValidation:rule="has(self.tag) != has(self.sql)",message="write either tag or sql"
type RocketMQFilter struct {
	// Tag are the tags wanted, with || between them.
	// +optional
	Tag string `json:"tag,omitempty"`
	// SQL is a SQL92 condition about the user properties of messages. The server must have enablePropertyFilter set.
	// +optional
	SQL string `json:"sql,omitempty"`
}

// RocketMQNetSpec says how to connect to RocketMQ.
type RocketMQNetSpec struct {
	// Credentials are those of a RocketMQ user. The default is to present none.
	// +optional
	Credentials *RocketMQCredentials `json:"credentials,omitempty"`
	// TLS says how to encrypt the connection.
	// +optional
	TLS sourcesv1.TLSSpec `json:"tls,omitempty"`
}

// RocketMQCredentials are those of a RocketMQ user.
type RocketMQCredentials struct {
	// AccessKey is the user name.
	AccessKey sourcesv1.SecretValueFromSource `json:"accessKey"`
	// SecretKey signs requests. It is never sent.
	SecretKey sourcesv1.SecretValueFromSource `json:"secretKey"`
	// SecurityToken goes with keys that are valid for a time only.
	// +optional
	SecurityToken sourcesv1.SecretValueFromSource `json:"securityToken,omitempty"`
}

// RocketMQSourceList is a list of RocketMQSources.
//
// +kubebuilder:object:root=true
type RocketMQSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []RocketMQSource `json:"items"`
}
