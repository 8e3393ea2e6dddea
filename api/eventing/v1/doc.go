// Package v1 holds the Go types of the eventing.knative.dev/v1 API that Millrace serves: Broker and Trigger.
//
// The types are Millrace's own and import no Knative module. Field names, JSON names and meanings are those of
// the public Knative Eventing API, so manifests written for it mean the same here; what Millrace adds (the cel and
// sourceAndType filters) is marked in the field's documentation.
//
// +kubebuilder:object:generate=true
// +groupName=eventing.knative.dev
package v1
