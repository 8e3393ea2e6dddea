package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// What other brokers on JetStream get wrong, each as a test that Millrace does not. Defect 11, a data plane that may read
// every Secret of the cluster, is in install_test.go; the finalizers of defect 12 are the controller's to show, in test/api.

// peerTrigger is a Trigger as far as these tests vary it; fields other than name and subscriber are YAML and may be empty.
type peerTrigger struct{ name, subscriber, filter, delivery, annotations string }

// peerManifest is the Broker b with the given annotations and Triggers.
func peerManifest(annotations string, triggers ...peerTrigger) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b, annotations: {%s}}\n", annotations)
	for _, t := range triggers {
		fmt.Fprintf(&b, `---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: %s, annotations: {%s}}
spec:
  broker: b
  subscriber: {uri: %q}
  filter: {%s}
  delivery: {%s}
`, t.name, t.annotations, t.subscriber, t.filter, t.delivery)
	}
	return b.String()
}

func writeManifest(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	harness.WriteFile(t, file, text)
	return file
}

// startPeer runs dev mode with the Broker b and returns its URL.
func startPeer(t testing.TB, triggers ...peerTrigger) string {
	t.Helper()
	return harness.StartDev(t, t.TempDir(), writeManifest(t, peerManifest("", triggers...))).URL + "/default/b"
}

// postID sends an event that must be accepted. headers, such as "ce-source: /x", replace the defaults.
func postID(t testing.TB, broker, id string, headers ...string) {
	t.Helper()
	all := map[string]string{"ce-specversion": "1.0", "ce-id": id, "ce-source": "/peers", "ce-type": "x", "content-type": "text/plain"}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		all[name] = value
	}
	var lines []string
	for name, value := range all {
		lines = append(lines, name+": "+value)
	}
	if code, body := harness.Post(t, broker, "", []byte("data of "+id), lines...); code != http.StatusAccepted {
		t.Fatalf("event %s: status %d: %s", id, code, body)
	}
}

// script is a subscriber that answers as told and remembers what it got.
type script struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string][]http.Header // by event id
}

