// Package app composes the packages into processes: the ingress, the filter, the sources, and dev mode, which is all of
// them with an embedded JetStream. The programs under cmd only parse flags and call Run functions of this package.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
	"millrace.dev/internal/telemetry"
	"millrace.dev/internal/version"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// DefaultDrainTimeout is how long a process that was told to stop finishes what is under way.
const DefaultDrainTimeout = 25 * time.Second

// Options configure a process.
type Options struct {
	// Listen is the address of the ingress, host:port; port 0 takes a free one.
	Listen string
	// Admin is the address of /healthz, /readyz, /metrics and, in a filter, of the admin API. Without Access that asks nobody
	// who they are: bind it to loopback unless the network keeps strangers out.
	Admin string
	// Access, if set, decides who is served by the admin API, profiles, and changes of the log level.
	Access adminapi.Access
	// Profiles has the admin port serve profiles under /debug/pprof/, which cost time while they are taken and tell of the
	// program's inside.
	Profiles bool
	// Manifests are the files and folders with Brokers and Triggers.
	Manifests []string
	// Cluster, if set, is where objects come from in place of Manifests. A controller there makes their
	// streams, so the process only looks whether they are there.
	Cluster objects.Source
	// Services gives URLs to Services that Triggers refer to, by namespace/name, where no cluster can resolve them.
	Services map[string]string
	// NATS says how to reach the store.
	NATS stream.ConnOptions
	// AllowLoopback permits subscribers on this machine's loopback addresses.
	AllowLoopback bool
	// AllowAddresses permits subscribers at addresses that are denied by default, DenyAddresses forbids further ones and
	// wins. See [delivery.Options].
	AllowAddresses []netip.Prefix
	DenyAddresses  []delivery.Target
	// Instance, if set, is the name of this replica among those that share the work of sources, the same after a restart: a
	// restart then does not have the work divided anew.
	Instance string
	// Defaults are the limits of Brokers that set none of their own.
	Defaults LimitDefaults
	// Sweep has streams deleted, with the events in them, whose Broker has been gone for SweepGrace, which is
	// [DefaultSweepGrace] unless set. Nothing is deleted while a manifest has a mistake.
	Sweep      bool
	SweepGrace time.Duration
	// Journal says what is kept of what became of events.
	Journal JournalOptions
	// DrainTimeout bounds how long a stopping process finishes what is under way; default [DefaultDrainTimeout].
	DrainTimeout time.Duration
	// Logger; default slog.Default().
	Logger *slog.Logger
	// LogLevel, if set, is that of Logger. The admin port then has it read and changed at /log-level.
	LogLevel *slog.LevelVar
	// NoLatencies leaves the latency histograms out of the metrics.
	NoLatencies bool
	// LogDeliveries has one in so many successful deliveries logged; 0 for none.
	LogDeliveries int

	tracer observe.Tracer  // nil for none
	pauser adminapi.Pauser // nil where manifests alone say which Triggers are paused
}

func (o Options) withDefaults() Options {
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.SweepGrace <= 0 {
		o.SweepGrace = DefaultSweepGrace
	}
	if !o.Sweep || o.Cluster != nil {
		o.SweepGrace = 0
	}
	o.NATS.Logger = o.Logger
	return o
}

// process is a running composition: a connection to the store, a source of objects, an admin server, and any of an
// ingress, a filter and sources.
type process struct {
	opts      Options
	log       *slog.Logger
	conn      *stream.Conn
	builder   *builder
	provision *provisioner
	metrics   *telemetry.Metrics
	tracer    *telemetry.Tracer // nil if nobody asked for traces
	admin     *admin
	adminHTTP *httpServer
	ingress   *ingress    // nil if not served
	filter    *filter     // nil if not served
	sources   *sources    // nil if not served
	journal   *journalist // nil if there is none
	parked    *parked     // nil if not served; only a filter does

	// tell reports the mistakes in the manifests, each time they were read.
	tell func([]objects.Problem)
	// tellSource reports each change of a source's state.
	tellSource func(sourceState)
	// trim gives memory back, once.
	trim sync.Once
	// onApply, if set, is told each model after it was applied.
	onApply func(*model)
}

