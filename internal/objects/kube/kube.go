// Package kube is the cluster as a source of objects for the data plane: of Brokers and Triggers, of Brokers alone, or of
// Brokers and sources with their Secrets. It reads nothing else; what they refer to was resolved by the controller, which
// writes it into their status.
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

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
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

// Source delivers the Brokers of class Millrace, their Triggers, and sources, as far as they are wanted. While the API server
// is away, those known last stay in effect.
type Source struct {
	brokers, triggers *watched   // triggers is nil if nobody asked for them
	sources           []*watched // by kind, if wanted; the CRD of a kind may be missing
	secrets           *secrets   // nil if no sources are wanted
	log               *slog.Logger
	changed           chan struct{}
}

// watched is a kind that is read from the API server.
type watched struct {
	from     *cache.ListWatch
	objects  cache.Store
	informer cache.Controller
	running  bool
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

// OpenSources is Open for a program that runs sources: it sees Brokers and sources, and gets the Secrets that these name.
func OpenSources(logger *slog.Logger) (objects.Source, error) {
	return open(logger, NewSources)
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

// NewSources is New for Brokers and sources.
func NewSources(c *rest.Config, logger *slog.Logger) (*Source, error) {
	s, _, err := newSource(c, logger)
	if err != nil {
		return nil, err
	}
	kafka, err := newClient(c, "/apis", sourcesv1.GroupVersion())
	if err != nil {
		return nil, err
	}
	rocketmq, err := newClient(c, "/apis", sourcesv1alpha1.GroupVersion())
	if err != nil {
		return nil, err
	}
	core, err := newClient(c, "/api", schema.GroupVersion{Version: "v1"})
	if err != nil {
		return nil, err
	}
	s.sources = []*watched{
		s.watch(kafka, "kafkasources", &sourcesv1.KafkaSource{}), s.watch(rocketmq, "rocketmqsources", &sourcesv1alpha1.RocketMQSource{}),
	}
	s.secrets = newSecrets(core, logger)
	return s, nil
}

// newSource returns a Source of Brokers, and the client that more is read with.
func newSource(c *rest.Config, logger *slog.Logger) (*Source, *rest.RESTClient, error) {
	api, err := newClient(c, "/apis", eventingv1.GroupVersion())
	if err != nil {
		return nil, nil, err
	}
	s := &Source{log: logger, changed: make(chan struct{}, 1)}
	s.brokers = s.watch(api, "brokers", &eventingv1.Broker{})
	return s, api, nil
}

// newClient returns a client for one version of one group. It knows our kinds and no others: those of Kubernetes, as most
// clients have them, would be most of the program.
func newClient(c *rest.Config, path string, version schema.GroupVersion) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{eventingv1.AddToScheme, sourcesv1.AddToScheme, sourcesv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("prepare the client of the API server: %w", err)
		}
	}
	c = rest.CopyConfig(c)
	c.APIPath, c.GroupVersion = path, &version
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.UserAgent = cmp.Or(c.UserAgent, rest.DefaultKubernetesUserAgent())
	api, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("prepare the client of the API server: %w", err)
	}
	return api, nil
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
	case sourcesv1.Source: // its labels mean something
		o.SetManagedFields(nil)
		o.SetOwnerReferences(nil)
		delete(o.GetAnnotations(), lastApplied)
	}
	return o, nil
}

// lastApplied is the annotation in which kubectl keeps what was applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func stripMeta(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Labels, m.OwnerReferences = nil, nil, nil
	delete(m.Annotations, lastApplied)
}

// Run delivers the objects until ctx ends, the first time as soon as all are known.
func (s *Source) Run(ctx context.Context, apply func(*objects.Set)) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, w := range s.kinds() {
		if !s.ask(ctx, w, false) {
			return nil
		}
		w.start(ctx, &running)
	}
	for {
		for _, w := range s.sources {
			if !w.running && s.ask(ctx, w, true) {
				w.start(ctx, &running)
			}
		}
		for _, w := range append(s.kinds(), s.sources...) {
			if w.running && !cache.WaitFor(ctx, "", w.informer.HasSyncedChecker()) {
				return nil
			}
		}
		start := time.Now()
		apply(s.set(ctx))
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

func (w *watched) start(ctx context.Context, running *sync.WaitGroup) {
	w.running = true
	running.Go(func() { w.informer.RunWithContext(ctx) })
}

// ask returns true as soon as the API server can be asked for the kind, and false when ctx ends, or if the kind is not there
// and may be missing. An informer by itself would wait longer and longer for kinds that are installed late.
func (s *Source) ask(ctx context.Context, w *watched, mayBeMissing bool) bool {
	for {
		_, err := w.from.ListWithContext(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case err == nil:
			return true
		case mayBeMissing && apierrors.IsNotFound(err):
			return false
		case ctx.Err() == nil:
			s.log.WarnContext(ctx, "cannot watch the cluster's objects; trying again", slog.Any("error", err))
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

// wait returns true when a change is there and settled, or Secrets are to be read again, and false when ctx ends.
func (s *Source) wait(ctx context.Context, settle time.Duration) bool {
	var due <-chan time.Time
	if s.secrets != nil {
		tick := time.NewTimer(s.secrets.next())
		defer tick.Stop()
		due = tick.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-due:
		return true
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

// set returns what is known. The objects are those of the informers, but for sources: nobody changes objects of a Set.
func (s *Source) set(ctx context.Context) *objects.Set {
	brokers := known[*eventingv1.Broker](s.brokers)
	if s.triggers != nil {
		return newSet(brokers, known[*eventingv1.Trigger](s.triggers))
	}
	set := newSet(brokers, nil)
	for _, w := range s.sources {
		set.Sources = append(set.Sources, copies(known[sourcesv1.Source](w))...)
	}
	if s.secrets != nil {
		s.secrets.read(ctx, set)
		prepare(set, s.secrets, metav1.Now())
	}
	return set
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
