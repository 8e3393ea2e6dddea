package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

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

// AddToScheme lets clients that use scheme read and write the types of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &Broker{}, &BrokerList{}, &Trigger{}, &TriggerList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
