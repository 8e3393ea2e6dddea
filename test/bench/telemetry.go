package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"millrace.dev/test/bench/report"
)

// telemetry compares programs of which all else is the same: without latencies and scrapes, with both, and with traces as well.
func (b *bench) telemetry(ctx context.Context) (err error) {
	collector, err := listenForSpans(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, collector.Close()) }()
	targets, err := b.sideBySide(ctx,
		variant{name: "plain", args: []string{"--latencies=false"}},
		variant{name: "metrics", scraped: true},
		variant{name: "traced", scraped: true, env: []string{
			"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collector.Addr,
			"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01",
		}})
	if err != nil {
		return err
	}
	off, metrics, traced := targets[0], targets[1], targets[2]
	b.addRate(off, "without metrics", nil, nil)
	b.addRatio(metrics, off, "with metrics, read each second, to without", report.AtLeast(0.97))
	b.addRatio(traced, off, "with metrics and traces of 1 % to without", report.AtLeast(0.95))
	b.addCPUToFirst(metrics, "with metrics to without", nil)
	b.addCPUToFirst(traced, "with metrics and traces of 1 % to without", nil)
	return nil
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
