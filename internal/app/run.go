package app

import (
	"context"
	"fmt"
	"log/slog"

	"millrace.dev/internal/objects"
)

// RunIngress runs the ingress until ctx ends: it accepts events for the Brokers that it knows and stores them in the
// NATS that o.NATS names.
func RunIngress(ctx context.Context, o Options) error {
	return runParts(ctx, o, parts{ingress: true})
}

// RunFilter runs the filter until ctx ends: it delivers the stored events of the Brokers that it knows to the subscribers
// of their Triggers. Several filters share the work.
func RunFilter(ctx context.Context, o Options) error {
	return runParts(ctx, o, parts{filter: true})
}

// RunSources runs the sources of the manifests until ctx ends: they read from other systems and store events for the
// manifests' Brokers, or post them to other sinks. Several such processes share the work.
func RunSources(ctx context.Context, o Options) error {
	return runParts(ctx, o, parts{sources: openSource})
}

func runParts(ctx context.Context, o Options, with parts) error {
	p, err := newProcess(ctx, o, with)
	if err != nil {
		return err
	}
	source := o.Cluster
	if source == nil {
		if source, err = p.files(nil); err != nil {
			p.closeQuietly(ctx)
			return err
		}
	}
	if with.filter {
		p.onApply = logTriggers(p.log)
	}
	if with.sources != nil {
		p.tellSource = p.sources.logState
	}
	p.log.InfoContext(ctx, "started", p.addresses()...)
	return p.run(ctx, source)
}

// logTriggers logs each Trigger that is not in effect once, as long as the reason lasts.
func logTriggers(log *slog.Logger) func(*model) {
	var known map[triggerStatus]bool
	return func(m *model) {
		now := map[triggerStatus]bool{}
		for _, t := range m.notInEffect() {
			now[t] = true
			if !known[t] {
				log.Warn("trigger is not in effect", slog.String("trigger", t.key),
					slog.String("reason", t.reason), slog.String("message", t.message))
			}
		}
		known = now
	}
}

// files is the source that reads the manifests. brokerURL gives the address of a Broker that a Trigger refers to.
func (p *process) files(brokerURL func(namespace, name string) string) (*objects.Files, error) {
	f, err := objects.NewFiles(objects.FilesOptions{
		Paths: p.opts.Manifests, Resolve: p.opts.Services, BrokerURL: brokerURL, Logger: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	return f, nil
}
