// Package v1 holds the Go types of the sources.knative.dev/v1 API that Millrace serves: KafkaSource.
//
// The types are Millrace's own and import no Knative module. Field names, JSON names and meanings are those of the public
// Knative API, so manifests written for it mean the same here; what Millrace adds is marked in the field's documentation.
// The older versions v1beta1 and v1alpha1 have the same fields: a list of servers or topics may also be written as one
// string with commas, as v1alpha1 has it.
//
// +kubebuilder:object:generate=true
// +groupName=sources.knative.dev
package v1
