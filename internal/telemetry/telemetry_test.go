package telemetry_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"millrace.dev/internal/telemetry"
)

func TestMetricsAreObservedAtEachScrape(t *testing.T) {
	m, err := telemetry.New()
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	err = m.Counter("millrace.test.things", "Things counted.", func(report func(int64, ...attribute.KeyValue)) {
		n++
		report(n, attribute.String("kind", "a"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Gauge("millrace.test.level", "A level.", func(report func(int64, ...attribute.KeyValue)) { report(7) }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`millrace_test_things_total{kind="a"} 1`, `millrace_test_things_total{kind="a"} 2`} {
		body := scrape(t, m)
		for _, line := range []string{want, "millrace_test_level 7", "# HELP millrace_test_things_total Things counted.", "go_goroutines "} {
			if !strings.Contains(body, line) {
				t.Errorf("scrape %d has no %q:\n%s", i, line, body)
			}
		}
	}
	if err := m.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d", w.Code)
	}
	return w.Body.String()
}
