package dispatch_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// bench is a store with one Broker, a dispatcher and what a test needs to use them.
type fixture struct {
	t           testing.TB
	server      *devserver.Server
	conn        *stream.Conn
	names       *stream.Names
	publisher   *stream.Publisher
	dispatchers []*dispatch.Dispatcher // those of several processes, most often one
	compiler    *trigger.Compiler
	data        []byte // of the events published; nil for a line that names the id
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	server, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	log := slog.New(slog.DiscardHandler)
	conn, err := stream.Dial(stream.ConnOptions{InProcess: server, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	f := &fixture{t: t, server: server, conn: conn, names: stream.NewNames("default", "live", "uid"), publisher: stream.NewPublisher(conn, 0)}
	if err := conn.Ensure(t.Context(), f.names, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	if f.compiler, err = trigger.NewCompiler(); err != nil {
		t.Fatal(err)
	}
	f.start(dispatch.Options{OrphanGrace: 300 * time.Millisecond})
	t.Cleanup(func() { f.stop(10 * time.Second) })
	return f
}

// start adds a dispatcher, as if in a process of its own.
func (f *fixture) start(o dispatch.Options) {
	f.t.Helper()
	o.Conn, o.Publisher = f.conn, f.publisher
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Sender = delivery.NewSender(delivery.Options{AllowLoopback: true})
	d, err := dispatch.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.dispatchers = append(f.dispatchers, d)
}

// stop ends all dispatchers.
func (f *fixture) stop(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var stopping sync.WaitGroup
	for _, d := range f.dispatchers {
		stopping.Go(func() { d.Stop(ctx) })
	}
	stopping.Wait()
	f.dispatchers = nil
}

// serve applies the Triggers as those of the one Broker.
func (f *fixture) serve(triggers ...*dispatch.Trigger) {
	f.apply(&dispatch.Broker{Names: f.names, Triggers: triggers})
}

func (f *fixture) apply(brokers ...*dispatch.Broker) {
	for _, d := range f.dispatchers {
		d.Apply(brokers)
	}
}

// trigger returns a Trigger for events of the given type (all if empty) with quick retries.
func (f *fixture) trigger(name, eventType, subscriber string) *dispatch.Trigger {
	f.t.Helper()
	o := &eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	if eventType != "" {
		o.Spec.Filters = []eventingv1.Filter{{Exact: map[string]string{"type": eventType}}}
	}
	filter, errs := f.compiler.Compile(o)
	if len(errs) > 0 {
		f.t.Fatal(errs)
	}
	policy := delivery.DefaultPolicy()
	policy.BackoffDelay = time.Millisecond
	return &dispatch.Trigger{
		Namespace: "default", Name: name, UID: "uid-" + name, Filter: filter, Policy: policy, Subscriber: mustURL(f.t, subscriber),
	}
}

func mustURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (f *fixture) publish(eventType string, ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		e := &event.Event{Data: f.data}
		if e.Data == nil {
			e.Data = []byte("data of " + id)
		}
		e.Set(event.SpecVersion, "1.0", event.String)
		e.Set(event.ID, id, event.String)
		e.Set(event.Source, "/test", event.String)
		e.Set(event.Type, eventType, event.String)
		if err := event.Admit(e, time.Now()); err != nil {
			f.t.Fatal(err)
		}
		if err := f.publisher.Publish(f.t.Context(), f.names, stream.Message{Event: e}); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) stored(name string) int {
	f.t.Helper()
	var s stream.State
	eventually(f.t, "the store says what it holds", func() bool { // a busy machine may take longer than a request waits
		var err error
		s, err = f.conn.StreamState(f.t.Context(), name)
		return err == nil
	})
	return int(s.Messages)
}

// waitEmpty waits until no event and no retry is left.
func (f *fixture) waitEmpty() {
	f.t.Helper()
	eventually(f.t, "the store drains", func() bool { return f.stored(f.names.Events)+f.stored(f.names.Retries) == 0 })
}

func (f *fixture) counts(name string) dispatch.Counts {
	for _, s := range f.dispatchers[0].Stats() {
		if s.Trigger == "default/"+name {
			return s.Counts
		}
	}
	return dispatch.Counts{}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// subscriber records the ids it received and answers as told.
type subscriber struct {
	*httptest.Server
	mu     sync.Mutex
	got    map[string]int
	order  []string
	answer func(n int, w http.ResponseWriter, r *http.Request) // n counts requests with this id from 1
}

func newSubscriber(t testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request)) *subscriber {
	s := &subscriber{got: map[string]int{}, answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		id := r.Header.Get("ce-id")
		s.mu.Lock()
		s.got[id]++
		n := s.got[id]
		s.order = append(s.order, id)
		s.mu.Unlock()
		if s.answer != nil {
			s.answer(n, w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *subscriber) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[id]
}

func (s *subscriber) total() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.order)
}

func TestEventsReachExactlyTheMatchingSubscribers(t *testing.T) {
	f := newFixture(t)
	gifts, all, shared := newSubscriber(t, nil), newSubscriber(t, nil), newSubscriber(t, nil)
	f.serve(f.trigger("gifts", "gift", gifts.URL), f.trigger("all", "", all.URL),
		f.trigger("one", "gift", shared.URL), f.trigger("two", "gift", shared.URL))
	f.publish("gift", "g1", "g2")
	f.publish("like", "l1")
	f.waitEmpty()
	for _, c := range []struct {
		s    *subscriber
		name string
		want map[string]int
	}{
		{gifts, "gifts", map[string]int{"g1": 1, "g2": 1, "l1": 0}},
		{all, "all", map[string]int{"g1": 1, "g2": 1, "l1": 1}},
		{shared, "shared by two triggers", map[string]int{"g1": 2, "g2": 2, "l1": 0}},
	} {
		for id, want := range c.want {
			if got := c.s.times(id); got != want {
				t.Errorf("subscriber %s got %s %d times, want %d", c.name, id, got, want)
			}
		}
	}
	if c := f.counts("gifts"); c.Matched != 2 || c.Delivered != 2 || c.Attempts != 2 {
		t.Errorf("counts of gifts: %+v", c)
	}
}

func TestFailedDeliveriesAreRetriedFromTheStore(t *testing.T) {
	f := newFixture(t)
	flaky := newSubscriber(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	steady := newSubscriber(t, nil)
	f.serve(f.trigger("flaky", "", flaky.URL), f.trigger("steady", "", steady.URL))
	f.publish("x", "a", "b")
	f.waitEmpty()
	for _, id := range []string{"a", "b"} {
		if got := flaky.times(id); got != 3 {
			t.Errorf("flaky got %s %d times, want 3", id, got)
		}
		if got := steady.times(id); got != 1 {
			t.Errorf("steady got %s %d times, want 1: another Trigger's failure must not repeat it", id, got)
		}
	}
}

func TestAttemptsAreExactAndThenTheEventIsParked(t *testing.T) {
	f := newFixture(t)
	down := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	tr := f.trigger("down", "", down.URL)
	tr.Policy.Retries = 4
	once := f.trigger("once", "", down.URL)
	once.Policy.Retries = 0
	f.serve(tr)
	f.publish("x", "a")
	f.waitEmpty()
	if got := down.times("a"); got != 5 {
		t.Errorf("%d attempts, want 1 + 4", got)
	}
	f.serve(once)
	f.publish("x", "b")
	f.waitEmpty()
	if got := down.times("b"); got != 1 {
		t.Errorf("%d attempts with retry 0, want 1", got)
	}
	if got := f.stored(f.names.Parked); got != 2 {
		t.Errorf("%d events parked, want 2", got)
	}
}

func TestRejectedEventsAreNotRetried(t *testing.T) {
	f := newFixture(t)
	no := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	f.serve(f.trigger("no", "", no.URL))
	f.publish("x", "a")
	f.waitEmpty()
	if no.times("a") != 1 || f.stored(f.names.Parked) != 1 {
		t.Errorf("%d attempts, %d parked; want 1 and 1", no.times("a"), f.stored(f.names.Parked))
	}
}

func TestDeadLettersGoToTheSinkUntilItTakesThem(t *testing.T) {
	f := newFixture(t)
	no := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	})
	var code, dest atomic.Value
	sink := newSubscriber(t, func(n int, w http.ResponseWriter, r *http.Request) {
		code.Store(r.Header.Get("ce-knativeerrorcode"))
		dest.Store(r.Header.Get("ce-knativeerrordest"))
		if n < 4 {
			w.WriteHeader(http.StatusBadRequest) // even what is not retryable elsewhere: the sink is the last place
		}
	})
	tr := f.trigger("no", "", no.URL)
	tr.DeadLetterSink = mustURL(t, sink.URL)
	f.serve(tr)
	f.publish("x", "a")
	f.waitEmpty()
	if got := sink.times("a"); got != 4 {
		t.Errorf("the sink was tried %d times, want 4", got)
	}
	if code.Load() != "418" || dest.Load() != no.URL {
		t.Errorf("knativeerrorcode %v, knativeerrordest %v", code.Load(), dest.Load())
	}
	if c := f.counts("no"); c.DeadLettered != 1 || c.Parked != 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestRepliesComeBackIntoTheBroker(t *testing.T) {
	f := newFixture(t)
	f.stop(0)
	seen := newDiary()
	f.start(dispatch.Options{Recorder: seen})
	answering := newSubscriber(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("ce-specversion", "1.0")
		h.Set("ce-id", r.Header.Get("ce-id")) // the same id: still an event of its own
		h.Set("ce-source", "/answering")
		h.Set("ce-type", "answer")
		h.Set("content-type", "text/plain")
		_, _ = io.WriteString(w, "yes")
	})
	var hops atomic.Value
	listening := newSubscriber(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		hops.Store(r.Header.Get("ce-knativebrokerttl"))
	})
	f.serve(f.trigger("ask", "question", answering.URL), f.trigger("listen", "answer", listening.URL))
	f.publish("question", "q")
	f.waitEmpty()
	seen.mu.Lock()
	// The reply has the same id, so that its own delivery may be told of first.
	if got := seen.fates["q"]; !slices.Contains(got, "reply q stored") {
		t.Errorf("told of %v, want the reply among it", got)
	}
	seen.mu.Unlock()
	if listening.times("q") != 1 {
		t.Errorf("the reply was delivered %d times, want 1", listening.times("q"))
	}
	if hops.Load() != "" {
		t.Errorf("the subscriber saw the hop limit %q", hops.Load())
	}
}

func TestReplyLoopsEnd(t *testing.T) {
	f := newFixture(t)
	f.stop(0)
	seen := newDiary()
	f.start(dispatch.Options{Recorder: seen})
	echo := newSubscriber(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, name := range []string{"ce-specversion", "ce-id", "ce-source", "ce-type"} {
			h.Set(name, r.Header.Get(name))
		}
		_, _ = io.WriteString(w, "again")
	})
	f.serve(f.trigger("loop", "", echo.URL))
	f.publish("x", "a")
	eventually(t, "the loop ends", func() bool { return f.counts("loop").RepliesDropped == 1 })
	f.waitEmpty()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if got := seen.fates["a"]; !slices.Contains(got, "reply a stored") || !slices.Contains(got, "reply a dropped") {
		t.Errorf("told of %v", got)
	}
	if got := echo.times("a"); got != event.DefaultHopLimit {
		t.Errorf("the event went round %d times, want %d", got, event.DefaultHopLimit)
	}
}

