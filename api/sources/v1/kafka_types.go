package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
)

const (
	// KeyTypeLabel on a KafkaSource says how the keys of records are read: string, int, float or byte-array. Without it a
	// key that is text is a string, and any other is written in base64.
	KeyTypeLabel = "kafkasources.sources.knative.dev/key-type"
	// PausedAnnotation on a source, when "true", stops it; it goes on where it was when the annotation is removed.
	PausedAnnotation = "millrace.dev/paused"
	// UndeliverableAnnotation on a source says what becomes of an event that the sink does not take after all retries, and
	// that no dead letter sink takes: "block" (the default) keeps trying it and holds up what must not overtake it, "drop"
	// counts it and goes on.
	UndeliverableAnnotation = "millrace.dev/undeliverable"

	// HostAnnotation on a source is the Host header of requests to its sink, for a gateway that routes by it.
	HostAnnotation = "k8s.aliyun.com/domain"
	// RetryCountAnnotation on a source is the number of attempts after the first; spec.delivery.retry wins over it.
	RetryCountAnnotation = "k8s.aliyun.com/retry-count"
	// RetryIntervalAnnotation on a source is the number of seconds between attempts; spec.delivery.backoffDelay wins over it.
	RetryIntervalAnnotation = "k8s.aliyun.com/retry-interval"
	// RequestTimeoutAnnotation on a source is the number of seconds an attempt may take; spec.delivery.timeout wins over it.
	RequestTimeoutAnnotation = "k8s.aliyun.com/req-timeout"
)

// KafkaSource sends the records of Kafka topics to a sink, each as a CloudEvent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:resource:categories=all;knative;sources
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
	Status KafkaSourceStatus `json:"status,omitempty"`
}

// StringList is a list of strings that may also be written as one string with commas between its elements.
type StringList []string

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
	// Delivery says how often and how fast the sink is tried, and where to send what it does not take.
	// +optional
	Delivery *eventingv1.DeliverySpec `json:"delivery,omitempty"`
	// Sink receives the events: a Broker, another object with an address, or a URI.
	Sink eventingv1.Destination `json:"sink"`
	// CloudEventOverrides are extensions that each event gets.
	// +optional
	CloudEventOverrides *CloudEventOverrides `json:"ceOverrides,omitempty"`
}

// CloudEventOverrides change the events of a source.
type CloudEventOverrides struct {
	// Extensions are attributes set on each event, by name.
	// +optional
	Extensions map[string]string `json:"extensions,omitempty"`
}

// KafkaNetSpec says how to connect to Kafka.
type KafkaNetSpec struct {
	// SASL says how to authenticate.
	// +optional
	SASL KafkaSASLSpec `json:"sasl,omitempty"`
	// TLS says how to encrypt the connection.
	// +optional
	TLS KafkaTLSSpec `json:"tls,omitempty"`
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

// KafkaTLSSpec says how to encrypt the connection. The server's certificate is always verified.
type KafkaTLSSpec struct {
	// Enable turns TLS on.
	// +optional
	Enable bool `json:"enable,omitempty"`
	// Cert is the client's certificate, PEM-encoded.
	// +optional
	Cert SecretValueFromSource `json:"cert,omitempty"`
	// Key is the key of the client's certificate, PEM-encoded.
	// +optional
	Key SecretValueFromSource `json:"key,omitempty"`
	// CACert are the certification authorities of the servers, PEM-encoded. The default is those of the system.
	// +optional
	CACert SecretValueFromSource `json:"caCert,omitempty"`
}

// SecretValueFromSource is a value kept in a Secret.
type SecretValueFromSource struct {
	// SecretKeyRef is where in the source's namespace the value is.
	// +optional
	SecretKeyRef *SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// SecretKeySelector names a value in a Secret.
type SecretKeySelector struct {
	// Name of the Secret.
	Name string `json:"name"`
	// Key of the value in the Secret.
	Key string `json:"key"`
	// Optional says that the value may be missing.
	// +optional
	Optional *bool `json:"optional,omitempty"`
}

// KafkaSourceStatus is the observed state of a KafkaSource.
type KafkaSourceStatus struct {
	eventingv1.Status         `json:",inline"`
	eventingv1.DeliveryStatus `json:",inline"`
	// SinkURI is where the events are posted to. It is absent when they are stored in a Broker's stream without HTTP.
	// +optional
	SinkURI *string `json:"sinkUri,omitempty"`
}

// KafkaSourceList is a list of KafkaSources.
//
// +kubebuilder:object:root=true
type KafkaSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []KafkaSource `json:"items"`
}
