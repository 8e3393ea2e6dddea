// Package kube is the cluster as a source of Brokers and Triggers for the data plane. It reads these two kinds, or
// Brokers alone, and nothing else; what they refer to was resolved by the controller, which writes it into their status.
package kube

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
)

const (
	// A change waits for others, so that a burst of them is taken up at once: for settle at least, and so long that no more
	// than one part in settleFactor of the time goes into taking up changes.
	settle       = 50 * time.Millisecond
	settleFactor = 5
	// retry is the pause after the API server could not be asked for the kinds.
	retry = time.Second
)

// Source delivers the Brokers of class Millrace and their Triggers. While the API server is away, those known last stay
// in effect.
type Source struct {
	kinds   []client.Object
	cache   cache.Cache
	log     *slog.Logger
	changed chan struct{}
}

var _ objects.Source = (*Source)(nil)

// Open returns the cluster that the program runs in, or that of KUBECONFIG.
func Open(logger *slog.Logger) (objects.Source, error) {
	return open(logger, New)
}

// OpenBrokers is Open for a program that has no use for Triggers: it sees none.
func OpenBrokers(logger *slog.Logger) (objects.Source, error) {
	return open(logger, NewBrokers)
}

// Config returns how to reach the API server of the cluster that the program runs in, or that of KUBECONFIG.
func Config() (*rest.Config, error) {
	c, err := config.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	return c, nil
}

func open(logger *slog.Logger, source func(*rest.Config, *slog.Logger) (*Source, error)) (objects.Source, error) {
	c, err := Config()
	if err != nil {
		return nil, err
	}
	klog.SetSlogLogger(logger) // what the client of the API server logs
	return source(c, logger)
}

// New returns the cluster that c leads to. It does not connect yet.
func New(c *rest.Config, logger *slog.Logger) (*Source, error) {
	return newSource(c, logger, &eventingv1.Broker{}, &eventingv1.Trigger{})
}

// NewBrokers is New without Triggers.
func NewBrokers(c *rest.Config, logger *slog.Logger) (*Source, error) {
	return newSource(c, logger, &eventingv1.Broker{})
}

func newSource(c *rest.Config, logger *slog.Logger, kinds ...client.Object) (*Source, error) {
	log.SetLogger(logr.FromSlogHandler(logger.Handler()))
	scheme := runtime.NewScheme()
	if err := eventingv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("prepare the cluster's cache: %w", err)
	}
	objectCache, err := cache.New(c, cache.Options{Scheme: scheme, DefaultTransform: strip})
	if err != nil {
		return nil, fmt.Errorf("prepare the cluster's cache: %w", err)
	}
	return &Source{kinds: kinds, cache: objectCache, log: logger, changed: make(chan struct{}, 1)}, nil
}

// strip drops from an object what the data plane has no use for, which is most of its size.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *eventingv1.Broker:
		stripMeta(&o.ObjectMeta)
	case *eventingv1.Trigger:
		stripMeta(&o.ObjectMeta)
	}
	return o, nil
}

func stripMeta(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Labels, m.OwnerReferences = nil, nil, nil
	delete(m.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
}

// Run delivers the objects until ctx ends, the first time as soon as all are known.
func (s *Source) Run(ctx context.Context, apply func(*objects.Set)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- s.cache.Start(ctx) }()
	if !s.watchAll(ctx) || !s.cache.WaitForCacheSync(ctx) {
		return <-failed
	}
	for {
		start := time.Now()
		set, err := s.set(ctx)
		if err != nil {
			return err
		}
		apply(set)
		if !s.wait(ctx, max(settle, settleFactor*time.Since(start))) {
			return <-failed
		}
	}
}

// watchAll has changes noticed, as soon as the API server can be asked for the kinds. It returns false when ctx ends.
func (s *Source) watchAll(ctx context.Context) bool {
	for _, o := range s.kinds {
		for err := s.watch(ctx, o); err != nil; err = s.watch(ctx, o) {
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "cannot watch the cluster's brokers and triggers; trying again", slog.Any("error", err))
			}
			select {
			case <-ctx.Done():
				return false
			case <-time.After(retry):
			}
		}
	}
	return true
}

// watch has changes of o's kind noticed.
func (s *Source) watch(ctx context.Context, o client.Object) error {
	informer, err := s.cache.GetInformer(ctx, o, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch %T: %w", o, err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { s.signal() },
		UpdateFunc: func(any, any) { s.signal() },
		DeleteFunc: func(any) { s.signal() },
	})
	return err
}

func (s *Source) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// wait returns true when a change is there and settled, and false when ctx ends.
func (s *Source) wait(ctx context.Context, settle time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-s.changed:
	}
	timer := time.NewTimer(settle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	select {
	case <-s.changed: // what came meanwhile is in the cache already
	default:
	}
	return true
}

// set returns what the cache holds. The objects are the cache's own: nobody changes objects of a Set.
func (s *Source) set(ctx context.Context) (*objects.Set, error) {
	var brokers eventingv1.BrokerList
	var triggers eventingv1.TriggerList
	lists := []client.ObjectList{&brokers, &triggers}
	for _, list := range lists[:len(s.kinds)] {
		if err := s.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("read the cluster's cache: %w", err)
		}
	}
	return newSet(brokers.Items, triggers.Items), nil
}

// newSet returns the Brokers of our class, and the Triggers that are not of a Broker of another class. A Trigger that
// names a Broker of another namespace is none: it would hand one namespace's events to another.
func newSet(brokers []eventingv1.Broker, triggers []eventingv1.Trigger) *objects.Set {
	set := &objects.Set{Skipped: map[string]int{}}
	foreign := map[string]bool{}
	for i := range brokers {
		b := &brokers[i]
		if b.Annotations[eventingv1.BrokerClassAnnotation] != eventingv1.BrokerClass {
			foreign[b.Namespace+"/"+b.Name] = true
			continue
		}
		set.Brokers = append(set.Brokers, b)
	}
	for i := range triggers {
		t := &triggers[i]
		if broker := t.BrokerName(); broker.Namespace == t.Namespace && !foreign[broker.String()] {
			set.Triggers = append(set.Triggers, t)
		}
	}
	slices.SortFunc(set.Brokers, func(x, y *eventingv1.Broker) int { return byName(x, y) })
	slices.SortFunc(set.Triggers, func(x, y *eventingv1.Trigger) int { return byName(x, y) })
	return set
}

func byName(x, y metav1.Object) int {
	return cmp.Or(cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
}
