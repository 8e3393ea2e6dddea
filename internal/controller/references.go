package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
)

// The cache's indexes: by the objects that an object refers to, and by its Broker.
const (
	byReference = "references"
	byBroker    = "broker"
)

func serviceKind() schema.GroupKind { return schema.GroupKind{Kind: "Service"} }
func brokerKind() schema.GroupKind {
	return schema.GroupKind{Group: eventingv1.Group, Kind: eventingv1.KindBroker}
}

// stripService has the cache keep no more of Services than that they are there, and at which ports.
func stripService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	kept := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion}}
	kept.Spec.Type, kept.Spec.ClusterIP = s.Spec.Type, s.Spec.ClusterIP
	for _, port := range s.Spec.Ports {
		kept.Spec.Ports = append(kept.Spec.Ports, corev1.ServicePort{Port: port.Port})
	}
	return kept, nil
}

// kindOf is the kind that ref names; a group may be left out for those of the core.
func kindOf(ref *eventingv1.KReference) schema.GroupVersionKind {
	if ref.APIVersion == "" {
		return schema.GroupVersionKind{Version: "v1", Kind: ref.Kind}
	}
	return schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
}

// referenceKey is the value of byReference. No name holds a slash.
func referenceKey(kind schema.GroupKind, name types.NamespacedName) string {
	return kind.String() + "/" + name.String()
}

// references returns the keys of what an object in namespace refers to.
func references(namespace string, refs ...*eventingv1.KReference) []string {
	var keys []string
	for _, ref := range refs {
		if ref == nil {
			continue
		}
		name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
		if name.Namespace == "" {
			name.Namespace = namespace
		}
		keys = append(keys, referenceKey(kindOf(ref).GroupKind(), name))
	}
	return keys
}

func sinkOf(d *eventingv1.DeliverySpec) *eventingv1.KReference {
	if d == nil || d.DeadLetterSink == nil {
		return nil
	}
	return d.DeadLetterSink.Ref
}

// index has objects found in the cache by values of theirs.
type index struct {
	object client.Object
	field  string
	values client.IndexerFunc
}

func indexReferences(ctx context.Context, indexer client.FieldIndexer, sources []sourceKind) error {
	indexes := []index{
		{&eventingv1.Broker{}, byReference, func(o client.Object) []string {
			b := o.(*eventingv1.Broker)
			return references(b.Namespace, sinkOf(b.Spec.Delivery))
		}},
		{&eventingv1.Trigger{}, byReference, func(o client.Object) []string {
			t := o.(*eventingv1.Trigger)
			dependency, _ := dependencyOf(t) // a malformed one refers to nothing
			return references(t.Namespace, t.Spec.Subscriber.Ref, sinkOf(t.Spec.Delivery), dependency)
		}},
		{&eventingv1.Trigger{}, byBroker, func(o client.Object) []string {
			return []string{o.(*eventingv1.Trigger).BrokerName().String()}
		}},
	}
	for _, kind := range sources {
		indexes = append(indexes, index{kind.object(), byReference, func(o client.Object) []string {
			s := o.(sourcesv1.Source)
			return references(s.GetNamespace(), s.Common().Sink.Ref, sinkOf(s.Common().Delivery))
		}})
	}
	for _, index := range indexes {
		if err := indexer.IndexField(ctx, index.object, index.field, index.values); err != nil {
			return err
		}
	}
	return nil
}

// enqueueReferrers has the objects of list looked at that refer to an object of the given kind that changed.
func enqueueReferrers(c client.Reader, list client.ObjectList, kind schema.GroupKind) handler.EventHandler {
	return enqueue(c, list, byReference, func(o client.Object) string { return referenceKey(kind, client.ObjectKeyFromObject(o)) })
}

// enqueueTriggersOf has the Triggers of a Broker that changed looked at.
func enqueueTriggersOf(c client.Reader) handler.EventHandler {
	return enqueue(c, &eventingv1.TriggerList{}, byBroker, func(o client.Object) string { return client.ObjectKeyFromObject(o).String() })
}

func enqueue(c client.Reader, list client.ObjectList, index string, key func(client.Object) string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []ctrl.Request {
		found := list.DeepCopyObject().(client.ObjectList)
		if err := c.List(ctx, found, client.MatchingFields{index: key(o)}, client.UnsafeDisableDeepCopy); err != nil {
			return nil // the cache is there, or is being stopped
		}
		var requests []ctrl.Request
		_ = meta.EachListItem(found, func(item runtime.Object) error {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(item.(client.Object))})
			return nil
		})
		return requests
	})
}
