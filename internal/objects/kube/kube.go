// Package kube is the cluster as a source of Brokers and Triggers for the data plane. It reads these two kinds, or
// Brokers alone, and nothing else; what they refer to was resolved by the controller, which writes it into their status.
package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

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
	brokers, triggers *watched // triggers is nil if nobody asked for them
	log               *slog.Logger
	changed           chan struct{}
}

// watched is a kind that is read from the API server.
type watched struct {
	from     *cache.ListWatch
	objects  cache.Store
	informer cache.Controller
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

// Config returns how to reach the API server of the cluster that KUBECONFIG names, else of that which the program runs in,
// else of kubectl's.
func Config() (*rest.Config, error) {
	c, err := findConfig()
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

func findConfig() (*rest.Config, error) {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		c, err := rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return c, err
		}
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{}).ClientConfig()
}

// New returns the cluster that c leads to. It does not connect yet.
func New(c *rest.Config, logger *slog.Logger) (*Source, error) {
	s, api, err := newSource(c, logger)
	if err != nil {
		return nil, err
	}
	s.triggers = s.watch(api, "triggers", &eventingv1.Trigger{})
	return s, nil
}

// NewBrokers is New without Triggers.
func NewBrokers(c *rest.Config, logger *slog.Logger) (*Source, error) {
	s, _, err := newSource(c, logger)
	return s, err
}

// newSource returns a Source of Brokers, and the client that more is read with. The client knows our kinds and no others:
// those of Kubernetes, as most clients have them, would be most of the program.
func newSource(c *rest.Config, logger *slog.Logger) (*Source, *rest.RESTClient, error) {
	scheme, version := runtime.NewScheme(), eventingv1.GroupVersion()
	if err := eventingv1.AddToScheme(scheme); err != nil {
		return nil, nil, fmt.Errorf("prepare the client of the API server: %w", err)
	}
	c = rest.CopyConfig(c)
	c.APIPath, c.GroupVersion = "/apis", &version
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.UserAgent = cmp.Or(c.UserAgent, rest.DefaultKubernetesUserAgent())
	api, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare the client of the API server: %w", err)
	}
	s := &Source{log: logger, changed: make(chan struct{}, 1)}
	s.brokers = s.watch(api, "brokers", &eventingv1.Broker{})
	return s, api, nil
}

// watch has changes of a kind noticed, once its informer runs.
func (s *Source) watch(api *rest.RESTClient, resource string, kind runtime.Object) *watched {
	w := &watched{from: cache.NewListWatchFromClient(api, resource, metav1.NamespaceAll, fields.Everything())}
	w.objects, w.informer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: w.from, ObjectType: kind, Transform: strip,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { s.signal() },
			UpdateFunc: func(any, any) { s.signal() },
			DeleteFunc: func(any) { s.signal() },
		},
	})
	return w
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
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, w := range s.kinds() {
		if !s.ask(ctx, w) {
			return nil
		}
		running.Go(func() { w.informer.RunWithContext(ctx) })
	}
	for _, w := range s.kinds() {
		if !cache.WaitFor(ctx, "", w.informer.HasSyncedChecker()) {
			return nil
		}
	}
	for {
		start := time.Now()
		apply(s.set())
		if !s.wait(ctx, max(settle, settleFactor*time.Since(start))) {
			return nil
		}
	}
}

func (s *Source) kinds() []*watched {
	if s.triggers == nil {
		return []*watched{s.brokers}
	}
	return []*watched{s.brokers, s.triggers}
}

// ask returns true as soon as the API server can be asked for the kind, and false when ctx ends. An informer by itself
// would wait longer and longer for kinds that are installed late.
func (s *Source) ask(ctx context.Context, w *watched) bool {
	for {
		_, err := w.from.ListWithContext(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			return true
		}
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

// set returns what is known. The objects are those of the informers: nobody changes objects of a Set.
func (s *Source) set() *objects.Set {
	brokers := known[*eventingv1.Broker](s.brokers)
	if s.triggers == nil {
		return newSet(brokers, nil)
	}
	return newSet(brokers, known[*eventingv1.Trigger](s.triggers))
}

// known returns the objects of a kind, in no order.
func known[T any](w *watched) []T {
	var all []T
	for _, o := range w.objects.List() {
		all = append(all, o.(T)) // an informer keeps no other
	}
	return all
}

// newSet returns the Brokers of our class, and the Triggers that are not of a Broker of another class. A Trigger that
// names a Broker of another namespace is none: it would hand one namespace's events to another.
func newSet(brokers []*eventingv1.Broker, triggers []*eventingv1.Trigger) *objects.Set {
	set := &objects.Set{Skipped: map[string]int{}}
	foreign := map[string]bool{}
	for _, b := range brokers {
		if b.Annotations[eventingv1.BrokerClassAnnotation] != eventingv1.BrokerClass {
			foreign[b.Namespace+"/"+b.Name] = true
			continue
		}
		set.Brokers = append(set.Brokers, b)
	}
	for _, t := range triggers {
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
