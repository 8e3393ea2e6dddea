package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// BrokerClassAnnotation names the implementation that serves a Broker.
	BrokerClassAnnotation = "eventing.knative.dev/broker.class"
	// BrokerClass is the class that Millrace serves.
	BrokerClass = "Millrace"

	// DeduplicateAnnotation on a Broker, when "true", drops events of the same source and id that arrive within the
	// stream's duplicate window. The default is "false": two identical posts are two events.
	DeduplicateAnnotation = "millrace.dev/deduplicate"
)

// Broker collects events and fans them out to Triggers.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=all;knative;eventing
// +kubebuilder:metadata:labels={"app.kubernetes.io/part-of=millrace","duck.knative.dev/addressable=true","knative.dev/crd-install=true"}
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="metadata.name must have at most 63 characters"
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=".status.address.url"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
type Broker struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is the desired state.
	// +kubebuilder:validation:XValidation:rule="!has(oldSelf.config) || has(self.config) && self.config.kind == oldSelf.config.kind && self.config.name == oldSelf.config.name && (!has(oldSelf.config.__namespace__) || has(self.config.__namespace__) && self.config.__namespace__ == oldSelf.config.__namespace__)",message="spec.config cannot be changed: delete the Broker and create it anew"
	// +optional
	Spec BrokerSpec `json:"spec,omitempty"`
	// Status is the observed state.
	// +optional
	Status BrokerStatus `json:"status,omitempty"`
}

// BrokerSpec is the desired state of a Broker.
type BrokerSpec struct {
	// Config points to the configuration of this Broker's class.
	// +optional
	Config *KReference `json:"config,omitempty"`
	// Delivery applies to every Trigger of the Broker that has no delivery of its own.
	// +optional
	Delivery *DeliverySpec `json:"delivery,omitempty"`
}

// BrokerStatus is the observed state of a Broker.
type BrokerStatus struct {
	Status         `json:",inline"`
	DeliveryStatus `json:",inline"`
	// Address is where events are posted to.
	// +optional
	Address *Addressable `json:"address,omitempty"`
	// Addresses are all addresses of the Broker.
	// +optional
	Addresses []Addressable `json:"addresses,omitempty"`
	// Policies are the EventPolicies that apply to the Broker. (Knative's; Millrace leaves it empty)
	// +optional
	Policies []AppliedEventPolicy `json:"policies,omitempty"`
}

// AppliedEventPolicy names an EventPolicy.
type AppliedEventPolicy struct {
	// APIVersion of the EventPolicy.
	APIVersion string `json:"apiVersion"`
	// Name of the EventPolicy.
	Name string `json:"name"`
}

// BrokerList is a list of Brokers.
//
// +kubebuilder:object:root=true
type BrokerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []Broker `json:"items"`
}
