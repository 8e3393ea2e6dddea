package objects_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"millrace.dev/internal/objects"
)

const manifests = `apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: gifts}
spec:
  broker: default
  filter: {cel: ce.type == "gift.sent"}
  subscriber: {uri: http://gift-wall.default.svc/}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: follows}
spec:
  broker: default
  filer: {cel: ce.type == "follow"}
  subscriber: {uri: http://gift-wall.default.svc/}
`

// The Trigger with a mistake is reported, with its place; the other is served.
func ExampleLoad() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder) //nolint:errcheck // a temporary folder
	file := filepath.Join(folder, "live.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o600); err != nil {
		log.Fatal(err)
	}
	set, err := objects.Load([]string{file})
	if err != nil {
		log.Fatal(err)
	}
	for _, problem := range set.Problems {
		problem.File = filepath.Base(problem.File)
		fmt.Println(problem)
	}
	for _, trigger := range set.Triggers {
		fmt.Println(trigger.Name, *trigger.Status.SubscriberURI)
	}
	// Output:
	// live.yaml:18:3: Trigger default/follows: spec.filer: unknown field (did you mean filter?)
	// gifts http://gift-wall.default.svc/
}
