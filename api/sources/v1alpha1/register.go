package v1alpha1

import sourcesv1 "millrace.dev/api/sources/v1"

// Version and APIVersion name the API that this package holds.
const (
	Version    = "v1alpha1"
	APIVersion = sourcesv1.Group + "/" + Version

	// KindRocketMQSource is the kind of the API.
	KindRocketMQSource = "RocketMQSource"
)
