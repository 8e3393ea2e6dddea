package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/resolve"
)

// DependencyAnnotation on a Trigger names an object, as JSON with apiVersion, kind and name, that must be Ready before
// the Trigger is.
const DependencyAnnotation = "knative.dev/dependency"

// lookAgain is when to look again for what is not watched, for example because its kind is not there yet.
const lookAgain = 10 * time.Second

// lookups finds the objects that one Broker or Trigger refers to.
type lookups struct {
	*reconciler
	ctx context.Context //nolint:containedctx // it lives as long as one call of Reconcile
	// err is the first error that is nobody's fault: the API server could not be asked. look says that no watch tells of all
	// that may change.
	err  error
	look bool
	// portless is what to say of the Service looked up last, if events are sent to a port that it has not.
	portless string
}

func (r *reconciler) lookups(ctx context.Context) *lookups { return &lookups{reconciler: r, ctx: ctx} }

// lookup is a [resolve.Lookup].
func (l *lookups) lookup(ref *eventingv1.KReference) (eventingv1.Addressable, error) {
	address, err := l.address(ref)
	l.note(err)
	return address, err
}

// note remembers an error that is nobody's fault.
func (l *lookups) note(err error) {
	var fault resolve.Fault
	if err != nil && l.err == nil && !errors.As(err, &fault) {
		l.err = err
	}
}

func (l *lookups) address(ref *eventingv1.KReference) (eventingv1.Addressable, error) {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	switch kind := kindOf(ref); {
	case kind.GroupKind() == serviceKind():
		return l.serviceAddress(ref, name)
	case kind.Group == "", kind.Group == "apps", kind.Group == "batch": // these have no address, whatever we may read
		return eventingv1.Addressable{}, resolve.Faultf("events cannot be sent to a %s: refer to the Service in front of its pods, or write a uri", ref.Kind)
	}
	status, err := l.addressStatus(ref, name)
	if err != nil {
		return eventingv1.Addressable{}, lookupError(err, ref, name)
	}
	return choose(status, ref, name)
}

// httpPort is where events are sent to a Service.
const httpPort = 80

func (l *lookups) serviceAddress(ref *eventingv1.KReference, name types.NamespacedName) (eventingv1.Addressable, error) {
	service := &corev1.Service{}
	if err := l.client.Get(l.ctx, name, service); err != nil {
		return eventingv1.Addressable{}, lookupError(err, ref, name)
	}
	target := "http://" + name.Name + "." + name.Namespace + "." + l.services
	// What has no cluster IP is a name for other addresses, whose ports are not known here.
	forwards := service.Spec.Type != corev1.ServiceTypeExternalName && service.Spec.ClusterIP != corev1.ClusterIPNone
	listens := slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == httpPort })
	if forwards && !listens && len(service.Spec.Ports) > 0 {
		l.portless = fmt.Sprintf("Service %s has no port %d, which events are sent to: add one, or name the port in a uri instead of the ref, such as %s:%d/",
			name, httpPort, target, service.Spec.Ports[0].Port)
	}
	return eventingv1.Addressable{URL: &target}, nil
}

// remark adds to a condition that is True what is odd about the Service that was looked up for it.
func (l *lookups) remark(kind string, c resolve.Conditions) {
	if l.portless != "" && meta.IsStatusConditionTrue(c.Status.Conditions, kind) {
		c.Set(kind, metav1.ConditionTrue, eventingv1.ReasonServicePortMissing, l.portless)
	}
	l.portless = ""
}

// object returns an object of any kind.
func (l *lookups) object(ref *eventingv1.KReference, name types.NamespacedName) (*unstructured.Unstructured, error) {
	o, watched, err := l.objects.get(l.ctx, kindOf(ref), name)
	l.look = l.look || !watched
	return o, err
}

// addressStatus is what an object says of where it is.
type addressStatus struct {
	Address   *eventingv1.Addressable  `json:"address"`
	Addresses []eventingv1.Addressable `json:"addresses"`
}

func (l *lookups) addressStatus(ref *eventingv1.KReference, name types.NamespacedName) (s addressStatus, err error) {
	if kindOf(ref).GroupKind() == brokerKind() {
		b := &eventingv1.Broker{}
		err := l.client.Get(l.ctx, name, b)
		return addressStatus{b.Status.Address, b.Status.Addresses}, err
	}
	o, err := l.object(ref, name)
	if err != nil {
		return s, err
	}
	raw, _ := o.Object["status"].(map[string]any)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &s); err != nil {
		return s, resolve.Faultf("%s %s has a status.address that makes no sense: %v", ref.Kind, name, err)
	}
	return s, nil
}

