package stream_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// admin is JetStream as an administrator's own tools see it.
func admin(t testing.TB, s *devserver.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// config is a stream's configuration; the test ends if there is no such stream.
func config(t testing.TB, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatalf("stream %s: %v", name, err)
	}
	return s.CachedInfo().Config
}

// settings are those of a stream that limits decide on.
type settings struct {
	MaxBytes, MaxMsgs int64
	MaxMsgSize        int32
	Duplicates        time.Duration
	MaxAge            time.Duration
}

func settingsOf(c jetstream.StreamConfig) settings {
	return settings{c.MaxBytes, c.MaxMsgs, c.MaxMsgSize, c.Duplicates, c.MaxAge}
}

func TestEnsureAppliesLimits(t *testing.T) {
	srv := startServer(t)
	c, js := dial(t, srv), admin(t, srv)
	n := stream.NewNames("default", "live", "uid")
	l := stream.Limits{
		MaxBytes: 64 << 20, MaxMessages: 7, MaxEventBytes: stream.StoredBytes(2 << 20), DuplicateWindow: time.Hour,
		ParkedMaxAge: time.Minute, ParkedMaxBytes: 20 << 20,
	}
	for _, step := range []struct {
		limits stream.Limits
		events settings
		parked settings
	}{
		{
			stream.Limits{},
			settings{1 << 30, -1, 1<<20 + 64<<10, 2 * time.Minute, 0},
			settings{1 << 30 / 10, -1, 1<<20 + 68<<10, 2 * time.Minute, 7 * 24 * time.Hour},
		},
		{
			l,
			settings{64 << 20, 7, 2<<20 + 64<<10, time.Hour, 0},
			settings{20 << 20, -1, 2<<20 + 68<<10, time.Minute, time.Minute},
		},
	} {
		for range 2 { // the second time changes nothing
			if err := c.Ensure(t.Context(), n, step.limits); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(step.events, settingsOf(config(t, js, n.Events))); diff != "" {
				t.Errorf("events, want(-) got(+):\n%s", diff)
			}
			if diff := cmp.Diff(step.parked, settingsOf(config(t, js, n.Parked))); diff != "" {
				t.Errorf("parked, want(-) got(+):\n%s", diff)
			}
		}
	}
}

// Limits below what is stored lose nothing: new events are refused until there is room.
func TestLimitsBelowWhatIsStored(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	publish := func() error {
		return p.Publish(t.Context(), n, stream.Message{Event: newEvent("a", make([]byte, 4096))})
	}
	for range 10 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	first := receive(t, got)
	for name, l := range map[string]stream.Limits{"bytes": {MaxBytes: 8 << 10}, "messages": {MaxMessages: 2}} {
		if err := c.Ensure(t.Context(), n, l); err != nil {
			t.Fatal(err)
		}
		if err := publish(); !errors.Is(err, stream.ErrFull) {
			t.Errorf("%s: got %v, want ErrFull", name, err)
		}
		if left := messages(t, c, n.Events); left != 10 {
			t.Errorf("%s: %d messages left of 10", name, left)
		}
	}
	if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	if err := publish(); err != nil {
		t.Errorf("with the limits raised again: %v", err)
	}
	// The consumer went on all the while.
	first.Ack()
	for range 10 {
		receive(t, got).Ack()
	}
	stop(t, s)
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left", left)
	}
}