// newScript returns a running script. answer is told how often the id came, this time included; nil answers 200.
func newScript(t testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request)) *script {
	t.Helper()
	s := &script{got: map[string][]http.Header{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		id := r.Header.Get("ce-id")
		s.mu.Lock()
		s.got[id] = append(s.got[id], r.Header.Clone())
		n := len(s.got[id])
		s.mu.Unlock()
		if answer != nil {
			answer(n, w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *script) times(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got[id])
}

// wait waits until the id came at least want times, and returns the headers of its last request.
func (s *script) wait(t testing.TB, id string, want int) http.Header {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("event %s came %d times", id, want), func() error {
		if n := s.times(id); n < want {
			return fmt.Errorf("it came %d times", n)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[id][len(s.got[id])-1]
}

// exactly waits until the id came want times and holds that it does not come again for a moment.
func (s *script) exactly(t testing.TB, id string, want int) {
	t.Helper()
	s.wait(t, id, want)
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if n := s.times(id); n > want {
			t.Fatalf("event %s came %d times, want %d", id, n, want)
		}
	}
}

func status(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// Elsewhere: without spec.delivery the first 5xx or refused connection is acked and the event lost.
func TestPeerDefect01_DefaultDeliveryRetries(t *testing.T) {
	t.Parallel()
	failing := newScript(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	address := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	broker := startPeer(t, peerTrigger{name: "failing", subscriber: failing.URL}, peerTrigger{name: "refused", subscriber: "http://" + address})
	postID(t, broker, "a")
	failing.exactly(t, "a", 3) // by then the other has been refused too
	late := newScript(t, nil)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(l, late.Config.Handler) }() //nolint:gosec // ends with the listener, at the test's end
	t.Cleanup(func() { l.Close() })
	late.exactly(t, "a", 1)
}

// Elsewhere: a 4xx is dropped without the dead letter sink, and 404 and 409 are not retried.
func TestPeerDefect02_RejectionsReachTheSinkAnd404And409AreRetried(t *testing.T) {
	t.Parallel()
	sink := newScript(t, nil)
	codes := map[string]int{"400": 400, "403": 403, "422": 422, "404": 404, "409": 409}
	s := newScript(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			w.WriteHeader(codes[r.Header.Get("ce-id")])
		}
	})
	broker := startPeer(t, peerTrigger{name: "t", subscriber: s.URL, delivery: fmt.Sprintf("deadLetterSink: {uri: %q}", sink.URL)})
	for id := range codes {
		postID(t, broker, id)
	}
	for _, id := range []string{"400", "403", "422"} {
		if got := sink.wait(t, id, 1).Get("ce-knativeerrorcode"); got != id {
			t.Errorf("event %s reached the sink with code %s", id, got)
		}
		s.exactly(t, id, 1)
	}
	for _, id := range []string{"404", "409"} {
		s.exactly(t, id, 2)
		if sink.times(id) != 0 {
			t.Errorf("event %s is a dead letter though its second attempt succeeded", id)
		}
	}
}

// Elsewhere: a dead letter that its sink refuses is acked and lost.
func TestPeerDefect03_DeadLettersAreSentUntilTaken(t *testing.T) {
	t.Parallel()
	sink := newScript(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 4 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	bad := newScript(t, status(http.StatusBadRequest))
	broker := startPeer(t, peerTrigger{name: "t", subscriber: bad.URL, delivery: fmt.Sprintf("deadLetterSink: {uri: %q}", sink.URL)})
	postID(t, broker, "a")
	sink.exactly(t, "a", 4)
	bad.exactly(t, "a", 1)
}

// Elsewhere: a reply that cannot be stored is acked and lost.
func TestPeerDefect03_RepliesAreStoredOrTheDeliveryIsRepeated(t *testing.T) {
	t.Parallel()
	t.Run("store away for a moment", func(t *testing.T) { testReplyWithoutStore(t, 0) })
	t.Run("store away for long", func(t *testing.T) { testReplyWithoutStore(t, replyPatience+2*time.Second) })
}

// replyPatience is how long a reply is kept while the store is away; then the subscriber is asked again.
const replyPatience = 10 * time.Second

func testReplyWithoutStore(t *testing.T, away time.Duration) {
	t.Parallel()
	asked, storeGone := make(chan struct{}), make(chan struct{})
	answering := newScript(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			close(asked)
			<-storeGone
		}
		reply(w, r, "answer")
	})
	listening := newScript(t, nil)
	c := newPeerCluster(t, peerTrigger{name: "ask", filter: "attributes: {type: question}", subscriber: answering.URL},
		peerTrigger{name: "listen", filter: "attributes: {type: answer}", subscriber: listening.URL})
	c.StartAll(t, 1)
	postID(t, c.URL("b"), "q", "ce-type: question")
	<-asked
	c.NATS.Kill()
	killed := time.Now()
	close(storeGone)
	harness.Eventually(t, "the filter notices", func() error { return notReady(t, c.Filters[0]) })
	time.Sleep(time.Until(killed.Add(away)))
	c.StartNATS(t)
	listening.exactly(t, "q", 1)
	n, was := answering.times("q"), time.Since(killed)
	if n > 1 && was < replyPatience {
		t.Errorf("the question was asked %d times within %s: the first reply was there to be stored", n, was)
	}
	if n < 2 && away > replyPatience {
		t.Errorf("the question was asked %d times, although its reply could not be stored for %s", n, away)
	}
}

// reply answers with an event that has the id of the request.
func reply(w http.ResponseWriter, r *http.Request, eventType string) {
	h := w.Header()
	h.Set("ce-specversion", "1.0")
	h.Set("ce-id", r.Header.Get("ce-id"))
	h.Set("ce-source", "/reply")
	h.Set("ce-type", eventType)
	h.Set("content-type", "text/plain")
	_, _ = io.WriteString(w, "reply")
}

// Elsewhere: an event whose every attempt times out never reaches the dead letter sink.
func TestPeerDefect04_TimeoutsEndAtTheSink(t *testing.T) {
	t.Parallel()
	sink := newScript(t, nil)
	hung := newScript(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	broker := startPeer(t, peerTrigger{
		name: "t", subscriber: hung.URL,
		delivery: fmt.Sprintf("retry: 2, timeout: PT0.2S, backoffDelay: PT0.05S, deadLetterSink: {uri: %q}", sink.URL),
	})
	postID(t, broker, "a")
	h := sink.wait(t, "a", 1)
	if got := h.Get("ce-knativeerrordest"); got != hung.URL {
		t.Errorf("knativeerrordest %q, want %q", got, hung.URL)
	}
	hung.exactly(t, "a", 3)
	sink.exactly(t, "a", 1)
}

// Elsewhere: events are told apart by id alone, so one of two sources with the same id, and a reply that keeps the id of its
// request, are lost behind a 202.
func TestPeerDefect05_EqualIDsAreNotDuplicates(t *testing.T) {
	t.Parallel()
	for _, deduplicate := range []string{"false", "true"} {
		t.Run("deduplicate "+deduplicate, func(t *testing.T) {
			t.Parallel()
			answering := newScript(t, func(_ int, w http.ResponseWriter, r *http.Request) { reply(w, r, "answer") })
			all := newScript(t, nil)
			text := peerManifest(fmt.Sprintf("millrace.dev/deduplicate: %q", deduplicate),
				peerTrigger{name: "ask", filter: "attributes: {type: x}", subscriber: answering.URL}, peerTrigger{name: "all", subscriber: all.URL})
			broker := harness.StartDev(t, t.TempDir(), writeManifest(t, text)).URL + "/default/b"
			postID(t, broker, "1", "ce-source: /one")
			postID(t, broker, "1", "ce-source: /two")
			want := 4 // two events and their replies
			if deduplicate == "true" {
				want = 3 // the replies have the same source and id: they are duplicates to one who asks for that
			}
			all.wait(t, "1", want)
			answering.exactly(t, "1", 2)
			sources := map[string]int{}
			all.mu.Lock()
			defer all.mu.Unlock()
			for _, h := range all.got["1"] {
				sources[h.Get("ce-source")]++
			}
			if sources["/one"] != 1 || sources["/two"] != 1 || sources["/reply"] < 1 {
				t.Errorf("events by source: %v", sources)
			}
		})
	}
}

// Elsewhere: one Trigger's events go one at a time, and a batch waits for its slowest.
func TestPeerDefect06_OneTriggerDeliversConcurrently(t *testing.T) {
	t.Parallel()
	const together = 50
	var here atomic.Int64
	all, release := make(chan struct{}), make(chan struct{})
	s := newScript(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		switch id := r.Header.Get("ce-id"); {
		case id == "slow":
			<-release
		case id < "a": // a number: waits for the others
			if here.Add(1) == together {
				close(all)
			}
			<-all
		}
	})
	broker := startPeer(t, peerTrigger{name: "t", subscriber: s.URL})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	postID(t, broker, "slow")
	for i := range together {
		postID(t, broker, strconv.Itoa(i))
	}
	select {
	case <-all:
	case <-time.After(harness.Patience):
		t.Fatalf("%d of %d deliveries at the same time", here.Load(), together)
	}
	postID(t, broker, "z") // overtakes the slow one
	s.exactly(t, "z", 1)
}

// Elsewhere: the store's ack wait has no margin over the request's timeout, so what a slow subscriber is still working on
// comes a second time.
func TestPeerDefect06_SlowAnswersAreNotRepeated(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes longer than the store's ack wait")
	}
	const longerThanAckWait = 12 * time.Second
	s := newScript(t, func(int, http.ResponseWriter, *http.Request) { time.Sleep(longerThanAckWait) })
	broker := startPeer(t, peerTrigger{name: "t", subscriber: s.URL})
	postID(t, broker, "a")
	s.wait(t, "a", 1)
	time.Sleep(longerThanAckWait)
	s.exactly(t, "a", 1)
}

// Elsewhere: retry without a backoff crashes the filter, and one bad Trigger takes all others down.
func TestPeerDefect07_BadTriggersHurtOnlyThemselves(t *testing.T) {
	t.Parallel()
	failing, good := newScript(t, status(http.StatusInternalServerError)), newScript(t, nil)
	broker := startPeer(t,
		peerTrigger{name: "no-backoff", subscriber: failing.URL, delivery: "retry: 2"},
		peerTrigger{name: "bad-cel", subscriber: failing.URL, filter: `cel: 'ce.type =='`},
		peerTrigger{name: "bad-delay", subscriber: failing.URL, delivery: "retry: 2, backoffDelay: soon"},
		peerTrigger{name: "bad-policy", subscriber: failing.URL, delivery: "retry: 2, backoffPolicy: sometimes"},
		peerTrigger{name: "bad-uri", subscriber: "bad://nowhere"},
		peerTrigger{name: "good", subscriber: good.URL})
	postID(t, broker, "a")
	good.exactly(t, "a", 1)
	failing.exactly(t, "a", 3) // of no-backoff alone, by the default backoff
	postID(t, broker, "b")
	good.exactly(t, "b", 1)
}

// Elsewhere: once NATS has been away for the client's limit of attempts the connection closes for good while the probes
// stay green. The limit is 60 attempts, so a port that takes connections and closes them makes the test short.
func TestPeerDefect08_NATSMayBeAwayForAnyTime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	const limit = 60 // of reconnects, in the client's default options
	s := newScript(t, nil)
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL})
	c.StartAll(t, 1)
	postID(t, c.URL("b"), "before")
	s.exactly(t, "before", 1)

	c.NATS.Kill()
	attempts, closePort := refuse(t, c.NATSAddress())
	for _, p := range []*harness.Server{c.Ingress, c.Filters[0]} {
		harness.Eventually(t, "the probe of "+p.Name+" turns red", func() error { return notReady(t, p) })
		get(t, p.Admin+"/healthz") // a restart would not help, so this one stays green
	}
	if code, _ := harness.Post(t, c.URL("b"), "", nil, "ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: x"); code != http.StatusServiceUnavailable {
		t.Errorf("status %d without NATS, want 503", code)
	}
	harness.Eventually(t, "both programs have tried more than the limit", func() error {
		if n := attempts.Load(); n < 2*limit+20 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	closePort()
	c.StartNATS(t)
	c.WaitReady(t)
	postID(t, c.URL("b"), "after")
	s.exactly(t, "after", 1)
}

// notReady returns nil if the server says that it is not ready.
func notReady(t testing.TB, s *harness.Server) error {
	t.Helper()
	if code, _ := readiness(t, s); code != http.StatusServiceUnavailable {
		return fmt.Errorf("/readyz of %s answers %d", s.Name, code)
	}
	return nil
}

// refuse takes connections at the address and closes them, and counts them.
func refuse(t testing.TB, address string) (attempts *atomic.Int64, stop func()) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	attempts = &atomic.Int64{}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			conn.Close() //nolint:errcheck // there is nobody to tell
		}
	}()
	stop = func() { l.Close() }
	t.Cleanup(stop)
	return attempts, stop
}

