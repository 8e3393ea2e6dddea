package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
)

const (
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

// Source is a source object of any kind: what does not depend on the system it reads is done to it as such.
//
// +kubebuilder:object:generate=false
type Source interface {
	metav1.Object
	runtime.Object
	// SourceKind is the kind of the object, whether it says so itself or not.
	SourceKind() string
	// Default fills in what the object leaves open and a reader should see. It is idempotent.
	Default()
	// Validate returns what is wrong with the object, whose defaults are filled in; nothing when it is sound.
	Validate() field.ErrorList
	// Common is the part of the spec that all sources have, Specification the whole of it, and Observed the status. They are
	// the object's own, not copies.
	Common() *SourceSpec
	Specification() any
	Observed() *SourceStatus
	// SecretRefs returns all references to Secrets that are in use.
	SecretRefs() []*SecretKeySelector
	// Group is the consumer group whose progress says what was delivered.
	Group() string
	// Paused reports whether the source is to stand still.
	Paused() bool
}

// SourceSpec is the part of the desired state that all sources have.
type SourceSpec struct {
	// Delivery says how often and how fast the sink is tried, and where to send what it does not take.
	// +optional
	Delivery *eventingv1.DeliverySpec `json:"delivery,omitempty"`
	// Sink receives the events: a Broker, another object with an address, or a URI.
	Sink eventingv1.Destination `json:"sink"`
	// CloudEventOverrides are extensions that each event gets.
	// +optional
	CloudEventOverrides *CloudEventOverrides `json:"ceOverrides,omitempty"`
}

// SourceStatus is the observed state of a source.
type SourceStatus struct {
	eventingv1.Status         `json:",inline"`
	eventingv1.DeliveryStatus `json:",inline"`
	// SinkURI is the resolved URL of the sink. For a Broker of class Millrace the events are stored in its stream, without HTTP.
	// +optional
	SinkURI *string `json:"sinkUri,omitempty"`
	// ConsumerGroup is the group whose progress says what was delivered: that of the spec, or the one made for the source.
	// +optional
	ConsumerGroup string `json:"consumerGroup,omitempty"`
	// Consumption is how the source was at work when it was last looked at.
	// +optional
	Consumption *Consumption `json:"consumption,omitempty"`
}

// Consumption is how a source is at work, summed up over the processes that run it. It is written when a condition changes, and
// else twice a minute at most.
type Consumption struct {
	// Time is when the processes were asked.
	// +optional
	Time metav1.Time `json:"time,omitempty"`
	// Processes is how many run the source.
	Processes int32 `json:"processes"`
	// Assigned is how many partitions, or whatever the system divides its messages into, they have.
	Assigned int32 `json:"assigned"`
	// Lag is how many messages are not settled, as far as known.
	Lag int64 `json:"lag"`
	// OldestSeconds is how long ago the oldest message was received that is not settled; 0 if all are.
	OldestSeconds int64 `json:"oldestSeconds"`
	// Waiting is how many deliveries wait to try again.
	Waiting int64 `json:"waiting"`
	// LastError is why the last delivery failed that did.
	// +optional
	LastError string `json:"lastError,omitempty"`
	// LastErrorTime is when.
	// +optional
	LastErrorTime *metav1.Time `json:"lastErrorTime,omitempty"`
}

// StringList is a list of strings that may also be written as one string with commas between its elements.
type StringList []string

// CloudEventOverrides change the events of a source.
type CloudEventOverrides struct {
	// Extensions are attributes set on each event, by name.
	// +optional
	Extensions map[string]string `json:"extensions,omitempty"`
}

// TLSSpec says how to encrypt the connection. The server's certificate is always verified.
type TLSSpec struct {
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