// parts says what a process is made of.
type parts struct {
	ingress, filter bool
	// sources, if set, has sources run, and opens them. A program that runs none is linked without what that takes.
	sources sourceOpener
}

// String names the process by what it is made of.
func (p parts) String() string {
	switch {
	case p.ingress && p.filter:
		return "dev"
	case p.ingress:
		return "ingress"
	case p.filter:
		return "filter"
	default:
		return "source"
	}
}

// newProcess binds all listeners and opens the connection, so that what cannot work fails here.
func newProcess(ctx context.Context, o Options, with parts) (_ *process, err error) {
	o = o.withDefaults()
	p := &process{opts: o, log: o.Logger, tell: logProblems(o.Logger)}
	defer func() {
		if err != nil {
			p.closeQuietly(ctx)
		}
	}()
	if o.Defaults, err = o.Defaults.Complete(); err != nil {
		return nil, err
	}
	if p.builder, err = newBuilder(o.Defaults, with.sources); err != nil {
		return nil, err
	}
	if p.metrics, err = telemetry.New(telemetry.Options{}); err != nil {
		return nil, err
	}
	if p.tracer, err = telemetry.NewTracer(ctx, "millrace-"+with.String(), version.String(), o.Logger); err != nil {
		return nil, err
	}
	if p.tracer != nil {
		o.tracer = p.tracer // not a Tracer that is nil inside
	}
	p.provision = newProvisioner(o.Logger, o.SweepGrace)
	p.provision.observe = o.Cluster != nil
	o.NATS.OnReconnect = p.provision.recheck
	if p.conn, err = stream.Dial(o.NATS); err != nil {
		return nil, err
	}
	p.provision.conn = p.conn
	if with.ingress || with.filter {
		p.journal = newJournalist(p.conn, &o) // it works until it is stopped
	}
	if with.ingress {
		if p.ingress, err = newIngress(ctx, p.conn, p.journal.recorder(), &o); err != nil {
			return nil, err
		}
	}
	if with.filter {
		if p.filter, err = newFilter(ctx, p.conn, p.journal.recorder(), p.provision.ready, &o); err != nil {
			return nil, err
		}
		p.parked = newParked(p.conn, p.filter.dispatcher, &o)
	}
	if with.sources != nil {
		if p.sources, err = newSourceRunner(ctx, p.conn, &o); err != nil {
			return nil, err
		}
	}
	return p, p.openAdmin(ctx)
}

func (p *process) openAdmin(ctx context.Context) error {
	p.admin = &admin{
		checks: p.checks(), remarks: p.remarks, metrics: p.metrics.Handler(), profiles: p.opts.Profiles, level: p.opts.LogLevel, log: p.log,
		guard: adminapi.Guard{Access: p.opts.Access},
	}
	if p.parked != nil {
		p.admin.api = p.parked
	}
	if err := p.registerMetrics(); err != nil { // a look at the store outlives the scrape that asked for it
		return err
	}
	var err error
	if p.adminHTTP, err = newHTTPServer(ctx, p.opts.Admin, p.admin.handler()); err != nil {
		return fmt.Errorf("open the admin port: %w", err)
	}
	return nil
}

func (p *process) checks() []check {
	checks := []check{{"nats", func() error {
		if !p.conn.Connected() {
			return errors.New("not connected to NATS; reconnecting")
		}
		return nil
	}}, {"streams", p.provision.check}, {"store", p.provision.writable}}
	if p.ingress != nil {
		checks = append(checks, check{"ingress", p.ingress.ready})
	}
	if p.filter != nil {
		checks = append(checks, check{"filter", p.filter.ready})
	}
	if p.sources != nil {
		checks = append(checks, check{"sources", p.sources.ready})
	}
	return checks
}