// Elsewhere: every Trigger fetches, decodes and acks every event of its Broker.
func TestPeerDefect09_EventsAreFetchedOnceForAllTriggers(t *testing.T) {
	t.Parallel()
	const triggers, events = 50, 40
	s := newScript(t, nil)
	all := []peerTrigger{{name: "all", subscriber: s.URL}}
	for i := range triggers {
		all = append(all, peerTrigger{name: fmt.Sprint("t", i), subscriber: s.URL, filter: fmt.Sprintf("attributes: {type: never%d}", i)})
	}
	c := newPeerCluster(t, all...)
	c.StartAll(t, 1)
	for i := range events {
		postID(t, c.URL("b"), strconv.Itoa(i))
	}
	for i := range events {
		s.wait(t, strconv.Itoa(i), 1)
	}
	consumers := consumersOf(t, c.NATSURL(), eventStream)
	if len(consumers) != 1 {
		t.Fatalf("%d consumers of the accepted events for %d triggers, want 1", len(consumers), len(all))
	}
	if n := consumers[0].Delivered.Consumer; n != events {
		t.Errorf("the store handed out %d messages for %d events", n, events)
	}
}

// eventStream tells the stream of accepted events from the Broker's others.
func eventStream(name string) bool {
	return !strings.HasSuffix(name, "_retries") && !strings.HasSuffix(name, "_parked") && name != stream.JournalStream
}

