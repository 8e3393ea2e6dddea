package v1

import "k8s.io/apimachinery/pkg/runtime/schema"

// Group, Version and APIVersion name the API that this package holds.
const (
	Group      = "eventing.knative.dev"
	Version    = "v1"
	APIVersion = Group + "/" + Version

	// KindBroker and KindTrigger are the kinds of the API.
	KindBroker  = "Broker"
	KindTrigger = "Trigger"
)

// GroupVersion is the group and version of the API.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}
