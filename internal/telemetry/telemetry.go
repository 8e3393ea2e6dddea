// Package telemetry exposes what the processes count as OpenTelemetry metrics, served in the Prometheus format.
//
// The hot path only adds to plain atomic numbers where the work is done; this package reads them when a scrape comes, so that
// metrics cost nothing between scrapes, and what belonged to an object that is gone is gone with it. The SDK's own histograms
// keep each set of attributes for good; those here come to it through a producer instead.
package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"millrace.dev/pkg/observe"
)

const (
	// MaxSeries bounds the label combinations of one metric; what is above is summed up in one series with
	// otel_metric_overflow="true".
	MaxSeries = 20_000
	// MaxHistograms bounds them for a histogram, which has twenty lines for each.
	MaxHistograms = 2_000
	scope         = "millrace.dev"
)

// Options configure Metrics. The zero value stands for the defaults.
type Options struct {
	// MaxSeries and MaxHistograms replace the constants of the same names.
	MaxSeries, MaxHistograms int
}

// Metrics is a set of observed metrics and the handler that serves them.
type Metrics struct {
	provider   *sdkmetric.MeterProvider
	registry   *prometheus.Registry
	meter      metric.Meter
	histograms *histograms

	mu        sync.Mutex
	described []Description
}

// New returns Metrics with the Go runtime's and the process's own metrics in it.
func New(o Options) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h := &histograms{start: time.Now(), max: cmp.Or(o.MaxHistograms, MaxHistograms)}
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo(), otelprom.WithoutTargetInfo(),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes), otelprom.WithProducer(h))
	if err != nil {
		return nil, fmt.Errorf("create Prometheus exporter: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithCardinalityLimit(cmp.Or(o.MaxSeries, MaxSeries)))
	return &Metrics{provider: provider, registry: registry, meter: provider.Meter(scope), histograms: h}, nil
}

// Handler serves the metrics in the Prometheus text and OpenMetrics formats; the latter has exemplars.
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

// Description says what a metric means.
type Description struct {
	// Name is OpenTelemetry's, with dots.
	Name string
	// Unit is in UCUM notation: s, By, {event}; empty for none.
	Unit string
	// Text is a sentence about it.
	Text string
	// Labels are the names of its attributes.
	Labels []attribute.Key
	// Kind is counter, gauge or histogram. It is set when the metric is registered.
	Kind string
}

// Prometheus is the name that a query has to use.
func (d Description) Prometheus() string {
	kind := map[string]otlptranslator.MetricType{
		"counter": otlptranslator.MetricTypeMonotonicCounter, "gauge": otlptranslator.MetricTypeGauge, "histogram": otlptranslator.MetricTypeHistogram,
	}[d.Kind]
	namer := otlptranslator.MetricNamer{WithMetricSuffixes: true}
	name, err := namer.Build(otlptranslator.Metric{Name: d.Name, Unit: d.Unit, Type: kind})
	if err != nil { // of a name without a letter
		return d.Name
	}
	return name
}

// Describe returns all that is registered, by name.
func (m *Metrics) Describe() []Description {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.described)
	slices.SortFunc(all, func(a, b Description) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (m *Metrics) describe(d Description, kind string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d.Kind = kind
	m.described = append(m.described, d)
}

// Observe is called at each scrape and reports values by calling report.
type Observe func(report func(value float64, labels ...attribute.KeyValue))

// Counter registers a cumulative count.
func (m *Metrics) Counter(d Description, observe Observe) error {
	m.describe(d, "counter")
	_, err := m.meter.Float64ObservableCounter(d.Name, metric.WithDescription(d.Text), metric.WithUnit(d.Unit),
		metric.WithFloat64Callback(callback(observe)))
	if err != nil {
		return fmt.Errorf("register metric %s: %w", d.Name, err)
	}
	return nil
}

// Gauge registers a value that goes up and down.
func (m *Metrics) Gauge(d Description, observe Observe) error {
	m.describe(d, "gauge")
	_, err := m.meter.Float64ObservableGauge(d.Name, metric.WithDescription(d.Text), metric.WithUnit(d.Unit),
		metric.WithFloat64Callback(callback(observe)))
	if err != nil {
		return fmt.Errorf("register metric %s: %w", d.Name, err)
	}
	return nil
}

func callback(observe Observe) metric.Float64Callback {
	return func(_ context.Context, o metric.Float64Observer) error {
		observe(func(value float64, labels ...attribute.KeyValue) {
			o.Observe(value, metric.WithAttributes(labels...))
		})
		return nil
	}
}

// ObserveLatency is called at each scrape and reports latencies by calling report.
type ObserveLatency func(report func(latency observe.Latency, labels ...attribute.KeyValue))

// Histogram registers latencies, in seconds.
func (m *Metrics) Histogram(d Description, observe ObserveLatency) {
	d.Unit = "s"
	m.describe(d, "histogram")
	m.histograms.add(d, observe)
}

// histograms hands latencies that are counted elsewhere to the SDK. It implements sdkmetric.Producer.
type histograms struct {
	start time.Time
	max   int

	mu  sync.Mutex
	all []histogram
}

type histogram struct {
	Description
	observe ObserveLatency
}

func (h *histograms) add(d Description, observe ObserveLatency) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, histogram{d, observe})
}

