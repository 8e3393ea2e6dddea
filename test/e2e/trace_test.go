package e2e_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"millrace.dev/internal/adminapi"
	"millrace.dev/test/harness"
)

// spans is a collector that speaks OTLP over HTTP and keeps what it is sent.
type spans struct {
	mu  sync.Mutex
	all []*trace.Span
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.all = append(s.all, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// of returns the spans of a trace by name.
func (s *spans) of(traceID string) map[string][]*trace.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string][]*trace.Span{}
	for _, span := range s.all {
		if hex.EncodeToString(span.GetTraceId()) == traceID {
			found[span.GetName()] = append(found[span.GetName()], span)
		}
	}
	return found
}

const traced = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: d}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: first, namespace: d}
spec:
  broker: b
  filters: [{exact: {type: first}}]
  subscriber: {uri: "%[1]s/first"}
  delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT0.05S}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: second, namespace: d}
spec:
  broker: b
  filters: [{exact: {type: second}}]
  subscriber: {uri: "%[1]s/second"}
`

// startTraced runs dev mode with a collector, and subscribers of which the first fails once and then replies. It returns the traceparent
// headers that these got, by path. more is put behind the manifests.
func startTraced(t *testing.T, more ...string) (dev *harness.Dev, collected *spans, got func(path string) []string) {
	t.Helper()
	collected = &spans{}
	server := httptest.NewServer(collected)
	t.Cleanup(server.Close)
	var mu sync.Mutex
	parents := map[string][]string{}
	subscriber := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		parents[r.URL.Path] = append(parents[r.URL.Path], r.Header.Get("Traceparent"))
		switch {
		case r.URL.Path == "/first" && len(parents[r.URL.Path]) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/first":
			for name, value := range map[string]string{"Ce-Id": "r", "Ce-Source": "/r", "Ce-Type": "second", "Ce-Specversion": "1.0"} {
				w.Header().Set(name, value)
			}
		}
	}))
	t.Cleanup(subscriber.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	file := filepath.Join(t.TempDir(), "all.yaml")
	harness.WriteFile(t, file, fmt.Sprintf(traced, subscriber.URL)+strings.Join(more, ""))
	return harness.StartDev(t, t.TempDir(), file), collected, func(path string) []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), parents[path]...)
	}
}

const traceID, producerSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

func postTraced(t *testing.T, url string, headers ...string) {
	t.Helper()
	headers = append(headers, "Ce-Specversion: 1.0", "Ce-Id: 1", "Ce-Source: /s", "Ce-Type: first")
	if status, answer := harness.Post(t, url, "text/plain", []byte("secret payload"), headers...); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
}

// TestOneTraceFromProducerToReply follows an event through ingress, store, match, a failed attempt, a second one, and its reply.
func TestOneTraceFromProducerToReply(t *testing.T) {
	dev, collected, got := startTraced(t)
	postTraced(t, dev.URL+"/d/b", "Traceparent: 00-"+traceID+"-"+producerSpan+"-01", "Tracestate: vendor=1")
	want := map[string]int{
		"receive d/b": 1, "publish d/b": 2, "match d/b": 2, "deliver d/first": 2, "deliver d/second": 1,
	}
	var all map[string][]*trace.Span
	harness.Eventually(t, "the whole trace is collected", func() error {
		all = collected.of(traceID)
		for name, n := range want {
			if len(all[name]) < n {
				return fmt.Errorf("%d spans %q, want %d", len(all[name]), name, n)
			}
		}
		return nil
	})
	id := func(s *trace.Span) string { return hex.EncodeToString(s.GetSpanId()) }
	parent := func(s *trace.Span) string { return hex.EncodeToString(s.GetParentSpanId()) }
	arrival := all["receive d/b"][0]
	if parent(arrival) != producerSpan || arrival.GetTraceState() != "vendor=1" {
		t.Errorf("the arrival's parent is %s with %q", parent(arrival), arrival.GetTraceState())
	}
	attempts := map[string]*trace.Span{}
	for _, s := range all["deliver d/first"] {
		attempts[id(s)] = s
		if parent(s) != id(arrival) {
			t.Errorf("an attempt's parent is %s, want the arrival", parent(s))
		}
	}
	seen := got("/first")
	if len(seen) != 2 {
		t.Fatalf("the subscriber saw %v", seen)
	}
	for i, header := range seen {
		span := attempts[strings.Split(header, "-")[2]]
		if span == nil {
			t.Fatalf("the subscriber got %s, which is no attempt's", header)
		}
		if failed := span.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR; failed != (i == 0) {
			t.Errorf("attempt %d: status %v", i+1, span.GetStatus())
		}
	}
	// The reply's subscriber is below the attempt that was replied to.
	if second := all["deliver d/second"][0]; parent(second) != strings.Split(seen[1], "-")[2] {
		t.Errorf("the delivery of the reply is below %s, want %s", parent(second), seen[1])
	}
	harness.Eventually(t, "the journal tells of the trace", func() error {
		answer, err := (&adminapi.Client{URL: dev.Admin}).Trace(t.Context(), "1", "", "")
		if err == nil && (len(answer.Events) != 1 || answer.Events[0].TraceID != traceID) {
			err = fmt.Errorf("%+v", answer)
		}
		return err
	})
	collected.mu.Lock()
	defer collected.mu.Unlock()
	for _, s := range collected.all {
		if strings.Contains(s.String(), "payload") {
			t.Errorf("a span tells the data: %s", s)
		}
	}
}

// TestTheTracingExtensionIsFollowedAndKept has a producer that knows the extension of CloudEvents alone.
func TestTheTracingExtensionIsFollowedAndKept(t *testing.T) {
	dev, collected, _ := startTraced(t)
	postTraced(t, dev.URL+"/d/b", "Ce-Traceparent: 00-"+traceID+"-"+producerSpan+"-01")
	harness.Eventually(t, "the trace goes on", func() error {
		if n := len(collected.of(traceID)["deliver d/first"]); n < 1 {
			return fmt.Errorf("%d spans", n)
		}
		return nil
	})
}

// TestASourceBeginsTracesAndFollowsThem has a record with a trace and one without become events.
func TestASourceBeginsTracesAndFollowsThem(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	record := func(headers ...string) *kgo.Record {
		r := &kgo.Record{Topic: "orders", Value: []byte("secret payload")}
		headers = append(headers, "ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s", "ce_type", "second")
		for i := 0; i < len(headers); i += 2 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
		}
		return r
	}
	records := []*kgo.Record{record("traceparent", "00-"+traceID+"-"+producerSpan+"-01"), record()}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	_, collected, got := startTraced(t, fmt.Sprintf(`
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: s, namespace: d}
spec:
  bootstrapServers: ["%s"]
  topics: [orders]
  initialOffset: earliest
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
`, cluster.ListenAddrs()[0]))
	harness.Eventually(t, "both are delivered", func() error {
		if n := len(got("/second")); n < 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for _, header := range got("/second") {
		id := strings.Split(header+"-", "-")[1]
		harness.Eventually(t, "the trace "+header+" is whole", func() error {
			all := collected.of(id)
			if len(all["read d/b"]) != 1 || len(all["match d/b"]) != 1 || len(all["deliver d/second"]) != 1 {
				return fmt.Errorf("%v", all)
			}
			parent := all["read d/b"][0].GetParentSpanId()
			if want := map[bool]string{true: producerSpan}[id == traceID]; hex.EncodeToString(parent) != want {
				t.Fatalf("the span of %s is below %x, want %s", id, parent, want)
			}
			if delivered := all["deliver d/second"][0]; !bytes.Equal(delivered.GetParentSpanId(), all["read d/b"][0].GetSpanId()) {
				t.Fatalf("the attempt is below %x", delivered.GetParentSpanId())
			}
			return nil
		})
	}
}

// TestUnsampledTracesStaySo sends what others decided not to record through, and samples none itself.
func TestUnsampledTracesStaySo(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0")
	dev, collected, got := startTraced(t)
	header := "00-" + traceID + "-" + producerSpan + "-00"
	postTraced(t, dev.URL+"/d/b", "Traceparent: "+header)
	postTraced(t, dev.URL+"/d/b")
	harness.Eventually(t, "both are delivered", func() error {
		if n := len(got("/first")); n < 3 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	for _, h := range got("/first") {
		if h != header && h != "" {
			t.Errorf("the subscriber got %q", h)
		}
	}
	collected.mu.Lock()
	defer collected.mu.Unlock()
	if len(collected.all) != 0 {
		t.Errorf("%d spans were recorded", len(collected.all))
	}
}