func TestAHungSubscriberDelaysNobody(t *testing.T) {
	f := newFixture(t)
	release := make(chan struct{})
	hung := newSubscriber(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	steady := newSubscriber(t, nil)
	h := f.trigger("hung", "", hung.URL)
	h.MaxConcurrency = 2
	f.serve(h, f.trigger("steady", "", steady.URL))
	const count = 600 // more than the hung lane runs and queues, so that it overflows
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "the steady subscriber has everything", func() bool { return steady.total() == count })
	if f.counts("hung").Overflowed == 0 {
		t.Error("nothing overflowed to the retry stream")
	}
	close(release)
	f.waitEmpty()
	for i := range count {
		if id := fmt.Sprint(i); hung.times(id) != 1 || steady.times(id) != 1 {
			t.Fatalf("event %s: hung got it %d times, steady %d times", id, hung.times(id), steady.times(id))
		}
	}
}

func TestStopResumesWithoutLossOrRepeat(t *testing.T) {
	f := newFixture(t)
	slow := newSubscriber(t, func(int, http.ResponseWriter, *http.Request) { time.Sleep(2 * time.Millisecond) })
	tr := f.trigger("slow", "", slow.URL)
	tr.MaxConcurrency = 3
	f.serve(tr)
	const count = 500
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	f.stop(10 * time.Second)
	before := slow.total()
	if before == 0 {
		t.Fatal("nothing was delivered before the stop")
	}
	f.start(dispatch.Options{})
	f.serve(tr)
	f.waitEmpty()
	for i := range count {
		if got := slow.times(fmt.Sprint(i)); got != 1 {
			t.Fatalf("event %d was delivered %d times (%d before the stop)", i, got, before)
		}
	}
}