// What JetStream refuses to change is said, and the rest of the limits comes into effect.
func TestEnsureReportsWhatCannotBe(t *testing.T) {
	srv := startServer(t)
	c, js := dial(t, srv), admin(t, srv)
	n := stream.NewNames("default", "live", "uid")
	if err := c.Ensure(t.Context(), n, stream.Limits{Replicas: 3}); !errors.Is(err, stream.ErrRefused) {
		t.Errorf("three replicas on one server: got %v, want ErrRefused", err)
	}
	if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	err := c.Ensure(t.Context(), n, stream.Limits{Replicas: 3, MaxMessages: 5})
	if !errors.Is(err, stream.ErrKept) || errors.Is(err, stream.ErrRefused) || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("three replicas later: got %v, want ErrKept", err)
	}
	if got := config(t, js, n.Events); got.MaxMsgs != 5 || got.Replicas != 1 {
		t.Errorf("the stream has %d replicas and room for %d messages", got.Replicas, got.MaxMsgs)
	}
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Errorf("the stream does not go on working: %v", err)
	}
	if err := c.Ensure(t.Context(), n, stream.Limits{MaxBytes: 1 << 50}); !errors.Is(err, stream.ErrKept) {
		t.Errorf("more than the server has: got %v, want ErrKept", err)
	}

	// A stream of ours with the wrong retention, which can be the doing of an administrator's tool only.
	other := stream.NewNames("default", "other", "uid")
	wrong := config(t, js, n.Events)
	wrong.Name, wrong.Subjects, wrong.Retention = other.Events, []string{other.EventSubject}, jetstream.LimitsPolicy
	wrong.Metadata["millrace.dev/broker-name"] = "other"
	if _, err := js.CreateStream(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	if err := c.Ensure(t.Context(), other, stream.Limits{}); !errors.Is(err, stream.ErrKept) || !strings.Contains(err.Error(), "retention") {
		t.Errorf("wrong retention: got %v, want ErrKept", err)
	}
}

func TestEnsureLeavesForeignStreamsAlone(t *testing.T) {
	srv := startServer(t)
	c, js := dial(t, srv), admin(t, srv)
	n := stream.NewNames("default", "live", "uid")
	foreign := jetstream.StreamConfig{Name: n.Events, Subjects: []string{"their.subject"}, Description: "not Millrace's"}
	if _, err := js.CreateStream(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	before := config(t, js, n.Events)
	if err := c.Ensure(t.Context(), n, stream.Limits{}); !errors.Is(err, stream.ErrRefused) || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("got %v, want ErrRefused", err)
	}
	if diff := cmp.Diff(before, config(t, js, n.Events)); diff != "" {
		t.Errorf("somebody else's stream was changed (-before +after):\n%s", diff)
	}
}

