package load_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/test/bench/ledger"
	"millrace.dev/test/bench/load"
)

func host(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

func TestEventsHaveDistinctIDs(t *testing.T) {
	data := []byte(`{"user":"mia"}`)
	for name, request := range map[string]load.Request{
		"binary": load.Binary("/default/b", "gift", data), "structured": load.Structured("/default/b", "gift", data),
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan string, 1000)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				id := r.Header.Get("ce-id")
				if r.Header.Get("Content-Type") == event.ContentTypeJSON {
					var e struct{ ID string }
					_ = json.Unmarshal(body, &e)
					id = e.ID
				}
				select {
				case seen <- id:
				default:
				}
				w.WriteHeader(http.StatusAccepted)
			}))
			defer server.Close()
			book := ledger.New(0)
			result, err := load.Run(t.Context(), load.Options{
				Hosts: []string{host(server)}, Request: request, Connections: 4, Duration: 50 * time.Millisecond, Book: book,
			})
			if err != nil || result.Events == 0 || uint64(result.Events) != book.Sent() {
				t.Fatalf("%d events of %d, %v", result.Events, book.Sent(), err)
			}
			ids := map[string]bool{}
			for range min(len(seen), int(result.Events)) {
				id := <-seen
				if len(id) != 16 || ids[id] {
					t.Fatalf("id %q is malformed or came twice", id)
				}
				ids[id] = true
			}
		})
	}
}

// A server that stalls once holds up the events whose turn comes meanwhile; each of them counts from its turn.
func TestLatencyIsCorrectedForCoordinatedOmission(t *testing.T) {
	const stall = 300 * time.Millisecond
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if calls.Add(1) == 1 {
			time.Sleep(stall)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	result, err := load.Run(t.Context(), load.Options{
		Hosts: []string{host(server)}, Request: load.Binary("/", "gift", nil), Connections: 1, Duration: 400 * time.Millisecond,
		Rate: 100, Book: ledger.New(0),
	})
	if err != nil || result.Events != 40 {
		t.Fatalf("%d events, want 40: %v", result.Events, err)
	}
	// Of 40 events one stalled and 29 were held up by it; without the correction only one would be slow.
	if p50 := result.Latency.ValueAtQuantile(50); p50 < stall.Microseconds()/10 {
		t.Errorf("half of the events took less than %d µs", p50)
	}
}

func TestARefusalIsAnError(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "store full", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	_, err := load.Run(t.Context(), load.Options{
		Hosts: []string{host(server)}, Request: load.Binary("/", "gift", nil), Duration: time.Second, Book: ledger.New(0),
	})
	if err == nil || !strings.Contains(err.Error(), "503: store full") {
		t.Errorf("got %v", err)
	}
}
