package resolve

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// ourAnnotations is what the names of the annotations begin with that the data plane goes by.
const ourAnnotations = "millrace.dev/"

// State tells the versions of a Trigger apart in which the data plane would serve it differently: it follows from all
// that the Trigger, its status and its Broker say about where which events go. Controller and filters compute it each for
// itself.
func State(t *eventingv1.Trigger, broker *eventingv1.Broker) string {
	h := fnv.New128a()
	// Hashes do not fail to write. A uid and generation stand for a whole spec; annotations are not part of it.
	object := func(uid types.UID, generation int64, annotations map[string]string) {
		fmt.Fprintf(h, "%q %d", uid, generation)
		for _, name := range slices.Sorted(maps.Keys(annotations)) {
			if strings.HasPrefix(name, ourAnnotations) {
				fmt.Fprintf(h, " %q=%q", name, annotations[name])
			}
		}
	}
	object(t.UID, t.Generation, t.Annotations)
	object(broker.UID, broker.Generation, broker.Annotations)
	for _, s := range []*string{t.Status.SubscriberURI, t.Status.DeadLetterSinkURI} {
		if s == nil {
			fmt.Fprint(h, " none")
		} else {
			fmt.Fprintf(h, " %q", *s)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