func TestEnsureSaysThatTheServerIsAway(t *testing.T) {
	srv, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, srv)
	srv.Stop()
	if err := c.Ensure(t.Context(), stream.NewNames("a", "b", "c"), stream.Limits{}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestSweep(t *testing.T) {
	srv := startServer(t)
	c, js := dial(t, srv), admin(t, srv)
	kept, gone := stream.NewNames("default", "kept", "uid-1"), stream.NewNames("default", "gone", "uid-2")
	for _, n := range []*stream.Names{kept, gone} {
		if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	// Streams that are not ours, by everything, by having no metadata, by having only a part of it, or by another's.
	foreign := []jetstream.StreamConfig{
		{Name: "orders", Subjects: []string{"orders.>"}},
		{Name: "millrace_default_old_uid", Subjects: []string{"x.1"}},
		{Name: "millrace_default_part_uid", Subjects: []string{"x.2"}, Metadata: map[string]string{"millrace.dev/owner": "millrace"}},
		{Name: "copy_of_gone", Subjects: []string{"x.3"}, Metadata: config(t, js, gone.Events).Metadata},
		{Name: "millrace_default_theirs_uid", Subjects: []string{"x.4"}, Metadata: map[string]string{
			"millrace.dev/owner": "else", "millrace.dev/broker-namespace": "default", "millrace.dev/broker-name": "theirs", "millrace.dev/broker-uid": "uid",
		}},
	}
	for _, f := range foreign {
		if _, err := js.CreateStream(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	sweep := func(grace time.Duration, keep ...*stream.Names) []string {
		t.Helper()
		deleted, err := c.Sweep(t.Context(), keep, grace)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(deleted)
		return deleted
	}
	if got := sweep(time.Hour, kept); got != nil {
		t.Errorf("deleted %v within the grace period", got)
	}
	// A Broker that is back is as good as never gone: its time begins anew.
	if err := c.Ensure(t.Context(), gone, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	if since, marked := config(t, js, gone.Events).Metadata["millrace.dev/unwanted-since"]; marked {
		t.Errorf("still marked as unwanted since %s", since)
	}
	sweep(time.Hour, kept)
	if since := config(t, js, gone.Events).Metadata["millrace.dev/unwanted-since"]; since == "" {
		t.Error("not marked")
	}
	if diff := cmp.Diff([]string{gone.Events, gone.Parked, gone.Retries}, sweep(time.Nanosecond, kept)); diff != "" {
		t.Errorf("deleted, want(-) got(+):\n%s", diff)
	}
	for _, name := range []string{kept.Events, kept.Retries, kept.Parked} {
		config(t, js, name)
	}
	for _, f := range foreign {
		config(t, js, f.Name)
	}
	if got := sweep(0); len(got) != 3 {
		t.Errorf("with no broker wanted: deleted %v", got)
	}
	for _, f := range foreign {
		config(t, js, f.Name)
	}
}

// Whatever the ingress lets in can also be stored with the progress of a delivery.
func TestLargestHeadersFitARetry(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	e := newEvent("a", make([]byte, 1<<20))
	e.Headers = []event.Header{{Name: "Traceparent", Value: "x"}}
	for i := range 100 {
		e.Set(fmt.Sprintf("ext%d", i), "5", event.Integer)
	}
	e.Set("big", "", event.String)
	e.Set("big", strings.Repeat("ü", (stream.MaxHeaderBytes-stream.HeaderBytes(e))/6), event.String)
	if got := stream.HeaderBytes(e); got > stream.MaxHeaderBytes || got < stream.MaxHeaderBytes-6 {
		t.Fatalf("the headers count as %d bytes", got)
	}
	if err := p.Publish(t.Context(), n, stream.Message{Event: e, ID: strings.Repeat("i", 64)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), n, stream.Message{Event: e}, stream.Message{Event: e}); err != nil {
		t.Fatalf("in a batch: %v", err)
	}
	progress := stream.Progress{
		DeadLetter: true, Attempt: 1 << 30, Due: time.Now(), First: time.Now(), Code: 503,
		Cause: strings.Repeat("c", 1<<20), Destination: strings.Repeat("d", 1<<20),
	}
	m := stream.Message{Event: e, ID: strings.Repeat("i", 200)}
	if _, err := p.PublishRetry(t.Context(), n, "0b9f5b0e-5a55-4d6c-8a2a-1f0f7a2b3c4d", m, progress); err != nil {
		t.Errorf("for a retry: %v", err)
	}
	if _, err := p.Park(t.Context(), n, "0b9f5b0e-5a55-4d6c-8a2a-1f0f7a2b3c4d", m, progress); err != nil {
		t.Errorf("parked: %v", err)
	}
	e.Set("big", e.Value("big")+"ü", event.String)
	var size *stream.SizeError
	if err := p.Publish(t.Context(), n, stream.Message{Event: e}); !errors.Is(err, stream.ErrTooLarge) || !errors.As(err, &size) {
		t.Errorf("larger by one character: got %v, want a SizeError", err)
	}
}

// The consumer, or its stream, may be deleted by people, or lost with the disk of the server: consuming goes on.
func TestConsumptionOutlivesItsConsumer(t *testing.T) {
	srv := startServer(t)
	c, js := dial(t, srv), admin(t, srv)
	n := stream.NewNames("default", "live", "uid")
	ensure := func() {
		t.Helper()
		if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	publish := func(id string) {
		t.Helper()
		if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent(id, nil)}); err != nil {
			t.Fatal(err)
		}
	}
	ensure()
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	expect := func(id string) *stream.Delivery {
		t.Helper()
		d := receive(t, got)
		if have := d.Event.Value(event.ID); have != id {
			t.Fatalf("received %q, want %q", have, id)
		}
		return d
	}
	publish("1")
	publish("2")
	expect("1").Ack()
	held := expect("2")

	for _, id := range []string{"3", "a", "b"} {
		if err := js.DeleteConsumer(t.Context(), n.Events, "millrace-filter"); err != nil {
			t.Fatal(err)
		}
		publish(id)
		// What is in flight here is not delivered again although the new consumer knows nothing of it.
		expect(id).Ack()
	}
	held.Ack()

	// In the new stream sequences begin at 1 again: they are other events.
	for range 2 {
		if err := js.DeleteStream(t.Context(), n.Events); err != nil {
			t.Fatal(err)
		}
		ensure()
		publish("4")
		publish("5")
		expect("4").Ack()
		d := expect("5")
		d.Retry(time.Millisecond)
		expect("5").Ack()
	}
	stop(t, s)
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left", left)
	}
}

// A server that comes back without the consumer does not say that it was deleted, it only does not answer.
func TestConsumptionOutlivesAConsumerLostWhileAway(t *testing.T) {
	dir := t.TempDir()
	start := func(port int) *devserver.Server {
		t.Helper()
		s, err := devserver.Start(devserver.Options{Dir: dir, Listen: true, Port: port})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	srv := start(0)
	port := srv.PortsInfo(time.Second).Nats[0]
	reconnected := make(chan struct{}, 1)
	c, err := stream.Dial(stream.ConnOptions{
		URL: port, Logger: slog.New(slog.DiscardHandler), OnReconnect: func() { reconnected <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	n := stream.NewNames("default", "live", "uid")
	if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	address := portOf(t, port)
	srv.Stop()
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("0", nil)}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("while NATS is away: got %v, want ErrUnavailable", err)
	}

	// The consumer goes while our connection is down: it is another server that does it, on the same data.
	between, err := devserver.Start(devserver.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := admin(t, between).DeleteConsumer(t.Context(), n.Events, "millrace-filter"); err != nil {
		t.Fatal(err)
	}
	between.Stop()

	srv = start(address)
	t.Cleanup(srv.Stop)
	select {
	case <-reconnected:
	case <-time.After(10 * time.Second):
		t.Fatal("no reconnection")
	}
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("1", nil)}); err != nil {
		t.Fatal(err)
	}
	d := receive(t, got)
	if d.Event.Value(event.ID) != "1" {
		t.Errorf("received %q", d.Event.Value(event.ID))
	}
	d.Ack()
	stop(t, s)
}

func portOf(t testing.TB, rawURL string) int {
	t.Helper()
	var port int
	if _, err := fmt.Sscanf(rawURL, "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatalf("%q: %v", rawURL, err)
	}
	return port
}

// A server that takes smaller messages than the Broker allows is named to the producer.
func TestMaxPayloadIsNamed(t *testing.T) {
	c, n := startBroker(t, stream.Limits{MaxEventBytes: stream.StoredBytes(9 << 20)})
	large := stream.Message{Event: newEvent("a", make([]byte, 9<<20))}
	for name, batch := range map[string][]stream.Message{
		"alone": {large},
		"first": {large, {Event: newEvent("b", nil)}},
		"last":  {{Event: newEvent("b", nil)}, large},
	} {
		var size *stream.SizeError
		err := stream.NewPublisher(c, 0).Publish(t.Context(), n, batch...)
		if !errors.As(err, &size) || size.Limit != c.MaxPayload()-4096 || size.Size <= 9<<20 || !strings.Contains(err.Error(), "max_payload") {
			t.Errorf("%s: got %v, want a SizeError that names max_payload", name, err)
		}
	}
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages stored", left)
	}
}
