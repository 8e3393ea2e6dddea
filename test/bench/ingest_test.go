// Package bench measures whole paths through the product, each figure next to a baseline of the same run: the machines
// that this runs on are shared and noisy, so ratios count, not times.
package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/stream"
)

const (
	connections    = 64
	eventsPerRound = 10_000
	dataBytes      = 1024
)

// BenchmarkIngest posts 1 KiB events in binary mode over 64 connections to the ingress and, in turn, to a bare handler that
// publishes the same message to the same JetStream and waits for its ack. It reports the events a second of both and
// the ratio of the medians.
func BenchmarkIngest(b *testing.B) {
	s := startStore(b)
	ingress := httptest.NewServer(s.ingress())
	defer ingress.Close()
	bare := httptest.NewServer(s.bare(b))
	defer bare.Close()
	client := newClient()
	defer client.CloseIdleConnections()
	urls := map[string]string{"millrace": ingress.URL + "/default/bench", "bare": bare.URL + "/"}
	rates := map[string][]float64{}
	post(b, client, urls["millrace"], 2_000, binaryRequest) // warm up
	post(b, client, urls["bare"], 2_000, binaryRequest)
	for b.Loop() {
		for _, name := range []string{"millrace", "bare"} {
			rates[name] = append(rates[name], post(b, client, urls[name], eventsPerRound, binaryRequest))
			s.purge(b)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates["millrace"]), "millrace-events/s")
	b.ReportMetric(median(rates["bare"]), "bare-events/s")
	b.ReportMetric(median(rates["millrace"])/median(rates["bare"]), "millrace/bare")
}

// BenchmarkIngestStructured compares structured JSON with binary mode at the ingress.
func BenchmarkIngestStructured(b *testing.B) {
	s := startStore(b)
	ingress := httptest.NewServer(s.ingress())
	defer ingress.Close()
	client := newClient()
	defer client.CloseIdleConnections()
	url := ingress.URL + "/default/bench"
	kinds := map[string]func(string, int) *http.Request{"binary": binaryRequest, "structured": structuredRequest}
	rates := map[string][]float64{}
	for b.Loop() {
		for _, name := range []string{"binary", "structured"} {
			rates[name] = append(rates[name], post(b, client, url, eventsPerRound, kinds[name]))
			s.purge(b)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates["structured"]), "structured-events/s")
	b.ReportMetric(median(rates["structured"])/median(rates["binary"]), "structured/binary")
}

// store is an embedded, file-backed JetStream with one Broker.
type store struct {
	server *devserver.Server
	conn   *stream.Conn
	names  *stream.Names
	js     jetstream.JetStream
}

func startStore(b *testing.B) *store {
	b.Helper()
	server, err := devserver.Start(devserver.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Stop)
	s := &store{server: server, names: stream.NewNames("default", "bench", "uid")}
	s.conn, err = stream.Dial(stream.ConnOptions{InProcess: server, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.conn.Close)
	if err := s.conn.Ensure(b.Context(), s.names, stream.Limits{}); err != nil {
		b.Fatal(err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(server))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	if s.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<16)); err != nil {
		b.Fatal(err)
	}
	return s
}

// purge empties the stream, so that every round starts alike.
func (s *store) purge(b *testing.B) {
	st, err := s.js.Stream(b.Context(), s.names.Events)
	if err == nil {
		err = st.Purge(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
}

func (s *store) ingress() http.Handler {
	h := broker.NewHandler(stream.NewPublisher(s.conn, 0), broker.Options{})
	h.SetTable(broker.NewTable([]*broker.Broker{{Names: s.names}}))
	return h
}

// bare is the least that any ingress must do: read the request, publish its ce- headers and body asynchronously, answer 202
// after the ack. It checks nothing.
func (s *store) bare(b *testing.B) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		msg := &nats.Msg{Subject: s.names.EventSubject, Data: body, Header: nats.Header{}}
		for name, values := range r.Header {
			if len(name) > 3 && name[:3] == "Ce-" {
				msg.Header[name] = values
			}
		}
		future, err := s.js.PublishMsgAsync(msg)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		select {
		case <-future.Ok():
			w.WriteHeader(http.StatusAccepted)
		case err := <-future.Err():
			b.Error(err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
}

var payload = bytes.Repeat([]byte(`{"user":"mia","gift":"rocket"},`), dataBytes/31+1)[:dataBytes-2]

func binaryRequest(url string, n int) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		panic(err)
	}
	h := req.Header
	h["Ce-Specversion"], h["Ce-Id"] = []string{"1.0"}, []string{strconv.Itoa(n)}
	h["Ce-Source"], h["Ce-Type"] = []string{"/rooms/42"}, []string{"com.example.live.gift.sent"}
	h["Ce-Time"], h["Ce-Subject"] = []string{"2026-01-02T03:04:05.123456789Z"}, []string{"room-42"}
	h["Content-Type"] = []string{"application/json"}
	return req
}

func structuredRequest(url string, n int) *http.Request {
	body := fmt.Appendf(nil, `{"specversion":"1.0","id":"%d","source":"/rooms/42","type":"com.example.live.gift.sent",`+
		`"time":"2026-01-02T03:04:05.123456789Z","subject":"room-42","datacontenttype":"application/json","data":{"text":"%s"}}`,
		n, bytes.Repeat([]byte("x"), dataBytes-11))
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header["Content-Type"] = []string{"application/cloudevents+json"}
	return req
}

// postOne sends one event, which must be accepted.
func postOne(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// post sends count events over all connections and returns the rate in events a second. Every event must be accepted.
func post(b *testing.B, client *http.Client, url string, count int, request func(string, int) *http.Request) float64 {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range connections {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(count); n = next.Add(1) {
				if err := postOne(client, request(url, int(n))); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(count) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