// remarks are what people should know although it takes no process out of service.
func (p *process) remarks() map[string]string {
	found := p.provision.faults()
	if p.sources != nil {
		maps.Copy(found, p.sources.faults())
	}
	if p.journal != nil {
		maps.Copy(found, p.journal.faults())
	}
	return found
}

// closeQuietly releases what newProcess opened before it failed.
func (p *process) closeQuietly(ctx context.Context) {
	if p.ingress != nil {
		_ = p.ingress.server.close(ctx)
	}
	if p.journal != nil {
		p.journal.Stop(ctx)
	}
	if p.conn != nil {
		p.conn.Close()
	}
}

// run works until ctx ends or a part breaks down, then stops in order: readiness off, no more intake, finish what is
// under way, close the store. Objects come from source.
func (p *process) run(ctx context.Context, source objects.Source) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(p.adminHTTP.run)
	g.Go(func() error { return p.provision.run(running) })
	g.Go(func() error { return source.Run(running, p.apply) })
	if p.journal != nil {
		g.Go(func() error {
			p.journal.run(running)
			return nil
		})
	}
	if p.parked != nil {
		g.Go(func() error {
			p.parked.replays.Run(running)
			return nil
		})
	}
	if p.ingress != nil {
		g.Go(p.ingress.server.run)
	}
	if p.sources != nil {
		g.Go(func() error {
			p.sources.watch(running, p.tellSource)
			return nil
		})
	}
	<-running.Done()
	p.shutdown(ctx)
	stop()
	return g.Wait()
}

// apply puts a new set of objects into effect.
func (p *process) apply(set *objects.Set) {
	m := p.builder.build(set)
	p.tell(m.problems)
	p.provision.apply(m.streams(), len(m.problems) == 0)
	if p.filter != nil {
		p.filter.apply(m)
		p.parked.apply(set, m, p.ingress) // after the filter: it must know a Trigger before events are redriven to it
	}
	if p.ingress != nil {
		p.ingress.apply(m)
	}
	if p.sources != nil {
		p.sources.apply(m)
	}
	if p.onApply != nil {
		p.onApply(m)
	}
	p.trim.Do(debug.FreeOSMemory) // to load many objects takes several times the memory that they keep
}

// logProblems logs each problem once, as long as it lasts.
func logProblems(log *slog.Logger) func([]objects.Problem) {
	var known map[string]bool
	return func(problems []objects.Problem) {
		now := make(map[string]bool, len(problems))
		for _, problem := range problems {
			text := problem.String()
			now[text] = true
			if !known[text] {
				log.Error("mistake in a manifest", slog.String("problem", text))
			}
		}
		known = now
	}
}

// shutdown finishes what is under way, for as long as the drain timeout allows.
func (p *process) shutdown(ctx context.Context) {
	p.admin.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.opts.DrainTimeout)
	defer cancel()
	if p.sources != nil {
		p.logIf("stop the sources", p.sources.stop(ctx))
	}
	if p.ingress != nil {
		p.ingress.server.leave(ctx)
		p.logIf("stop the ingress", p.ingress.server.close(ctx))
	}
	if p.filter != nil {
		p.parked.Stop(ctx)
		p.filter.dispatcher.Stop(ctx)
	}
	if p.journal != nil {
		p.journal.Stop(ctx) // after all that it is told of
	}
	p.conn.Close()
	p.logIf("stop the admin server", p.adminHTTP.close(ctx))
	p.logIf("stop metrics", p.metrics.Shutdown(ctx))
	if p.tracer != nil {
		p.logIf("stop traces", p.tracer.Shutdown(ctx))
	}
}

func (p *process) logIf(what string, err error) {
	if err != nil {
		p.log.Warn("incomplete stop", slog.String("step", what), slog.Any("error", err))
	}
}