func TestChangesLeaveOtherTriggersAlone(t *testing.T) {
	f := newFixture(t)
	steady, other := newSubscriber(t, nil), newSubscriber(t, nil)
	constant := f.trigger("steady", "", steady.URL)
	f.serve(constant)
	const count = 1000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range count {
			f.publish("x", fmt.Sprint(i))
		}
	})
	for i := range 50 {
		f.serve(constant, f.trigger(fmt.Sprintf("t%d", i%5), "x", other.URL))
		time.Sleep(2 * time.Millisecond)
	}
	wg.Wait()
	f.waitEmpty()
	for i := range count {
		if got := steady.times(fmt.Sprint(i)); got != 1 {
			t.Fatalf("event %d was delivered %d times", i, got)
		}
	}
}

func TestRemovedBrokerKeepsItsEvents(t *testing.T) {
	f := newFixture(t)
	s := newSubscriber(t, nil)
	tr := f.trigger("t", "", s.URL)
	f.serve(tr)
	f.publish("x", "a")
	f.waitEmpty()
	f.apply()
	sent := 0
	eventually(t, "the runner takes no more events", func() bool {
		f.publish("x", fmt.Sprint(sent))
		sent++
		return f.stored(f.names.Events) > 3
	})
	f.serve(tr)
	f.waitEmpty()
	for i := range sent {
		if got := s.times(fmt.Sprint(i)); got != 1 {
			t.Errorf("event %d was delivered %d times", i, got)
		}
	}
}

