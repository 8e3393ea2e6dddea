package controller

import (
	"context"
	"log/slog"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// crdCheck looks once whether Triggers are served by our CRD or by Knative's, and says so in the log. What each Trigger
// lacks because of that is in its status.
type crdCheck struct {
	config *rest.Config
	log    *slog.Logger
}

// Start looks. It never fails: nothing depends on the answer.
func (c *crdCheck) Start(ctx context.Context) error {
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return err
	}
	schemas, err := openapi3.NewRoot(d.OpenAPIV3()).GVSpecAsMap(eventingv1.GroupVersion())
	switch {
	case err != nil:
		c.log.DebugContext(ctx, "cannot see which fields Triggers have in this cluster", slog.Any("error", err))
	case !knowsCEL(schemas):
		c.log.InfoContext(ctx, "the CRD of Triggers is not Millrace's and keeps no field cel: expressions go into an annotation",
			slog.String("annotation", eventingv1.CELFilterAnnotation))
	}
	return nil
}

// knowsCEL says whether an OpenAPI document has the field cel in the filters of a Trigger.
func knowsCEL(document map[string]any) bool {
	schemas, _, _ := unstructured.NestedMap(document, "components", "schemas")
	for name, schema := range schemas {
		if kind, ok := schema.(map[string]any); ok && strings.HasSuffix(name, "."+eventingv1.KindTrigger) {
			_, found, _ := unstructured.NestedMap(kind, "properties", "spec", "properties", "filters", "items", "properties", "cel")
			return found
		}
	}
	return false
}
