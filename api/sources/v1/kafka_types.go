package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KeyTypeLabel on a KafkaSource says how the keys of records are read: string, int, float or byte-array. Without it a
// key that is text is a string, and any other is written in base64.
const KeyTypeLabel = "kafkasources.sources.knative.dev/key-type"

// KafkaSource sends the records of Kafka topics to a sink, each as a CloudEvent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories=all;knative;sources
// +kubebuilder:metadata:labels={"app.kubernetes.io/part-of=millrace","duck.knative.dev/source=true","eventing.knative.dev/source=true","knative.dev/crd-install=true"}
// +kubebuilder:validation:XValidation:rule="has(oldSelf.spec.consumerGroup) || !has(oldSelf.status) || !has(oldSelf.status.consumerGroup) || !has(self.spec.consumerGroup) || self.spec.consumerGroup == oldSelf.status.consumerGroup",message="spec.consumerGroup cannot be changed, and the source has one: see status.consumerGroup, or delete the KafkaSource and create it anew"
// +kubebuilder:printcolumn:name="Topics",type=string,JSONPath=".spec.topics"
// +kubebuilder:printcolumn:name="BootstrapServers",type=string,JSONPath=".spec.bootstrapServers"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type KafkaSource struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired state.
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.consumerGroup) || has(self.consumerGroup) && self.consumerGroup == oldSelf.consumerGroup",message="spec.consumerGroup cannot be changed: delete the KafkaSource and create it anew"
	Spec KafkaSourceSpec `json:"spec"`
	// Status is the observed state.
	// +optional
	Status SourceStatus `json:"status,omitempty"`
}

// Offset says where a consumer group begins that has no committed offsets.
// +kubebuilder:validation:Enum=earliest;latest
type Offset string

// The initial offsets.
const (
	// OffsetEarliest begins with the oldest record that is still there.
	OffsetEarliest Offset = "earliest"
	// OffsetLatest begins with what is written after the source has become Ready for the first time.
	OffsetLatest Offset = "latest"
)

// Ordering says which events must not overtake each other.
// +kubebuilder:validation:Enum=ordered;unordered;key
type Ordering string

// The orderings.
const (
	// OrderingOrdered keeps the order of each partition: an event is sent when the one before it is settled.
	OrderingOrdered Ordering = "ordered"
	// OrderingUnordered keeps no order.
	OrderingUnordered Ordering = "unordered"
	// OrderingKey keeps the order of records with the same key in a partition. Millrace's addition.
	OrderingKey Ordering = "key"
)

// KafkaSourceSpec is the desired state of a KafkaSource.
type KafkaSourceSpec struct {
	// Consumers is the number of consumers that Knative runs. Millrace works on all partitions at once whatever it is, save
	// that 0 stops the source.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Consumers *int32 `json:"consumers,omitempty"`
	// BootstrapServers are addresses, host:port, of some brokers of the Kafka cluster.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	BootstrapServers StringList `json:"bootstrapServers"`
	// Net says how to connect.
	// +optional
	Net KafkaNetSpec `json:"net,omitempty"`
	// Topics are the topics whose records are wanted.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Topics StringList `json:"topics"`
	// ConsumerGroup is the group whose offsets say what was delivered. It cannot be changed. The default is a name made of
	// the source's UID.
	// +optional
	ConsumerGroup string `json:"consumerGroup,omitempty"`
	// InitialOffset is where the group begins if it has no offsets: earliest or latest [latest].
	// +optional
	InitialOffset Offset `json:"initialOffset,omitempty"`
	// Ordering is ordered, unordered or key [ordered].
	// +optional
	Ordering *Ordering `json:"ordering,omitempty"`

	SourceSpec `json:",inline"`
}

// KafkaNetSpec says how to connect to Kafka.
type KafkaNetSpec struct {
	// SASL says how to authenticate.
	// +optional
	SASL KafkaSASLSpec `json:"sasl,omitempty"`
	// TLS says how to encrypt the connection.
	// +optional
	TLS TLSSpec `json:"tls,omitempty"`
}

// KafkaSASLSpec says how to authenticate by SASL.
type KafkaSASLSpec struct {
	// Enable turns SASL on.
	// +optional
	Enable bool `json:"enable,omitempty"`
	// User is the user name.
	// +optional
	User SecretValueFromSource `json:"user,omitempty"`
	// Password is the password, or the token of OAUTHBEARER.
	// +optional
	Password SecretValueFromSource `json:"password,omitempty"`
	// Type is the mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER [PLAIN].
	// +optional
	Type SecretValueFromSource `json:"type,omitempty"`
}

// KafkaSourceList is a list of KafkaSources.
//
// +kubebuilder:object:root=true
type KafkaSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []KafkaSource `json:"items"`
}
