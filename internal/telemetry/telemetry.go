// Package telemetry exposes what the processes count as OpenTelemetry metrics, served in the Prometheus format.
//
// The hot path only increments plain atomic counters where the work is done; this package reads them when a scrape
// comes, so that metrics cost nothing between scrapes.
package telemetry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// maxSeries bounds the label combinations of one metric; what is above is summed up in one series with
// otel_metric_overflow="true".
const maxSeries = 20_000

// Metrics is a set of observed metrics and the handler that serves them.
type Metrics struct {
	provider *sdkmetric.MeterProvider
	registry *prometheus.Registry
	meter    metric.Meter
}

// New returns Metrics with the Go runtime's and the process's own metrics in it.
func New() (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("create Prometheus exporter: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithCardinalityLimit(maxSeries))
	return &Metrics{provider: provider, registry: registry, meter: provider.Meter("millrace.dev")}, nil
}

// Handler serves the metrics in the Prometheus text and OpenMetrics formats.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Shutdown releases what the metrics hold.
func (m *Metrics) Shutdown(ctx context.Context) error {
	if err := m.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("stop metrics: %w", err)
	}
	return nil
}

// Observe is called at each scrape and reports values by calling report.
type Observe func(report func(value int64, labels ...attribute.KeyValue))

// Counter registers a cumulative count. Its Prometheus name has dots replaced by underscores and _total appended.
func (m *Metrics) Counter(name, description string, observe Observe) error {
	_, err := m.meter.Int64ObservableCounter(name, metric.WithDescription(description),
		metric.WithInt64Callback(callback(observe)))
	if err != nil {
		return fmt.Errorf("register metric %s: %w", name, err)
	}
	return nil
}

// Gauge registers a value that goes up and down.
func (m *Metrics) Gauge(name, description string, observe Observe) error {
	_, err := m.meter.Int64ObservableGauge(name, metric.WithDescription(description),
		metric.WithInt64Callback(callback(observe)))
	if err != nil {
		return fmt.Errorf("register metric %s: %w", name, err)
	}
	return nil
}

func callback(observe Observe) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		observe(func(value int64, labels ...attribute.KeyValue) {
			o.Observe(value, metric.WithAttributes(labels...))
		})
		return nil
	}
}
