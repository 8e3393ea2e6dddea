package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	eventingv1 "millrace.dev/api/eventing/v1"
)

const (
	// fieldManager is who the API server notes as the one who set the annotation.
	fieldManager = "millrace"
	// pollEvery is the time between two looks whether a Trigger's status says what it is to say.
	pollEvery = 250 * time.Millisecond
	// maxNames bounds how many Triggers are listed.
	maxNames = 500
)

// Triggers are those of the cluster, as the user of the kubeconfig may see and change them: what is done here is between the user and
// the API server, and no filter is asked.
type Triggers struct {
	c      *Cluster
	client dynamic.NamespaceableResourceInterface
}

// NoTriggerError says that a Trigger does not exist.
type NoTriggerError struct {
	Namespace, Name string
	// Others are the names of those that do.
	Others []string
}

// Error names the Trigger.
func (e *NoTriggerError) Error() string {
	return fmt.Sprintf("there is no Trigger %s/%s", e.Namespace, e.Name)
}

// Triggers returns the cluster's. It asks the cluster nothing.
func (c *Cluster) Triggers() (*Triggers, error) {
	config := rest.CopyConfig(c.config)
	config.QPS = -1 // few requests, which are not to wait for one another beyond the time that there is
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("prepare the client of the cluster: %w", err)
	}
	return &Triggers{c: c, client: client.Resource(eventingv1.GroupVersion().WithResource("triggers"))}, nil
}

// List returns the Triggers of a namespace, [maxNames] at most.
func (t *Triggers) List(ctx context.Context, namespace string) ([]*eventingv1.Trigger, error) {
	list, err := t.client.Namespace(namespace).List(ctx, metav1.ListOptions{Limit: maxNames})
	if err != nil {
		return nil, t.explain(err, "list", namespace)
	}
	all := make([]*eventingv1.Trigger, len(list.Items))
	for i := range list.Items {
		if all[i], err = decode(&list.Items[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Pause sets the annotation by which a Trigger is paused, or removes it, and reports whether it was otherwise before. The error is a
// [*NoTriggerError] if there is no such Trigger.
func (t *Triggers) Pause(ctx context.Context, namespace, name string, paused bool) (changed bool, _ error) {
	found, err := t.get(ctx, namespace, name)
	if err != nil || found.Paused() == paused {
		return false, err
	}
	value := "null"
	if paused {
		value = `"true"`
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, eventingv1.PausedAnnotation, value)
	_, err = t.client.Namespace(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return false, t.explain(err, "patch", namespace)
	}
	return true, nil
}

// Wait waits until the status of a Trigger says that every filter holds to what its annotation says, or that none is asked to pause
// it any more. When ctx ends first, the error says what the status says instead.
func (t *Triggers) Wait(ctx context.Context, namespace, name string, paused bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	state := "its status does not tell of it: is its Broker one of class " + eventingv1.BrokerClass + ", and does broker-controller run?"
	for {
		found, err := t.get(ctx, namespace, name)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			condition := meta.FindStatusCondition(found.Status.Conditions, eventingv1.ConditionPaused)
			switch {
			case !paused && condition == nil, paused && condition != nil && condition.Status == metav1.ConditionTrue:
				return nil
			case condition != nil:
				state = fmt.Sprintf("condition %s is %s: %s", condition.Type, condition.Status, condition.Message)
			}
		}
		select {
		case <-ctx.Done():
			return errors.New(state)
		case <-tick.C:
		}
	}
}

func (t *Triggers) get(ctx context.Context, namespace, name string) (*eventingv1.Trigger, error) {
	found, err := t.client.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		all, listErr := t.List(ctx, namespace)
		if listErr != nil {
			return nil, listErr
		}
		missing := &NoTriggerError{Namespace: namespace, Name: name}
		for _, other := range all {
			missing.Others = append(missing.Others, other.Name)
		}
		return nil, missing
	case err != nil:
		return nil, t.explain(err, "get", namespace)
	}
	return decode(found)
}

func decode(u *unstructured.Unstructured) (*eventingv1.Trigger, error) {
	found := &eventingv1.Trigger{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, found); err != nil {
		return nil, fmt.Errorf("read Trigger %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return found, nil
}

// explain says what to do about an error of the API server.
func (t *Triggers) explain(err error, verb, namespace string) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%w; you need the right to %s triggers.%s in namespace %s: have somebody bind a role with it to you there, such as the ClusterRole edit",
			err, verb, eventingv1.Group, namespace)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%w; context %q needs a new login", err, t.c.Context)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s Triggers: %w; is Millrace installed in the cluster of context %q?", verb, err, t.c.Context)
	default:
		return fmt.Errorf("%s Triggers: %w; is the cluster of context %q running, and is its address right?", verb, err, t.c.Context)
	}
}
