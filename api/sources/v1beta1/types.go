// Package v1beta1 declares version v1beta1 of sources.knative.dev, whose objects have the fields of version v1.
//
// +kubebuilder:object:generate=true
// +groupName=sources.knative.dev
package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sourcesv1 "millrace.dev/api/sources/v1"
)

// KafkaSource sends the records of Kafka topics to a sink, each as a CloudEvent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
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
	Spec sourcesv1.KafkaSourceSpec `json:"spec"`
	// Status is the observed state.
	// +optional
	Status sourcesv1.SourceStatus `json:"status,omitempty"`
}

// KafkaSourceList is a list of KafkaSources.
//
// +kubebuilder:object:root=true
type KafkaSourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []KafkaSource `json:"items"`
}
