package broker_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// discard is a Store that keeps nothing.
type discard struct{}

func (discard) Publish(context.Context, *stream.Names, ...stream.Message) error { return nil }

// TestAnnouncedBodiesTakeNoRoom makes sure that senders who announce large bodies and send nothing do not keep others out.
func TestAnnouncedBodiesTakeNoRoom(t *testing.T) {
	h := broker.NewHandler(discard{}, broker.Options{MaxInFlightBytes: 4 << 20})
	h.SetTable(broker.NewTable([]*broker.Broker{{Names: stream.NewNames("default", "b", "1")}}))
	server := httptest.NewServer(h)
	defer server.Close()
	url := server.URL + "/default/b"

	const idle = 16
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range idle {
		body, writer := io.Pipe()
		t.Cleanup(func() { _ = writer.Close() })
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 8 << 20
		req.Header.Set("Content-Type", event.ContentTypeBatchJSON)
		go func() {
			if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
				_ = resp.Body.Close()
			}
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); h.Stats().InFlightRequests < idle; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d requests have begun", h.Stats().InFlightRequests, idle)
		}
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("an event of 1 MiB beside %d idle requests: status %d, want 202", idle, resp.StatusCode)
	}
}
