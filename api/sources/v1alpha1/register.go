package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	sourcesv1 "millrace.dev/api/sources/v1"
)

// Version and APIVersion name the API that this package holds.
const (
	Version    = "v1alpha1"
	APIVersion = sourcesv1.Group + "/" + Version

	// KindRocketMQSource is the kind of the API.
	KindRocketMQSource = "RocketMQSource"
)

// GroupVersion is the group and version of the API.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: sourcesv1.Group, Version: Version}
}

// AddToScheme lets clients that use scheme read and write RocketMQSources. KafkaSources are read in their preferred version.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &RocketMQSource{}, &RocketMQSourceList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
