// Package objects gives the data plane its Brokers, Triggers and sources.
//
// A Source delivers Sets: everything known at one moment, immutable. Files is the Source that reads manifests from files
// and folders and follows their changes; Load reads them once.
//
// A manifest goes through four steps, each a function without I/O:
//
//	parse     text -> YAML nodes with their positions (yaml.go)
//	decode    nodes -> Broker, Trigger, sources or Secret, strict: every mistake is found and located (decode.go, hints.go)
//	validate  packages api/..., their errors located in the text (manifest.go)
//	resolve   the files together: duplicates, classes, subscribers, status (build.go, resolve.go)
//
// Only list.go and files.go touch the file system. What the controller does in a cluster (defaults, checks, status) is
// done here with the same rules, so a manifest means the same in both.
package objects
