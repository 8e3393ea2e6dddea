package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// startServer runs a real JetStream for the test.
func startServer(t testing.TB) *devserver.Server {
	t.Helper()
	s, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func dial(t testing.TB, s *devserver.Server) *stream.Conn {
	t.Helper()
	c, err := stream.Dial(stream.ConnOptions{InProcess: s, Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startBroker returns a connection and the names of a Broker whose streams exist.
func startBroker(t testing.TB, l stream.Limits) (*stream.Conn, *stream.Names) {
	t.Helper()
	return startBrokerIn(t, startServer(t), l)
}

func startBrokerIn(t testing.TB, s *devserver.Server, l stream.Limits) (*stream.Conn, *stream.Names) {
	t.Helper()
	c := dial(t, s)
	n := stream.NewNames("default", "live", "0123456789abcdef")
	if err := c.Ensure(t.Context(), n, l); err != nil {
		t.Fatal(err)
	}
	return c, n
}

func newEvent(id string, data []byte) *event.Event {
	e := &event.Event{Data: data}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, id, event.String)
	e.Set(event.Source, "/test", event.String)
	e.Set(event.Type, "com.example.test", event.String)
	return e
}

// collect consumes a stream and sends each delivery to the returned channel.
func collect(t testing.TB, c *stream.Conn, o stream.ConsumeOptions) (<-chan *stream.Delivery, *stream.Consumption) {
	t.Helper()
	got := make(chan *stream.Delivery, 10_000)
	s, err := c.Consume(t.Context(), o, func(d *stream.Delivery) { got <- d })
	if err != nil {
		t.Fatal(err)
	}
	return got, s
}

func receive(t testing.TB, from <-chan *stream.Delivery) *stream.Delivery {
	t.Helper()
	select {
	case d := <-from:
		return d
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was received")
		return nil
	}
}

func stop(t testing.TB, s *stream.Consumption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func messages(t testing.TB, c *stream.Conn, name string) uint64 {
	t.Helper()
	st, err := c.StreamState(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return st.Messages
}

func TestEventRoundTrip(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	want := newEvent("id with space \" and %", []byte{0, 1, 2, 0xff})
	want.Set(event.Subject, "房间/42 😀", event.String)
	want.Set(event.Time, "2026-01-02T03:04:05.123456789+08:00", event.String)
	want.Set("count", "-5", event.Integer)
	want.Set("flag", "true", event.Boolean)
	want.Set("looksint", "5", event.String)
	want.Headers = []event.Header{{Name: "Traceparent", Value: "00-abc-def-01"}, {Name: "X-B3-Flags", Value: "1"}}
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: want}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	d := receive(t, got)
	d.Ack()
	stop(t, s)
	if diff := cmp.Diff(attributes(want), attributes(d.Event)); diff != "" {
		t.Errorf("attributes differ (-sent +received):\n%s", diff)
	}
	if diff := cmp.Diff(headers(want), headers(d.Event)); diff != "" {
		t.Errorf("headers differ (-sent +received):\n%s", diff)
	}
	if string(d.Event.Data) != string(want.Data) {
		t.Errorf("data: got %x, want %x", d.Event.Data, want.Data)
	}
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left after the ack", left)
	}
}

// attributes maps names to value and kind: the store keeps no order.
func attributes(e *event.Event) map[string]string {
	m := map[string]string{}
	for _, a := range e.Attributes {
		m[a.Name] = fmt.Sprintf("%d:%s", a.Kind, a.Value)
	}
	return m
}

func headers(e *event.Event) map[string]string {
	m := map[string]string{}
	for _, h := range e.Headers {
		m[h.Name] += h.Value + ";"
	}
	return m
}

func TestPublishIsAllOrNone(t *testing.T) {
	c, n := startBroker(t, stream.Limits{MaxEventBytes: 4096})
	p := stream.NewPublisher(c, 0)
	batch := make([]stream.Message, 100)
	for i := range batch {
		batch[i].Event = newEvent(fmt.Sprint(i), []byte("x"))
	}
	if err := p.Publish(t.Context(), n, batch...); err != nil {
		t.Fatal(err)
	}
	if got := messages(t, c, n.Events); got != 100 {
		t.Fatalf("stored %d of 100", got)
	}
	batch[99].Event = newEvent("too large", make([]byte, 8192))
	if err := p.Publish(t.Context(), n, batch...); !errors.Is(err, stream.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	batch[99].Event, batch[50].Event = batch[0].Event, newEvent("too large", make([]byte, 8192))
	if err := p.Publish(t.Context(), n, batch...); err == nil {
		t.Fatal("a batch with an event that cannot be stored was accepted")
	}
	if got := messages(t, c, n.Events); got != 100 {
		t.Fatalf("a refused batch left %d messages behind", got-100)
	}
}

func TestPublishErrors(t *testing.T) {
	t.Run("full by bytes", func(t *testing.T) {
		c, n := startBroker(t, stream.Limits{MaxBytes: 64 << 10})
		p := stream.NewPublisher(c, 0)
		var err error
		stored := uint64(0)
		for range 100 {
			if err = p.Publish(t.Context(), n, stream.Message{Event: newEvent("a", make([]byte, 4096))}); err != nil {
				break
			}
			stored++
		}
		if !errors.Is(err, stream.ErrFull) {
			t.Fatalf("got %v, want ErrFull", err)
		}
		if got := messages(t, c, n.Events); got != stored {
			t.Fatalf("%d confirmed, %d stored", stored, got)
		}
	})
	t.Run("no such stream", func(t *testing.T) {
		c := dial(t, startServer(t))
		err := stream.NewPublisher(c, 0).Publish(t.Context(), stream.NewNames("a", "b", "c"), stream.Message{Event: newEvent("a", nil)})
		if !errors.Is(err, stream.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
	})
	t.Run("window used up", func(t *testing.T) {
		c, n := startBroker(t, stream.Limits{})
		p := stream.NewPublisher(c, 1)
		var wg sync.WaitGroup
		var busy, fine sync.Map
		for i := range 200 {
			wg.Go(func() {
				err := p.Publish(t.Context(), n, stream.Message{Event: newEvent(fmt.Sprint(i), make([]byte, 1<<16))})
				switch {
				case err == nil:
					fine.Store(i, true)
				case errors.Is(err, stream.ErrBusy):
					busy.Store(i, true)
				default:
					t.Errorf("event %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if size(&fine) == 0 || size(&busy) == 0 {
			t.Errorf("%d stored, %d refused: want some of each", size(&fine), size(&busy))
		}
		if got := messages(t, c, n.Events); got != uint64(size(&fine)) {
			t.Errorf("%d confirmed, %d stored", size(&fine), got)
		}
		if p.PendingBytes() != 0 {
			t.Errorf("%d bytes still counted as pending", p.PendingBytes())
		}
	})
	t.Run("server gone", func(t *testing.T) {
		s, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		c := dial(t, s)
		n := stream.NewNames("a", "b", "c")
		if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
			t.Fatal(err)
		}
		s.Stop()
		start := time.Now()
		err = stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)})
		if !errors.Is(err, stream.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("the producer was told after %s", d)
		}
	})
}

func size(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

func TestMessageIDsDropRepeats(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	for range 3 {
		if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil), ID: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	// A batch that holds a repeated event is not refused: what is new in it is stored.
	err := p.Publish(t.Context(), n,
		stream.Message{Event: newEvent("a", nil), ID: "one"}, stream.Message{Event: newEvent("b", nil), ID: "two"})
	if err != nil {
		t.Fatal(err)
	}
	if got := messages(t, c, n.Events); got != 2 {
		t.Fatalf("stored %d events, want 2", got)
	}
}

func TestProgressTravelsWithTheEvent(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	now := time.UnixMilli(time.Now().UnixMilli())
	want := stream.Progress{
		Attempt: 3, Due: now.Add(time.Minute), First: now, Since: now.Add(-time.Hour), Code: 503, DeadLetter: true,
		Cause: "busy: try again later", Destination: "http://sub.example/",
	}
	if _, err := p.PublishRetry(t.Context(), n, "uid-1", stream.Message{Event: newEvent("a", nil)}, want); err != nil {
		t.Fatal(err)
	}
	broken := want
	broken.Cause = "line one\r\nNats-Msg-Id: evil\x00" + strings.Repeat("x", 10_000)
	if _, err := p.Park(t.Context(), n, "uid-2", stream.Message{Event: newEvent("b", nil)}, broken); err != nil {
		t.Fatal(err)
	}
	prefix := n.DelayPrefix(stream.DelayClass(time.Minute))
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Retries, FilterSubject: prefix + "*", SubjectPrefix: prefix})
	d := receive(t, got)
	if d.Key() != "uid-1" {
		t.Errorf("key %q, want uid-1", d.Key())
	}
	if diff := cmp.Diff(want, d.Progress()); diff != "" {
		t.Errorf("progress differs (-stored +read):\n%s", diff)
	}
	d.Ack()
	stop(t, s)
	if got := messages(t, c, n.Parked); got != 1 {
		t.Errorf("%d parked, want 1", got)
	}
}

func TestStopSettlesAndConfirms(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	const count = 1000
	for i := range count {
		if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent(fmt.Sprint(i), nil)}); err != nil {
			t.Fatal(err)
		}
	}
	var acked sync.WaitGroup
	acked.Add(count)
	s, err := c.Consume(t.Context(), stream.ConsumeOptions{Stream: n.Events}, func(d *stream.Delivery) {
		go func() { d.Ack(); acked.Done() }()
	})
	if err != nil {
		t.Fatal(err)
	}
	acked.Wait()
	stop(t, s)
	// Stop returned, so the server has taken every ack: nothing may be left, with no wait.
	if left := messages(t, c, n.Events); left != 0 {
		t.Fatalf("%d of %d messages left although their acks were confirmed", left, count)
	}
}

func TestStopLeavesUnsettledMessages(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	receive(t, got)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want DeadlineExceeded", err)
	}
	if left := messages(t, c, n.Events); left != 1 {
		t.Fatalf("%d messages left, want 1", left)
	}
}

func TestRetryComesAgain(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	first := receive(t, got)
	first.Retry(time.Millisecond)
	second := receive(t, got)
	if second.Sequence() != first.Sequence() {
		t.Errorf("sequence %d came again as %d", first.Sequence(), second.Sequence())
	}
	if second.Deliveries() != 2 {
		t.Errorf("delivery %d, want 2", second.Deliveries())
	}
	second.Ack()
	stop(t, s)
}

// A message that is worked on for longer than the server's patience must not be given to somebody else meanwhile.
func TestMessagesInFlightAreExtended(t *testing.T) {
	if testing.Short() {
		t.Skip("takes longer than AckWait, 10 s")
	}
	t.Parallel()
	c, n := startBroker(t, stream.Limits{})
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	d := receive(t, got)
	select {
	case <-got:
		t.Error("the message came again while it was in flight")
	case <-time.After(13 * time.Second):
	}
	d.Ack()
	stop(t, s)
}

func TestForeignMessagesAreRemoved(t *testing.T) {
	srv, err := devserver.Start(devserver.Options{Dir: t.TempDir(), Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	c := dial(t, srv)
	n := stream.NewNames("default", "live", "uid")
	if err := c.Ensure(t.Context(), n, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), n.EventSubject, []byte("no event")); err != nil {
		t.Fatal(err)
	}
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Fatal(err)
	}
	got, s := collect(t, c, stream.ConsumeOptions{Stream: n.Events})
	if d := receive(t, got); d.Event.Value(event.ID) != "a" {
		t.Errorf("received %q", d.Event.Value(event.ID))
	} else {
		d.Ack()
	}
	stop(t, s)
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left", left)
	}
}

