package telemetry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"millrace.dev/internal/telemetry"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

func newMetrics(t *testing.T, o telemetry.Options) *telemetry.Metrics {
	t.Helper()
	m, err := telemetry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Shutdown(t.Context()); err != nil {
			t.Log(err)
		}
	})
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type report = func(float64, ...attribute.KeyValue)

func TestMetricsAreObservedAtEachScrape(t *testing.T) {
	m := newMetrics(t, telemetry.Options{})
	n := 0.0
	must(t, m.Counter(telemetry.Description{Name: "millrace.test.things", Unit: "{thing}", Text: "Things counted."}, func(r report) {
		n++
		r(n, attribute.String("kind", "a"))
	}))
	must(t, m.Gauge(telemetry.Description{Name: "millrace.test.level", Unit: "By", Text: "A level."}, func(r report) { r(7) }))
	for i, want := range []string{`millrace_test_things_total{kind="a"} 1`, `millrace_test_things_total{kind="a"} 2`} {
		body := scrape(t, m)
		for _, line := range []string{want, "millrace_test_level_bytes 7", "# HELP millrace_test_things Things counted.", "go_goroutines "} {
			if !strings.Contains(body, line) {
				t.Errorf("scrape %d has no %q:\n%s", i, line, body)
			}
		}
	}
	for _, d := range m.Describe() {
		family := strings.TrimSuffix(d.Prometheus(), "_total") // which OpenMetrics leaves out here
		if body := scrape(t, m); !strings.Contains(body, "# TYPE "+family+" "+d.Kind) {
			t.Errorf("%s is said to be the %s %s, which is not served", d.Name, d.Kind, d.Prometheus())
		}
	}
}

func TestHistogramsHaveExemplarsAndEndWithTheirObject(t *testing.T) {
	m := newMetrics(t, telemetry.Options{})
	var h observe.Histogram
	h.Observe(3*time.Millisecond, time.Now(), &event.Event{Headers: []event.Header{{
		Name: "Traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}}})
	there := true
	m.Histogram(telemetry.Description{Name: "http.client.request.duration", Text: "Requests."},
		func(r func(observe.Latency, ...attribute.KeyValue)) {
			if there {
				r(h.Read(), attribute.String("trigger", "a"))
			}
		})
	body := scrape(t, m)
	for _, want := range []string{
		`http_client_request_duration_seconds_bucket{trigger="a",le="0.0025"} 0`,
		`http_client_request_duration_seconds_bucket{trigger="a",le="0.005"} 1 # {`,
		`trace_id="0af7651916cd43dd8448eb211c80319c"`, `span_id="b7ad6b7169203331"`,
		`http_client_request_duration_seconds_count{trigger="a"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in:\n%s", want, body)
		}
	}
	there = false
	if body := scrape(t, m); strings.Contains(body, "http_client") {
		t.Errorf("the series is still there:\n%s", body)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	const limit = 10
	m := newMetrics(t, telemetry.Options{MaxSeries: limit, MaxHistograms: limit})
	n := 5 * limit
	var h observe.Histogram
	h.Observe(time.Second, time.Now(), nil)
	must(t, m.Counter(telemetry.Description{Name: "millrace.test.many"}, func(r report) {
		for i := range n {
			r(1, attribute.Int("i", i))
		}
	}))
	m.Histogram(telemetry.Description{Name: "millrace.test.latency"}, func(r func(observe.Latency, ...attribute.KeyValue)) {
		for i := range n {
			r(h.Read(), attribute.Int("i", i))
		}
	})
	body := scrape(t, m)
	for prefix, overflow := range map[string]string{
		"millrace_test_many_total{":            `millrace_test_many_total{otel_metric_overflow="true"} 41`,
		"millrace_test_latency_seconds_count{": `millrace_test_latency_seconds_count{otel_metric_overflow="true"} 41`,
	} {
		if got := strings.Count(body, prefix); got != limit {
			t.Errorf("%s has %d series, want %d", prefix, got, limit)
		}
		if !strings.Contains(body, overflow) {
			t.Errorf("no %s in:\n%s", overflow, body)
		}
	}
	n = 2
	if got := strings.Count(scrape(t, m), "millrace_test_many_total{"); got != 2 {
		t.Errorf("%d series are left of 2 objects", got)
	}
}

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return strings.ReplaceAll(w.Body.String(), ".0\n", "\n")
}

func ExampleDescription_Prometheus() {
	fmt.Println(telemetry.Description{Name: "http.client.request.duration", Unit: "s", Kind: "histogram"}.Prometheus())
	fmt.Println(telemetry.Description{Name: "millrace.trigger.backlog", Unit: "{event}", Kind: "gauge"}.Prometheus())
	// Output:
	// http_client_request_duration_seconds
	// millrace_trigger_backlog
}