// choose picks the address that ref asks for.
func choose(s addressStatus, ref *eventingv1.KReference, name types.NamespacedName) (eventingv1.Addressable, error) {
	address := s.Address
	if ref.Address != nil {
		address = nil
		for _, a := range s.Addresses {
			if a.Name != nil && *a.Name == *ref.Address {
				address = &a
			}
		}
		if address == nil {
			return eventingv1.Addressable{}, resolve.Faultf("%s %s has no address of the name %s in status.addresses: write one of those that it has, or leave address out for its main one", ref.Kind, name, *ref.Address)
		}
	}
	if address == nil || address.URL == nil || *address.URL == "" {
		return eventingv1.Addressable{}, resolve.Faultf("%s %s has no status.address.url: wait until it is ready, or refer to something that can be sent to",
			ref.Kind, name)
	}
	return *address, nil
}

// lookupError turns what the API server says into something that a person can act on.
func lookupError(err error, ref *eventingv1.KReference, name types.NamespacedName) error {
	var fault resolve.Fault
	switch {
	case errors.As(err, &fault):
		return err
	case meta.IsNoMatchError(err):
		return resolve.Faultf("the cluster knows no kind %s of %s: install what defines it, or correct the reference", ref.Kind, ref.APIVersion)
	case apierrors.IsNotFound(err):
		return resolve.Faultf("there is no %s %s: add it, or correct the reference", ref.Kind, name)
	case apierrors.IsForbidden(err):
		return resolve.Faultf("the controller may not read %s %s: give a ClusterRole that lets it get, list and watch the kind the label duck.knative.dev/addressable: \"true\"",
			ref.Kind, name)
	}
	return fmt.Errorf("look up %s %s: %w", ref.Kind, name, err)
}

// dependencyOf returns what the dependency annotation names, nil if the Trigger has none. It is in the Trigger's
// namespace.
func dependencyOf(t *eventingv1.Trigger) (*eventingv1.KReference, error) {
	text, ok := t.Annotations[DependencyAnnotation]
	if !ok {
		return nil, nil
	}
	ref := &eventingv1.KReference{}
	if err := json.Unmarshal([]byte(text), ref); err != nil || ref.Kind == "" || ref.Name == "" || ref.APIVersion == "" ||
		ref.Namespace != "" && ref.Namespace != t.Namespace {
		return nil, resolve.Faultf(`the annotation %s must be JSON with the apiVersion, kind and name of an object in this namespace, such as {"apiVersion":"sources.knative.dev/v1","kind":"PingSource","name":"tick"}`,
			DependencyAnnotation)
	}
	ref.Namespace = t.Namespace
	return ref, nil
}

// dependency sets DependencyReady.
func (l *lookups) dependency(t *eventingv1.Trigger, c resolve.Conditions) {
	ref, err := dependencyOf(t)
	if err == nil && ref == nil {
		c.True(eventingv1.ConditionDependencyReady, eventingv1.ReasonDependencyNotConfigured)
		return
	}
	if err == nil {
		err = l.dependencyReady(ref)
	}
	l.note(err)
	if err == nil {
		c.True(eventingv1.ConditionDependencyReady, eventingv1.ReasonReady)
		return
	}
	c.False(eventingv1.ConditionDependencyReady, eventingv1.ReasonDependencyNotReady, err.Error())
}

// dependencyReady is nil if the object is Ready.
func (l *lookups) dependencyReady(ref *eventingv1.KReference) error {
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	o, err := l.object(ref, name)
	if err != nil {
		return lookupError(err, ref, name)
	}
	if !isReady(o) {
		return resolve.Faultf("%s %s, which the annotation %s names, is not Ready: see its status, or remove the annotation", ref.Kind, name, DependencyAnnotation)
	}
	return nil
}

// isReady says whether an object of any kind says of itself, as it is now, that it is Ready.
func isReady(o *unstructured.Unstructured) bool {
	observed, found, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration")
	if found && observed != o.GetGeneration() {
		return false
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == eventingv1.ConditionReady {
			return condition["status"] == string(metav1.ConditionTrue)
		}
	}
	return false
}
