package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

// scrapeEvery is how often metrics are read: far more often than Prometheus does by default.
const scrapeEvery = time.Second

// telemetry compares programs of which all else is the same: without latencies and scrapes, with both, and with traces as well.
func (b *bench) telemetry(ctx context.Context) (err error) {
	collector, err := listenForSpans(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, collector.Close()) }()
	running, stop := context.WithCancel(ctx)
	defer stop()
	start := func(name string, o rig.Options) (*target, func() error, error) {
		t, err := newTarget(name, 1, 0)
		if err != nil {
			return nil, nil, err
		}
		o.Ingresses, o.Filters = 1, 1
		o.Manifests = []string{brokerManifest(name, ""), triggerManifest(name, name, t.sink.URL(0), "")}
		r, err := b.start(ctx, o)
		if err != nil {
			return nil, nil, err
		}
		t.on(r)
		return t, r.Close, nil
	}
	off, closeOff, err := start("plain", rig.Options{Args: []string{"--latencies=false"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOff()) }()
	metrics, closeMetrics, err := start("metrics", rig.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMetrics()) }()
	traced, closeTraced, err := start("traced", rig.Options{Env: []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.Addr,
		"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTraced()) }()
	go scrape(running, metrics.rig, traced.rig)
	if err := b.measure(ctx, off, metrics, traced); err != nil {
		return err
	}
	b.addRate(off, "without metrics", nil, nil)
	b.addRatio(metrics, off, "with metrics, read each second, to without", report.AtLeast(0.97))
	b.addRatio(traced, off, "with metrics and traces of 1 % to without", report.AtLeast(0.95))
	b.addRatioOf(metrics, off, "with metrics, processor time an event to without", nil, slice.brokerCPU)
	b.addRatioOf(traced, off, "with metrics and traces of 1 %, processor time an event to without", nil, slice.brokerCPU)
	return nil
}

// scrape reads the metrics of the rigs until ctx ends. What fails shows in the figures.
func scrape(ctx context.Context, rigs ...*rig.Rig) {
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, r := range rigs {
				_ = r.Scrape(ctx)
			}
		}
	}
}

// listenForSpans is a collector that takes all spans and keeps none.
func listenForSpans(ctx context.Context) (*http.Server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{Addr: l.Addr().String(), ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})}
	go func() { _ = s.Serve(l) }()
	return s, nil
}