// Produce implements sdkmetric.Producer.
func (h *histograms) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	h.mu.Lock()
	all := slices.Clone(h.all)
	h.mu.Unlock()
	metrics := make([]metricdata.Metrics, 0, len(all))
	for _, one := range all {
		points := h.points(one.observe)
		if len(points) == 0 {
			continue
		}
		metrics = append(metrics, metricdata.Metrics{
			Name: one.Name, Description: one.Text, Unit: one.Unit,
			Data: metricdata.Histogram[float64]{DataPoints: points, Temporality: metricdata.CumulativeTemporality},
		})
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: scope}, Metrics: metrics}}, nil
}

// points returns those of one histogram, as many as may be. All further ones are added up.
func (h *histograms) points(all ObserveLatency) []metricdata.HistogramDataPoint[float64] {
	type labeled struct {
		set     attribute.Set
		key     string
		latency observe.Latency
	}
	var found []labeled
	all(func(l observe.Latency, labels ...attribute.KeyValue) {
		if l.Count > 0 {
			set := attribute.NewSet(labels...)
			found = append(found, labeled{set, set.Encoded(attribute.DefaultEncoder()), l})
		}
	})
	// In an order that stays, so that it is the same ones that have a series of their own at the next scrape.
	slices.SortFunc(found, func(a, b labeled) int { return strings.Compare(a.key, b.key) })
	if len(found) > h.max {
		rest := labeled{set: attribute.NewSet(attribute.Bool("otel.metric.overflow", true))}
		for _, f := range found[h.max-1:] {
			rest.latency.Merge(f.latency)
		}
		rest.latency.Exemplars = nil
		found = append(found[:h.max-1], rest)
	}
	now, bounds := time.Now(), observe.Bounds()
	points := make([]metricdata.HistogramDataPoint[float64], len(found))
	for i, f := range found {
		points[i] = metricdata.HistogramDataPoint[float64]{
			Attributes: f.set, StartTime: h.start, Time: now, Bounds: bounds,
			Count: f.latency.Count, BucketCounts: f.latency.Counts, Sum: f.latency.Sum.Seconds(),
			Exemplars: exemplars(f.latency.Exemplars),
		}
	}
	return points
}

func exemplars(of []observe.Exemplar) []metricdata.Exemplar[float64] {
	var all []metricdata.Exemplar[float64]
	for _, e := range of {
		all = append(all, metricdata.Exemplar[float64]{
			Time: e.At, Value: e.Value.Seconds(), TraceID: slices.Clone(e.TraceID[:]), SpanID: slices.Clone(e.SpanID[:8]),
		})
	}
	return all
}
