package controller

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// objects reads objects of kinds that are known only from references. A kind is watched from the first reference to it
// on, so that changes are noticed, and read from the cache as soon as that is filled; until then, and where the API server
// lets us read single objects only, each is asked for.
type objects struct {
	cached, live client.Reader
	cache        cache.Cache
	watchers     []watcher

	mu      sync.Mutex
	watched map[schema.GroupVersionKind]cache.Informer
}

// watcher is a controller that is to learn of changes to what the objects of its list refer to.
type watcher struct {
	controller controller.Controller
	list       client.ObjectList
}

func newObjects(m ctrl.Manager) *objects {
	return &objects{
		cached: m.GetClient(), live: m.GetAPIReader(), cache: m.GetCache(),
		watched: map[schema.GroupVersionKind]cache.Informer{},
	}
}

// notify has c look at those objects of list that refer to an object that changed. It is called before the first get.
func (o *objects) notify(c controller.Controller, list client.ObjectList) {
	o.watchers = append(o.watchers, watcher{c, list})
}

// get returns the object of that kind and name, with the API server's error, and whether a change of it will be noticed.
func (o *objects) get(ctx context.Context, kind schema.GroupVersionKind, name types.NamespacedName) (found *unstructured.Unstructured, watched bool, err error) {
	found = &unstructured.Unstructured{}
	found.SetGroupVersionKind(kind)
	if o.synced(kind) {
		return found, true, o.cached.Get(ctx, name, found)
	}
	err = o.live.Get(ctx, name, found)
	if err == nil || apierrors.IsNotFound(err) { // the kind is there, and we may read it
		if watchErr := o.watch(ctx, kind); watchErr != nil {
			return nil, false, watchErr
		}
	}
	return found, false, err
}

func (o *objects) synced(kind schema.GroupVersionKind) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	informer := o.watched[kind]
	return informer != nil && informer.HasSynced()
}

// watch begins to watch a kind, once.
func (o *objects) watch(ctx context.Context, kind schema.GroupVersionKind) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.watched[kind] != nil {
		return nil
	}
	example := &unstructured.Unstructured{}
	example.SetGroupVersionKind(kind)
	informer, err := o.cache.GetInformer(ctx, example, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	for _, w := range o.watchers {
		referrers := enqueueReferrers(o.cached, w.list, kind.GroupKind())
		if err := w.controller.Watch(source.Kind[client.Object](o.cache, example, referrers)); err != nil {
			return err
		}
	}
	o.watched[kind] = informer
	return nil
}
