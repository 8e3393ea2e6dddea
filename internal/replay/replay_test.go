package replay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/devserver"
	"millrace.dev/internal/replay"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

const broker = "default/live"

// fixture is a Broker with an archive and the Triggers a, for events of type x, and b, for all.
type fixture struct {
	t          *testing.T
	conn       *stream.Conn
	names      *stream.Names
	publisher  *stream.Publisher
	dispatcher *dispatch.Dispatcher
	triggers   map[string]*dispatch.Trigger
	got        map[string]*subscriber
}

// subscriber counts what it gets: by id, and by replay and id.
type subscriber struct {
	mu               sync.Mutex
	events, replayed map[string]int
}

func newFixture(t *testing.T) *fixture {
	server, err := devserver.Start(devserver.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := stream.Dial(stream.ConnOptions{InProcess: server, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	f := &fixture{
		t: t, conn: conn, names: stream.NewNames("default", "live", "uid"), publisher: stream.NewPublisher(conn, 0),
		triggers: map[string]*dispatch.Trigger{}, got: map[string]*subscriber{},
	}
	if err := conn.Ensure(t.Context(), f.names, stream.Limits{ArchiveMaxAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	compiler, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	of := &dispatch.Broker{Names: f.names, Archive: true}
	for name, filters := range map[string][]eventingv1.Filter{"a": {{Exact: map[string]string{"type": "x"}}}, "b": nil} {
		s := &subscriber{events: map[string]int{}, replayed: map[string]int{}}
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		f.got[name] = s
		o := &eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: eventingv1.TriggerSpec{Filters: filters}}
		filter, errs := compiler.Compile(o)
		to, err := url.Parse(server.URL)
		if err != nil || len(errs) > 0 {
			t.Fatal(err, errs)
		}
		f.triggers[name] = &dispatch.Trigger{
			Namespace: "default", Name: name, UID: "uid-" + name, Filter: filter, Subscriber: to, Policy: delivery.DefaultPolicy(),
		}
		of.Triggers = append(of.Triggers, f.triggers[name])
	}
	f.dispatcher, err = dispatch.New(dispatch.Options{
		Conn: conn, Publisher: f.publisher, Sender: delivery.NewSender(delivery.Options{AllowLoopback: true}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.dispatcher.Stop(context.Background()) })
	f.dispatcher.Apply([]*dispatch.Broker{of})
	return f
}

func (s *subscriber) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := r.Header.Get("ce-" + replay.Attribute); id != "" {
		s.replayed[id+"/"+r.Header.Get("ce-id")]++
		return
	}
	s.events[r.Header.Get("ce-id")]++
}

// counts returns how many deliveries came of events as they were accepted, and of replayed ones, and whether any came twice.
func (s *subscriber) counts() (events, replayed int, twice bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.events {
		twice = twice || n > 1
	}
	for _, n := range s.replayed {
		twice = twice || n > 1
	}
	return len(s.events), len(s.replayed), twice
}

// publish accepts n events, of type x and y by turns, and waits until they are delivered and archived.
func (f *fixture) publish(n int) {
	f.t.Helper()
	for i := range n {
		e := &event.Event{Data: []byte(fmt.Sprintf(`{"n":%d}`, i))}
		e.Set(event.SpecVersion, "1.0", event.String)
		e.Set(event.ID, fmt.Sprint(i), event.String)
		e.Set(event.Source, "/test", event.String)
		e.Set(event.Type, []string{"x", "y"}[i%2], event.String)
		e.Set(event.DataContentType, "application/json", event.String)
		if err := f.publisher.Publish(f.t.Context(), f.names, stream.Message{Event: e}); err != nil {
			f.t.Fatal(err)
		}
	}
	f.settle()
	if state, err := f.conn.ArchiveState(f.t.Context(), f.names); err != nil || state.Messages != uint64(n) {
		f.t.Fatalf("the archive has %d of %d events, %v", state.Messages, n, err)
	}
}

// settle waits until no event and no retry is left.
func (f *fixture) settle() {
	f.t.Helper()
	f.eventually("the store drains", func() bool {
		events, err := f.conn.StreamState(f.t.Context(), f.names.Events)
		retries, err2 := f.conn.StreamState(f.t.Context(), f.names.Retries)
		return err == nil && err2 == nil && events.Messages+retries.Messages == 0
	})
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func (f *fixture) target(name string) replay.Target {
	return replay.Target{Names: f.names, Trigger: "default/" + name, TriggerUID: "uid-" + name, Filter: f.triggers[name].Filter}
}

// work starts a process that works on replays, and returns what stops it.
func (f *fixture) work() (stop func()) {
	w := &replay.Worker{Store: f.conn, Redriver: f.publisher, Log: slog.New(slog.DiscardHandler), Find: func(_, uid string) (replay.Target, bool) {
		return f.target(uid[len("uid-"):]), true
	}}
	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) begin(name string, s replay.Selection, rate float64) replay.Replay {
	f.t.Helper()
	r, err := replay.Create(f.t.Context(), f.conn, f.target(name), s, rate, "")
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fixture) state(id string) replay.Replay {
	f.t.Helper()
	all, err := replay.List(f.t.Context(), f.conn)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, r := range all {
		if r.ID == id {
			return r
		}
	}
	f.t.Fatalf("there is no replay %s", id)
	return replay.Replay{}
}

func everything() replay.Selection {
	return replay.Selection{Since: time.Now().Add(-time.Hour), Until: time.Now()}
}

// A replay gives one Trigger what is selected and its filter wants, each event once and marked, and the other Trigger nothing.
func TestReplayReachesOneTrigger(t *testing.T) {
	f := newFixture(t)
	f.work()
	const count = 300
	f.publish(count)
	for name, c := range map[string]struct {
		s    func(*replay.Selection)
		want int
	}{
		"all":       {func(*replay.Selection) {}, count / 2},
		"CEL":       {func(s *replay.Selection) { s.CEL = "data.n < 100" }, 50},
		"type":      {func(s *replay.Selection) { s.Type = "y*" }, 0},
		"long past": {func(s *replay.Selection) { s.Until = s.Since.Add(time.Minute) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := everything()
			c.s(&s)
			_, before, _ := f.got["a"].counts()
			examined, selected, err := replay.Count(t.Context(), f.conn, f.target("a"), s)
			if err != nil || examined != count || int(selected) != c.want {
				t.Errorf("a count of %d of %d, %v; want %d of %d", selected, examined, err, c.want, count)
			}
			r := f.begin("a", s, 0)
			f.eventually("it is done", func() bool { return f.state(r.ID).State == replay.Done })
			f.settle()
			if _, got, twice := f.got["a"].counts(); got-before != c.want || twice {
				t.Errorf("%d replayed, want %d; any twice: %v", got-before, c.want, twice)
			}
			if got := f.state(r.ID); got.Replayed != uint64(c.want) || got.Examined != count {
				t.Errorf("it says %d of %d, want %d of %d", got.Replayed, got.Examined, c.want, count)
			}
		})
	}
	if events, replayed, _ := f.got["b"].counts(); events != count || replayed != 0 {
		t.Errorf("the other Trigger has %d events and %d replayed ones", events, replayed)
	}
	if state, err := f.conn.ArchiveState(t.Context(), f.names); err != nil || state.Messages != count {
		t.Errorf("the archive has %d events after replays, want %d, %v", state.Messages, count, err)
	}
}

// The process that works on a replay stops in the middle: another one goes on, and each event comes once.
func TestReplayGoesOnElsewhere(t *testing.T) {
	f := newFixture(t)
	stop := f.work()
	const count = 400
	f.publish(count)
	r := f.begin("b", everything(), 100)
	replayed := func() int { _, n, _ := f.got["b"].counts(); return n }
	f.eventually("it is under way", func() bool { return replayed() > 50 })
	stop()
	if got := f.state(r.ID); got.State != replay.Running || got.Owner != "" || got.Replayed == 0 {
		t.Errorf("it was left as %+v", got)
	}
	if replayed() == count {
		t.Fatal("it was over before")
	}
	f.work()
	f.eventually("it is done", func() bool { return f.state(r.ID).State == replay.Done })
	f.settle()
	if _, n, twice := f.got["b"].counts(); n != count || twice {
		t.Errorf("%d replayed, want %d; any twice: %v", n, count, twice)
	}
}

// A canceled replay ends, and says how far it came. There is nothing to cancel in another Broker.
func TestCancel(t *testing.T) {
	f := newFixture(t)
	f.work()
	f.publish(200)
	r := f.begin("b", everything(), 20)
	replayed := func() int { _, n, _ := f.got["b"].counts(); return n }
	f.eventually("it is under way", func() bool { return replayed() > 5 })
	if _, err := replay.Cancel(t.Context(), f.conn, "default/other", r.ID); !errors.Is(err, stream.ErrNoRecord) {
		t.Errorf("canceled for another Broker: %v", err)
	}
	if _, err := replay.Cancel(t.Context(), f.conn, broker, r.ID); err != nil {
		t.Fatal(err)
	}
	second := f.begin("b", replay.Selection{Since: time.Now().Add(-time.Hour), Until: time.Now(), CEL: "data.n == 7"}, 0)
	f.eventually("a later one is done", func() bool { return f.state(second.ID).State == replay.Done })
	time.Sleep(2 * time.Second) // twice as long as it takes to notice
	f.settle()
	before := replayed()
	if before == 201 {
		t.Error("it went on to the end")
	}
	time.Sleep(500 * time.Millisecond)
	if got := replayed(); got != before || f.state(r.ID).State != replay.Canceled {
		t.Errorf("%d more came after it was canceled; it is %s", got-before, f.state(r.ID).State)
	}
}

// What cannot be replayed is refused.
func TestRefusals(t *testing.T) {
	f := newFixture(t)
	bad, backwards := everything(), everything()
	bad.CEL = "data.n >"
	backwards.Since, backwards.Until = backwards.Until, backwards.Since
	absent, idle := f.target("a"), f.target("a")
	absent.Names = stream.NewNames("default", "none", "uid")
	idle.Filter = nil
	for name, c := range map[string]struct {
		to replay.Target
		s  replay.Selection
	}{"CEL": {f.target("a"), bad}, "backwards": {f.target("a"), backwards}, "no archive": {absent, everything()}, "not in effect": {idle, everything()}} {
		if r, err := replay.Create(t.Context(), f.conn, c.to, c.s, 0, ""); err == nil {
			t.Errorf("%s: replay %s began", name, r.ID)
		}
	}
	if _, err := replay.Create(t.Context(), f.conn, absent, everything(), 0, ""); !errors.Is(err, stream.ErrNoArchive) {
		t.Errorf("without an archive: %v", err)
	}
}