func TestNamesDoNotCollide(t *testing.T) {
	long := strings.Repeat("a", 63)
	seen := map[string]string{}
	for _, k := range [][3]string{
		{"a", "b", "u"},
		{"a", "b", "v"},
		{"a-b", "c", "u"},
		{"a", "b-c", "u"},
		{"a", "b.c", "u"},
		{"a", "b-c.d", "u"},
		{"a", "b.c-d", "u"},
		{long, long, "0123456789"},
		{long, long, "1123456789"},
	} {
		n := stream.NewNames(k[0], k[1], k[2])
		for _, name := range []string{n.Events, n.Retries, n.Parked, n.EventSubject, n.RetryPrefix, n.ParkedPrefix} {
			if other, ok := seen[name]; ok {
				t.Errorf("%v and %s share %s", k, other, name)
			}
			seen[name] = fmt.Sprint(k)
			if strings.ContainsAny(name, " *>\t\r\n") || len(name) > 255 {
				t.Errorf("%q is no JetStream name", name)
			}
		}
	}
}

func TestDelayClasses(t *testing.T) {
	for delay, want := range map[time.Duration]int{
		-time.Hour: 0, 0: 0, 250 * time.Millisecond: 0, 251 * time.Millisecond: 1, time.Second: 1, 4 * time.Second: 2,
		16 * time.Second: 3, 64 * time.Second: 4, 256 * time.Second: 5, 257 * time.Second: 6, 1000 * time.Hour: 6,
	} {
		if got := stream.DelayClass(delay); got != want {
			t.Errorf("%s is in class %d, want %d", delay, got, want)
		}
	}
}

