package v1

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