func TestRetriesOfHeldTriggersWait(t *testing.T) {
	f := newFixture(t)
	down := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	tr := f.trigger("t", "", down.URL)
	tr.Policy.BackoffDelay = 300 * time.Millisecond
	f.serve(tr)
	f.publish("x", "a")
	eventually(t, "a retry is stored", func() bool { return f.stored(f.names.Retries) == 1 && f.stored(f.names.Events) == 0 })
	f.apply(&dispatch.Broker{Names: f.names, Held: map[string]bool{tr.UID: true}})
	time.Sleep(500 * time.Millisecond) // the retry falls due meanwhile
	if got := f.stored(f.names.Retries); got != 1 {
		t.Fatalf("%d retries stored while the Trigger is held, want 1", got)
	}
	f.apply(&dispatch.Broker{Names: f.names}) // unknown for a moment, as to a process that lags behind
	time.Sleep(100 * time.Millisecond)
	f.apply(&dispatch.Broker{Names: f.names, Held: map[string]bool{tr.UID: true}})
	time.Sleep(500 * time.Millisecond)
	if got := f.stored(f.names.Retries); got != 1 {
		t.Fatalf("%d retries stored after the Trigger was unknown for a moment, want 1", got)
	}
	f.apply(&dispatch.Broker{Names: f.names}) // deleted
	f.waitEmpty()
}

func TestOptionsAreRequired(t *testing.T) {
	if _, err := dispatch.New(dispatch.Options{}); err == nil || !strings.Contains(err.Error(), "required") {
		t.Errorf("got %v", err)
	}
}

func TestHTTP2Cleartext(t *testing.T) {
	f := newFixture(t)
	proto := make(chan string, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto <- r.Proto
		w.WriteHeader(http.StatusAccepted)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	tr := f.trigger("t", "", server.URL)
	tr.Policy.HTTP2Cleartext = true
	f.serve(tr)
	f.publish("a", "1")
	if got := <-proto; got != "HTTP/2.0" {
		t.Errorf("delivered over %s, want HTTP/2.0", got)
	}
}