func TestBacklogsAreCountedAndPurgedBySubject(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	for uid, count := range map[string]int{"uid-1": 3, "uid-2": 5} {
		for i := range count {
			if _, err := p.PublishRetry(t.Context(), n, uid, stream.Message{Event: newEvent(fmt.Sprint(i), nil)}, stream.Progress{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.PurgeSubject(t.Context(), n.Retries, n.BacklogPrefix()+"uid-1"); err != nil {
		t.Fatal(err)
	}
	got, err := c.SubjectCounts(t.Context(), n.Retries, n.RetryPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint64{n.BacklogPrefix() + "uid-2": 5}, got); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func TestQueueFetchesWhatIsThere(t *testing.T) {
	c, n := startBroker(t, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	for i := range 5 {
		if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent(fmt.Sprint(i), nil)}); err != nil {
			t.Fatal(err)
		}
	}
	q, err := c.OpenQueue(t.Context(), stream.ConsumeOptions{Stream: n.Events})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 2, 0} {
		got, err := q.Fetch(3)
		if err != nil || len(got) != want {
			t.Fatalf("fetched %d and %v, want %d", len(got), err, want)
		}
		for _, d := range got {
			d.Ack()
		}
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left", left)
	}
}

// A consumer that nobody used for a while is removed by the server; made anew, it hands out again what is not settled.
func TestReopenedQueueKnowsWhatIsInFlight(t *testing.T) {
	srv := startServer(t)
	c, n := startBrokerIn(t, srv, stream.Limits{})
	p := stream.NewPublisher(c, 0)
	for i := range 3 {
		if err := p.Publish(t.Context(), n, stream.Message{Event: newEvent(fmt.Sprint(i), nil)}); err != nil {
			t.Fatal(err)
		}
	}
	q, err := c.OpenQueue(t.Context(), stream.ConsumeOptions{Stream: n.Events})
	if err != nil {
		t.Fatal(err)
	}
	first, err := q.Fetch(2)
	if err != nil || len(first) != 2 {
		t.Fatalf("fetched %d and %v, want 2", len(first), err)
	}
	harness.DeleteConsumers(t, srv, n.Events)
	if err := q.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	rest, err := q.Fetch(3)
	if err != nil || len(rest) != 1 || rest[0].Event.Value(event.ID) != "2" {
		t.Fatalf("fetched %d and %v after reopening, want the one that was not fetched before", len(rest), err)
	}
	for _, d := range append(first, rest...) {
		d.Ack()
	}
	if err := q.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := messages(t, c, n.Events); left != 0 {
		t.Errorf("%d messages left", left)
	}
}

func TestEnsureChangesLimits(t *testing.T) {
	c, n := startBroker(t, stream.Limits{MaxBytes: 1 << 20})
	if err := stream.NewPublisher(c, 0).Publish(t.Context(), n, stream.Message{Event: newEvent("a", nil)}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []stream.Limits{{MaxBytes: 2 << 20}, {MaxBytes: 1 << 20}, {}, {}} {
		if err := c.Ensure(t.Context(), n, l); err != nil {
			t.Fatal(err)
		}
	}
	if got := messages(t, c, n.Events); got != 1 {
		t.Errorf("%d messages after changing limits, want 1", got)
	}
}
