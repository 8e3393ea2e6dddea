package source_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/stream"
)

// startBroker returns a connection to a real JetStream and the names of a Broker in it.
func startBroker(t *testing.T) (*stream.Conn, *stream.Names) {
	t.Helper()
	s, err := devserver.Start(devserver.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c, err := stream.Dial(stream.ConnOptions{InProcess: s, Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	n := stream.NewNames("default", "live", "0123456789abcdef")
	if err := c.Ensure(t.Context(), n, stream.Limits{}.WithDefaults()); err != nil {
		t.Fatal(err)
	}
	return c, n
}

// stored returns the ids of the first n events in the stream, and fails if there are more.
func stored(t *testing.T, c *stream.Conn, names *stream.Names, n int) []*event.Event {
	t.Helper()
	got := make(chan *stream.Delivery, n+10)
	consumption, err := c.Consume(t.Context(), stream.ConsumeOptions{Stream: names.Events}, func(d *stream.Delivery) {
		d.Ack()
		got <- d
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumption.Stop(context.Background()) }()
	var events []*event.Event
	for len(events) < n {
		select {
		case d := <-got:
			events = append(events, d.Event)
		case <-time.After(10 * time.Second):
			t.Fatalf("%d events are stored, want %d", len(events), n)
		}
	}
	select {
	case d := <-got:
		t.Fatalf("event %s is one too many", d.Event.Value(event.ID))
	case <-time.After(100 * time.Millisecond):
	}
	return events
}

// TestBrokerSink stores events as the ingress does, in order, and drops what it has stored before.
func TestBrokerSink(t *testing.T) {
	c, names := startBroker(t)
	limits := event.Limits{Data: 1000, Attributes: event.DefaultMaxAttributeBytes}
	sink := source.NewBrokerSink(stream.NewPublisher(c, 0), names, "uid", limits)
	if taken, err := sink.Send(t.Context(), messages(50)); taken != 50 || err != nil {
		t.Fatalf("%d events are taken, %v", taken, err)
	}
	if taken, err := sink.Send(t.Context(), messages(60)); taken != 60 || err != nil {
		t.Fatalf("%d events are taken the second time, %v", taken, err)
	}
	events := stored(t, c, names, 60)
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprint(i))
	}
	if got := ids(events); !slices.Equal(got, want) {
		t.Errorf("stored %v", got)
	}
	for _, e := range events {
		if e.Value(event.HopLimit) != "255" || e.Value(event.ArrivalTime) == "" {
			t.Fatalf("event %s was not admitted: %v", e.Value(event.ID), e.Attributes)
		}
	}
	other := source.NewBrokerSink(stream.NewPublisher(c, 0), names, "other", limits)
	if taken, err := other.Send(t.Context(), messages(1)); taken != 1 || err != nil {
		t.Fatalf("%d events of another source are taken, %v", taken, err)
	}
}

// TestBrokerSinkRefuses finds the one event of many that is not taken, and takes those before it.
func TestBrokerSinkRefuses(t *testing.T) {
	c, names := startBroker(t)
	for name, spoil := range map[string]func(*event.Event){
		"data too large":       func(e *event.Event) { e.Data = make([]byte, 1001) },
		"attributes too large": func(e *event.Event) { e.Set("big", strings.Repeat("x", 70_000), event.String) },
		"headers too large":    func(e *event.Event) { e.Set("big", strings.Repeat("é", 12_000), event.String) },
		"too many hops":        func(e *event.Event) { e.Set(event.HopLimit, "1", event.Integer) },
	} {
		t.Run(name, func(t *testing.T) {
			sink := source.NewBrokerSink(stream.NewPublisher(c, 0), names, name, event.Limits{Data: 1000, Attributes: 65536})
			msgs := messages(5)
			spoil(msgs[2].Event)
			taken, err := sink.Send(t.Context(), msgs)
			var f *source.Failure
			if taken != 2 || !errors.As(err, &f) || f.Down {
				t.Fatalf("%d are taken, %v; want 2 and a failure of the third", taken, err)
			}
			if f.Error() == "" || delivery.Classify(f.Result.Status, f.Result.Err) != delivery.Reject {
				t.Errorf("the failure is %+v, want one that no attempt mends", f)
			}
			if taken, err := sink.Send(t.Context(), msgs[3:]); taken != 2 || err != nil {
				t.Errorf("%d of the rest are taken, %v", taken, err)
			}
		})
	}
}

// TestBrokerSinkDown says that the store is away, which is nobody's fault.
func TestBrokerSinkDown(t *testing.T) {
	c, names := startBroker(t)
	gone := stream.NewNames("default", "gone", "0123456789abcdef")
	limits := event.Limits{Data: 1000}
	for name, sink := range map[string]*source.BrokerSink{
		"no stream": source.NewBrokerSink(stream.NewPublisher(c, 0), gone, "uid", limits),
		"busy":      source.NewBrokerSink(busy{}, names, "uid", limits),
	} {
		taken, err := sink.Send(t.Context(), messages(3))
		var f *source.Failure
		if taken != 0 || !errors.As(err, &f) || !f.Down {
			t.Errorf("%s: %d are taken, %v", name, taken, err)
		}
	}
}

type busy struct{}

func (busy) PublishInOrder(context.Context, *stream.Names, ...stream.Message) (int, error) {
	return 0, stream.ErrBusy
}

// TestHTTPSink posts events as CloudEvents, with the Host of the gateway.
func TestHTTPSink(t *testing.T) {
	var got []*http.Request
	codes := []int{202, 200, 503}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r)
		w.WriteHeader(codes[len(got)-1])
	}))
	defer server.Close()
	u, err := url.Parse(server.URL + "/path")
	if err != nil {
		t.Fatal(err)
	}
	sender := delivery.NewSender(delivery.Options{AllowLoopback: true})
	defer sender.Close()
	sink := source.NewHTTPSink(sender, source.HTTPOptions{URL: u, Host: "events.example.com", Namespace: "shop", Timeout: 10 * time.Second})
	taken, err := sink.Send(t.Context(), messages(3))
	var f *source.Failure
	if taken != 2 || !errors.As(err, &f) || f.Down || f.Result.Status != 503 || f.URL != u {
		t.Fatalf("%d are taken, %v", taken, err)
	}
	for i, r := range got {
		if r.Host != "events.example.com" || r.Header.Get("Ce-Id") != fmt.Sprint(i) || r.Header.Get("Kn-Namespace") != "shop" ||
			r.URL.Path != "/path" || r.Header.Get("Prefer") != "" {
			t.Errorf("request %d: host %s, path %s, headers %v", i, r.Host, r.URL.Path, r.Header)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sink.Send(ended, messages(1)); err == nil || errors.As(err, &f) && f.Down {
		t.Errorf("after the end: %v", err)
	}
}
