package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

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

// servedSources returns the kinds of sources that the API server knows, and those that it does not.
func servedSources(m ctrl.Manager) (served []sourceKind, missing []schema.GroupVersionKind, err error) {
	for _, kind := range sourceKinds() {
		gvk, err := apiutil.GVKForObject(kind.object(), m.GetScheme())
		if err != nil {
			return nil, nil, err
		}
		switch _, err := m.GetRESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); {
		case err == nil:
			served = append(served, kind)
		case meta.IsNoMatchError(err):
			missing = append(missing, gvk)
		default:
			return nil, nil, fmt.Errorf("look for kind %s: %w", gvk.Kind, err)
		}
	}
	return served, missing, nil
}

// crdWait ends the controller, to be started anew, when the API server knows a kind of source that it did not.
type crdWait struct {
	mapper meta.RESTMapper
	kinds  []schema.GroupVersionKind
}

var errNewKind = errors.New("starting anew to serve a kind of source that the cluster has learned")

// NeedLeaderElection says that replicas which stand by wait, too.
func (*crdWait) NeedLeaderElection() bool { return false }

// Start waits until ctx ends, or for one of the kinds.
func (w *crdWait) Start(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, kind := range w.kinds {
			if _, err := w.mapper.RESTMapping(kind.GroupKind(), kind.Version); err == nil {
				return fmt.Errorf("%w: %s", errNewKind, kind.Kind)
			}
		}
	}
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
