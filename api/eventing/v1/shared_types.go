package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KReference names a Kubernetes object.
//
// +kubebuilder:validation:XValidation:rule="has(self.apiVersion) || self.kind == 'Service'",message="write apiVersion, the group and version of the kind, such as serving.knative.dev/v1: it may be left out for kind Service only"
type KReference struct {
	// Kind of the object, for example Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// Namespace of the object; defaults to the namespace of the object that holds the reference.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// APIVersion of the object, for example v1 or serving.knative.dev/v1.
	// +optional
	APIVersion string `json:"apiVersion,omitempty"`
	// Address names one of several addresses that the object publishes.
	// +optional
	Address *string `json:"address,omitempty"`
}

// Destination is a place to send events to: a reference to an addressable object, a URI, or both, the URI then being
// relative to the object's address.
//
// +kubebuilder:validation:XValidation:rule="has(self.ref) || has(self.uri)",message="write ref (kind and name of a Service or another addressable object) or uri (such as http://gifts.default.svc/)"
// +kubebuilder:validation:XValidation:rule="has(self.ref) || !has(self.uri) || self.uri.matches('^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]')",message="uri must be an absolute URL such as http://gifts.default.svc/hook"
// +kubebuilder:validation:XValidation:rule="!has(self.ref) || !has(self.uri) || !self.uri.matches('^([A-Za-z][A-Za-z0-9+.-]*:|//)')",message="uri is a whole URL: beside a ref write a path relative to its address, such as /hook, or remove the ref"
type Destination struct {
	// Ref points to an object with an address: a Service, a Knative Service, a Broker, a Channel.
	// +optional
	Ref *KReference `json:"ref,omitempty"`
	// URI is an absolute URL, or a path relative to the address of Ref.
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	URI *string `json:"uri,omitempty"`
	// CACerts are PEM-encoded certification authorities that the destination's certificate may come from.
	// +optional
	CACerts *string `json:"CACerts,omitempty"`
	// Audience is the OIDC audience of the destination.
	// +optional
	Audience *string `json:"audience,omitempty"`
}

// BackoffPolicy says how the time between attempts grows.
// +kubebuilder:validation:Enum=linear;exponential
type BackoffPolicy string

// The backoff policies.
const (
	// BackoffLinear waits backoffDelay × n before the n-th retry.
	BackoffLinear BackoffPolicy = "linear"
	// BackoffExponential waits backoffDelay × 2^(n-1) before the n-th retry.
	BackoffExponential BackoffPolicy = "exponential"
)

// FormatType forces the CloudEvents content mode of a delivery.
// +kubebuilder:validation:Enum=json;binary
type FormatType string

// The delivery formats.
const (
	// FormatJSON delivers in structured mode, as application/cloudevents+json.
	FormatJSON FormatType = "json"
	// FormatBinary delivers in binary mode.
	FormatBinary FormatType = "binary"
)

// DeliverySpec says how events are delivered and what becomes of those that cannot be.
type DeliverySpec struct {
	// DeadLetterSink receives the events that could not be delivered.
	// +optional
	DeadLetterSink *Destination `json:"deadLetterSink,omitempty"`
	// Retry is the number of attempts after the first before an event goes to the dead letter sink.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Retry *int32 `json:"retry,omitempty"`
	// Timeout of one attempt, as an ISO 8601 duration such as PT30S.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^P([0-9.]+W)?([0-9.]+D)?(T([0-9.]+H)?([0-9.]+M)?([0-9.]+S)?)?$') && self.matches('[0-9]')",message="must be an ISO 8601 duration without years and months, such as PT30S"
	// +kubebuilder:validation:XValidation:rule="self.matches('[1-9]')",message="must be longer than zero, such as PT30S"
	// +optional
	Timeout *string `json:"timeout,omitempty"`
	// BackoffPolicy is linear or exponential.
	// +optional
	BackoffPolicy *BackoffPolicy `json:"backoffPolicy,omitempty"`
	// BackoffDelay is the base of the time between attempts, as an ISO 8601 duration such as PT0.2S.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^P([0-9.]+W)?([0-9.]+D)?(T([0-9.]+H)?([0-9.]+M)?([0-9.]+S)?)?$') && self.matches('[0-9]')",message="must be an ISO 8601 duration without years and months, such as PT30S"
	// +optional
	BackoffDelay *string `json:"backoffDelay,omitempty"`
	// RetryAfterMax is the longest Retry-After of a 429 or 503 answer that is honored, as an ISO 8601 duration;
	// PT0S ignores Retry-After.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^P([0-9.]+W)?([0-9.]+D)?(T([0-9.]+H)?([0-9.]+M)?([0-9.]+S)?)?$') && self.matches('[0-9]')",message="must be an ISO 8601 duration without years and months, such as PT30S"
	// +optional
	RetryAfterMax *string `json:"retryAfterMax,omitempty"`
	// Format forces the content mode of deliveries: json or binary.
	// +optional
	Format *FormatType `json:"format,omitempty"`
}

// Addressable is where an object can be reached.
type Addressable struct {
	// Name of the address.
	// +optional
	Name *string `json:"name,omitempty"`
	// URL to post events to.
	// +optional
	URL *string `json:"url,omitempty"`
	// CACerts are PEM-encoded certification authorities for the URL.
	// +optional
	CACerts *string `json:"CACerts,omitempty"`
	// Audience is the OIDC audience of the address.
	// +optional
	Audience *string `json:"audience,omitempty"`
}

// Status is what every object of this API reports.
type Status struct {
	// ObservedGeneration is the generation of the object that the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions are the latest observations of the object's state; Ready sums up the others.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Annotations are further facts about the status.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// DeliveryStatus is the resolved dead letter sink.
type DeliveryStatus struct {
	// DeadLetterSinkURI is the resolved URL of the dead letter sink.
	// +optional
	DeadLetterSinkURI *string `json:"deadLetterSinkUri,omitempty"`
	// DeadLetterSinkCACerts are the certification authorities of the dead letter sink.
	// +optional
	DeadLetterSinkCACerts *string `json:"deadLetterSinkCACerts,omitempty"`
	// DeadLetterSinkAudience is the OIDC audience of the dead letter sink.
	// +optional
	DeadLetterSinkAudience *string `json:"deadLetterSinkAudience,omitempty"`
}