func consumersOf(t testing.TB, url string, want func(string) bool) []*jetstream.ConsumerInfo {
	t.Helper()
	js := jetStream(t, url)
	var found []*jetstream.ConsumerInfo
	for name := range js.StreamNames(t.Context()).Name() {
		if !want(name) {
			continue
		}
		st, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		found = slices.AppendSeq(found, func(yield func(*jetstream.ConsumerInfo) bool) {
			for info := range st.ListConsumers(t.Context()).Info() {
				if !yield(info) {
					return
				}
			}
		})
	}
	return found
}

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
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

// Elsewhere: streams have no limits, are never updated, and would forget the oldest events silently.
func TestPeerDefect10_AFullStoreRefusesAndForgetsNothing(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	s := newScript(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL})
	c.StartNATS(t)
	c.StartIngress(t) // without a filter the events stay where they are
	harness.WaitReady(t, c.Ingress.Admin+"/readyz")
	postID(t, c.URL("b"), "oldest")
	js := jetStream(t, c.NATSURL())
	for name := range js.StreamNames(t.Context()).Name() {
		st, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		config := st.CachedInfo().Config
		if config.MaxBytes <= 0 || !strings.HasSuffix(name, "_parked") && name != stream.JournalStream && config.Discard != jetstream.DiscardNew {
			t.Errorf("stream %s: at most %d bytes, discards %s", name, config.MaxBytes, config.Discard)
		}
		if eventStream(name) { // fill it without sending a gigabyte
			config.MaxMsgs = 10
			if _, err := js.UpdateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
		}
	}
	accepted := []string{"oldest"}
	for i := range 30 {
		id := strconv.Itoa(i)
		code, body := harness.Post(t, c.URL("b"), "", nil, "ce-specversion: 1.0", "ce-id: "+id, "ce-source: /s", "ce-type: x")
		switch code {
		case http.StatusAccepted:
			accepted = append(accepted, id)
		case http.StatusServiceUnavailable:
		default:
			t.Fatalf("status %d: %s", code, body)
		}
	}
	if len(accepted) != 10 {
		t.Errorf("%d events accepted into a store for 10", len(accepted))
	}
	up.Store(true)
	c.StartFilter(t)
	for _, id := range accepted {
		s.wait(t, id, 1)
	}
	postID(t, c.URL("b"), "room again")
}

