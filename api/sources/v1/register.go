package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Group, Version and APIVersion name the API that this package holds.
const (
	Group      = "sources.knative.dev"
	Version    = "v1"
	APIVersion = Group + "/" + Version

	// KindKafkaSource is the kind of the API.
	KindKafkaSource = "KafkaSource"
)

// Versions are the versions in which objects of the API may be written, the preferred one first.
func Versions() []string { return []string{Version, "v1beta1", "v1alpha1"} }

// GroupVersion is the group and the preferred version of the API.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// AddToScheme lets clients that use scheme read and write the types of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &KafkaSource{}, &KafkaSourceList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
