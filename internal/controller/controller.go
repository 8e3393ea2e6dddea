// Package controller is the control plane: it makes the streams of Brokers of class Millrace, resolves where their events,
// those of their Triggers and those of sources go, and writes all of that into status, which is what the data plane reads.
//
// It keeps no state of its own and sets no finalizers: deleting an object never waits for it.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
	"millrace.dev/internal/loglevel"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

const (
	// leaseName is that of the Lease by which controllers agree on which of them works.
	leaseName = "millrace-controller"
	// DefaultClusterDomain is the domain of Services where nobody chose another.
	DefaultClusterDomain = "cluster.local"
	// DefaultIngressService is the Service of the ingress in the system namespace.
	DefaultIngressService = "broker-ingress"
)

// Options configure the controller.
type Options struct {
	// Config is how the API server is reached.
	Config *rest.Config
	// Namespace is the system namespace: that of the ingress and of the Lease.
	Namespace string
	// ClusterDomain is the domain of Services; default [DefaultClusterDomain].
	ClusterDomain string
	// IngressService is the Service that accepts events, in Namespace; default [DefaultIngressService].
	IngressService string
	// Admin is the address of /healthz, /readyz and /metrics, host:port.
	Admin string
	// LogLevel, if set, is that of Logger. The admin port then has it read and changed at /log-level.
	LogLevel *slog.LevelVar
	// NATS says how to reach the store.
	NATS stream.ConnOptions
	// Limits returns the limits of a Broker's streams.
	Limits func(*eventingv1.Broker) stream.Limits
	// SweepGrace, if not 0, has streams deleted, with the events in them, whose Broker has been gone for so long. It must be
	// 0 if clusters share a NATS account: each would take the others' streams for left over.
	SweepGrace time.Duration
	// NoSources leaves sources to others. Without it kinds of sources whose CRD is not there are waited for.
	NoSources bool
	// Logger; default slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.ClusterDomain == "" {
		o.ClusterDomain = DefaultClusterDomain
	}
	if o.IngressService == "" {
		o.IngressService = DefaultIngressService
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.NATS.Logger = o.Logger
	return o
}

// Run runs the controller until ctx ends, or until it loses the Lease, which is an error: another one works now, and
// this one is to start anew. Of several only the one that holds the Lease writes anything.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	ctrl.SetLogger(logr.FromSlogHandler(o.Logger.Handler()))
	manager, err := newManager(o)
	if err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	conn, err := stream.Dial(o.NATS)
	if err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	defer conn.Close()
	var observed observers
	for group, observer := range map[string]**stream.Observer{stream.FilterGroup: &observed.filters, stream.SourceGroup: &observed.sources} {
		if *observer, err = conn.Observe(group); err != nil {
			return fmt.Errorf("set up the controller: %w", err)
		}
		defer (*observer).Close()
	}
	if err := setUp(ctx, manager, conn, observed, o); err != nil {
		return fmt.Errorf("set up the controller: %w", err)
	}
	if err := manager.Start(ctx); err != nil {
		return fmt.Errorf("run the controller: %w", err)
	}
	return nil
}

// observers know the processes of the data plane that are asked what they serve.
type observers struct{ filters, sources *stream.Observer }

func newManager(o Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, eventingv1.AddToScheme, sourcesv1.AddToScheme, sourcesv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	var ready http.HandlerFunc
	handlers := map[string]http.Handler{
		"/healthz": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }),
		"/readyz":  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ready(w, r) }),
	}
	if o.LogLevel != nil {
		handlers[loglevel.Path] = loglevel.Handler(o.LogLevel, o.Logger)
	}
	severalInOneProcess := true // in tests
	m, err := ctrl.NewManager(o.Config, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Service{}: {Transform: stripService}},
		},
		Controller:                    config.Controller{SkipNameValidation: &severalInOneProcess},
		LeaderElection:                true,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.Namespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: o.Admin, ExtraHandlers: handlers},
	})
	if err != nil {
		return nil, err
	}
	ready = readiness(m.GetCache())
	return m, nil
}

// readiness answers 200 once the controller knows all Brokers, Triggers and sources.
func readiness(c cache.Cache) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			http.Error(w, "brokers, triggers and sources are not loaded yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	}
}

// setUp puts the parts together.
func setUp(ctx context.Context, m ctrl.Manager, conn *stream.Conn, observed observers, o Options) error {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		return err
	}
	var served []sourceKind
	if !o.NoSources {
		var missing []schema.GroupVersionKind
		if served, missing, err = servedSources(m); err != nil {
			return err
		}
		if len(missing) > 0 {
			o.Logger.InfoContext(ctx, "the cluster does not know all kinds of sources; looking for their CRDs", slog.Any("missing", missing))
			if err := m.Add(&crdWait{mapper: m.GetRESTMapper(), kinds: missing}); err != nil {
				return err
			}
		}
	}
	if err := indexReferences(ctx, m.GetFieldIndexer(), served); err != nil {
		return err
	}
	objects := newObjects(m)
	common := reconciler{
		client:   m.GetClient(),
		events:   m.GetEventRecorder("millrace"),
		objects:  objects,
		services: "svc." + o.ClusterDomain,
		now:      metav1.Now,
	}
	b := &brokers{
		reconciler: common, conn: conn, limits: o.Limits,
		ingress: "http://" + o.IngressService + "." + o.Namespace + "." + common.services,
	}
	t := &triggers{reconciler: common, compiler: compiler, filters: observed.filters}
	setUps := []func(ctrl.Manager) error{b.setUp, t.setUp}
	for _, kind := range served {
		setUps = append(setUps, (&sources{reconciler: common, kind: kind, processes: observed.sources}).setUp)
	}
	for _, add := range setUps {
		if err := add(m); err != nil {
			return err
		}
	}
	if err := m.Add(&crdCheck{config: o.Config, log: o.Logger}); err != nil {
		return err
	}
	if o.SweepGrace > 0 {
		return m.Add(&sweeper{live: m.GetAPIReader(), conn: conn, grace: o.SweepGrace, log: o.Logger})
	}
	return nil
}
