package broker_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/event"
)

func TestOfficialClient(t *testing.T) {
	store := &memoryStore{}
	server := httptest.NewServer(newHandler(store, broker.Options{}))
	defer server.Close()
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(server.URL + "/shop/orders"))
	if err != nil {
		t.Fatal(err)
	}
	e := cloudevents.NewEvent()
	e.SetID("sdk-1")
	e.SetSource("https://example.com/sdk")
	e.SetType("com.example.sdk")
	e.SetExtension("number", 7)
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]int{"n": 1}); err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []struct {
		mode string
		kind event.Kind
	}{{"binary", event.String}, {"structured", event.Integer}} {
		to := binding.WithForceBinary(t.Context())
		if ctx.mode == "structured" {
			to = binding.WithForceStructured(t.Context())
		}
		if result := client.Send(to, e); !cloudevents.IsACK(result) {
			t.Fatalf("%s: %v", ctx.mode, result)
		}
		got := store.msgs[len(store.msgs)-1].Event
		if got.Value("id") != "sdk-1" || string(got.Data) != `{"n":1}` || got.Value("number") != "7" || got.Lookup("number").Kind != ctx.kind {
			t.Errorf("%s: stored %+v", ctx.mode, got)
		}
	}
}

// FuzzServeHTTP checks the two promises of the package comment on requests that a server would let through.
func FuzzServeHTTP(f *testing.F) {
	f.Add("POST", "/shop/orders", "Ce-Id: 1\nCe-Source: /s\nCe-Type: t\nCe-Specversion: 1.0\n", "data")
	f.Add("POST", "/shop/dedup", "Content-Type: application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1}`)
	f.Add("POST", "/shop/small", "Content-Type: application/cloudevents-batch+json", `[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`)
	f.Add("GET", "//", "Ce-Id: 1\nCe-Id: 2", "")
	f.Add("POST", "/shop/orders", "Content-Type: application/cloudevents-batch+json", `[]`)
	f.Fuzz(func(t *testing.T, method, path, headers, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL.Path = method, path
		for line := range strings.Lines(headers) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			r.Header.Add(name, strings.TrimSpace(value))
		}
		store := &memoryStore{}
		h := newHandler(store, broker.Options{Logger: slog.New(slog.DiscardHandler)})
		resp := serve(h, r)
		stats := h.Stats()
		switch accepted := resp.Code == http.StatusAccepted; {
		case resp.Code/100 == 2 && method == http.MethodPost && !accepted:
			t.Fatalf("POST answered %d", resp.Code)
		case accepted && (stats.AcceptedRequests != 1 || int(stats.AcceptedEvents) != len(store.msgs)):
			t.Fatalf("202 for %d events, %d stored", stats.AcceptedEvents, len(store.msgs))
		case accepted && len(store.msgs) == 0 && !isEmptyBatch(r, body):
			t.Fatal("202 and nothing stored")
		case !accepted && len(store.msgs) > 0:
			t.Fatalf("stored, but answered %d", resp.Code)
		case resp.Code >= 500:
			t.Fatalf("answered %d", resp.Code)
		}
		for _, m := range store.msgs {
			if err := m.Event.Validate(); err != nil {
				t.Fatalf("stored an invalid event: %v", err)
			}
		}
		if text, _ := io.ReadAll(resp.Body); len(text) > 2048 {
			t.Fatalf("answered %d bytes", len(text))
		}
	})
}

func isEmptyBatch(r *http.Request, body string) bool {
	fields := strings.Fields(body)
	return event.DetectMode(r.Header.Get("Content-Type")) == event.ModeBatch && strings.Join(fields, "") == "[]"
}