// Elsewhere: deletion hangs when a component is gone.
func TestPeerDefect12_DeletionAndStopDoNotWaitForNATS(t *testing.T) {
	t.Parallel()
	s := newScript(t, nil)
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL})
	c.StartAll(t, 1)
	postID(t, c.URL("b"), "a")
	s.exactly(t, "a", 1)
	c.NATS.Kill()
	harness.WriteFile(t, c.Manifests, "# all deleted\n")
	harness.Eventually(t, "the ingress forgets the broker", func() error {
		code, _ := harness.Post(t, c.URL("b"), "", nil, "ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: x")
		if code != http.StatusNotFound {
			return fmt.Errorf("status %d", code)
		}
		return nil
	})
	start := time.Now()
	c.Ingress.Stop(t)
	c.Filters[0].Stop(t)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("stopping both took %s with nothing under way", took) // less than the 25 s that they may take, each
	}
}

// Elsewhere: readiness always answers 200, and events are answered 404, which no producer repeats, while the program is
// still starting.
func TestPeerDefect13_NotReadyUntilItCanStore(t *testing.T) {
	t.Parallel()
	s := newScript(t, nil)
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL})
	c.StartIngress(t)
	c.StartFilter(t)
	for _, p := range []*harness.Server{c.Ingress, c.Filters[0]} {
		harness.Eventually(t, p.Name+" says that it is not ready", func() error { return notReady(t, p) })
	}
	code, retryAfter := 0, ""
	harness.Eventually(t, "the ingress answers", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL("b"), strings.NewReader("x"))
		if err != nil {
			return err
		}
		for name, value := range map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "x"} {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		code, retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
		return nil
	})
	if code != http.StatusServiceUnavailable || retryAfter == "" {
		t.Errorf("status %d, Retry-After %q, want 503 with a Retry-After", code, retryAfter)
	}
	c.StartNATS(t)
	c.WaitReady(t)
	postID(t, c.URL("b"), "a")
	s.exactly(t, "a", 1)
}

// Elsewhere: a timer a message to extend the ack wait burned so much CPU that it was taken out again.
func TestPeerDefect14_WaitingForSlowSubscribersCostsNoCPU(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes longer than the store's ack wait")
	}
	const events, watched = 1000, 12 * time.Second
	release := make(chan struct{})
	s := newScript(t, func(int, http.ResponseWriter, *http.Request) { <-release })
	c := newPeerCluster(t, peerTrigger{name: "t", subscriber: s.URL, annotations: fmt.Sprintf("millrace.dev/max-concurrency: %q", strconv.Itoa(events))})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	c.StartAll(t, 1)
	for i := range events {
		postID(t, c.URL("b"), strconv.Itoa(i))
	}
	for i := range events {
		s.wait(t, strconv.Itoa(i), 1)
	}
	before := c.Filters[0].CPU(t)
	time.Sleep(watched) // longer than the ack wait, so each must be extended several times
	used := c.Filters[0].CPU(t) - before
	if used > watched/10 {
		t.Errorf("%s of CPU in %s for %d deliveries that wait", used, watched, events)
	}
	for i := range events {
		if n := s.times(strconv.Itoa(i)); n != 1 {
			t.Fatalf("event %d came %d times", i, n)
		}
	}
	t.Logf("%s of CPU in %s for %d deliveries under way", used, watched, events)
}

// programs are built once for all tests of this package.
var programs harness.Programs

func TestMain(m *testing.M) {
	code := m.Run()
	programs.Remove()
	os.Exit(code)
}

func newPeerCluster(t testing.TB, triggers ...peerTrigger) *harness.Cluster {
	t.Helper()
	return harness.NewCluster(t, programs.Dir(t), writeManifest(t, peerManifest("", triggers...)))
}
