package chaos

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"millrace.dev/test/harness"
)

// How messages begin on the wire to and from NATS: an ack (or a sign of life) of a message, the answer to a publish.
const (
	ackCommand = "PUB $JS.ACK."
	pubAck     = `{"stream":"millrace_`
)

// failpoint stops the broker between two of its steps, breaks something there, mends it, and says what must come of it.
type failpoint struct {
	name string
	// answers are those of the subscriber of the one Trigger to its requests; the last is for all that follow.
	answers []answer
	// sink gives the Trigger a dead letter sink. The first request to the place that holds names is not answered.
	sink  bool
	holds string
	// provoke posts events and breaks something. When it returns, everything is mended.
	provoke func(*lab)
	// want is what each place must have seen when all is settled, parked how many events must be parked.
	want   map[string]seen
	parked int
	// or is what the places that it names may have seen instead, where two orders of things are right.
	or map[string]seen
}

// seen is how many requests a place got, and how many of them it answered with 2xx.
type seen struct{ requests, taken int }

func failpoints() []failpoint {
	ok, no, busy := answer{status: 200}, answer{status: 400}, answer{status: 503}
	return []failpoint{
		{
			name:    "posted, not settled: the filter is killed",
			answers: []answer{{deed: hang}, ok},
			provoke: func(l *lab) {
				l.post("a", accepted)
				<-l.desk.held
				l.restart(l.filter())
			},
			want: map[string]seen{"it": {2, 1}},
		},
		{
			name:    "delivered, not acked: the filter is killed",
			answers: []answer{ok},
			provoke: killBeforeAck,
			want:    map[string]seen{"it": {2, 2}},
		},
		{
			// The filter lives and knows what it has settled, so the server's second delivery is no second request.
			name:    "delivered, the ack lost on its way",
			answers: []answer{ok},
			provoke: loseAck,
			want:    map[string]seen{"it": {1, 1}},
		},
		{
			// The copy for the second attempt is stored, and the original comes again: its first attempt is repeated, and
			// what it would store has the id of the copy. If the filter had begun on the copy too, the store gives both out
			// anew at about the same time, and the original may come before the subscriber has recovered.
			name:    "stored for a retry, not acked: the filter is killed",
			answers: []answer{busy, busy, busy, ok},
			provoke: killBeforeAck,
			want:    map[string]seen{"it": {5, 2}},
			or:      map[string]seen{"it": {4, 1}},
		},
		{
			name:    "stored for a retry, the ack lost on its way",
			answers: []answer{busy, ok},
			provoke: loseAck,
			want:    map[string]seen{"it": {2, 1}},
		},
		{
			name:    "dead-lettered, not acked: the filter is killed",
			answers: []answer{no}, sink: true,
			provoke: killBeforeAck,
			want:    map[string]seen{"it": {2, 0}, sinkName: {2, 2}},
		},
		{
			name:    "parked, not acked: the filter is killed",
			answers: []answer{no},
			provoke: killBeforeAck,
			want:    map[string]seen{"it": {2, 0}},
			parked:  1,
		},
		{
			// The listener holds the reply until the filter is dead, or else it would be one more that is not acked.
			name:    "reply stored, not acked: the filter is killed",
			answers: []answer{{deed: reply, status: 200}}, holds: "listening",
			provoke: func(l *lab) {
				caught := l.filter().links[0].up.catch(ackCommand)
				l.post("a", accepted)
				<-caught
				<-l.desk.held
				l.killCaught(l.filter())
			},
			want: map[string]seen{"it": {2, 2}, "listening": {2, 1}},
		},
		{
			name:    "stored, not confirmed: the ingress is killed",
			answers: []answer{ok},
			provoke: func(l *lab) {
				ingress := l.world.ingresses[0]
				caught := ingress.links[0].down.catch(pubAck)
				var wg sync.WaitGroup
				wg.Go(func() { l.post("a", 0) })
				<-caught
				l.killCaught(ingress)
				wg.Wait()
			},
			want: map[string]seen{"it": {1, 1}},
		},
		{
			name:    "stored, the confirmation lost on its way",
			answers: []answer{ok},
			provoke: func(l *lab) {
				link := l.world.ingresses[0].links[0]
				caught := link.down.catch(pubAck)
				var wg sync.WaitGroup
				wg.Go(func() { l.post("a", http.StatusServiceUnavailable) })
				<-caught
				link.cut()
				link.stall(false)
				wg.Wait()
			},
			want: map[string]seen{"it": {1, 1}},
		},
		{
			name:    "accepted: NATS is killed before anybody has seen the event",
			answers: []answer{ok},
			provoke: func(l *lab) {
				l.filter().kill()
				l.post("a", accepted)
				l.restart(l.world.nodes[0])
				l.filter().start(l.t)
				l.filter().waitReady(l.t)
			},
			want: map[string]seen{"it": {1, 1}},
		},
		{
			// Among others: numbers of stored messages must not be given twice, or the filter would know them as settled.
			name:    "settled: NATS is killed when it is empty, again and again",
			answers: []answer{ok},
			provoke: func(l *lab) {
				for i := range 4 {
					l.post(fmt.Sprint("round-", i), accepted)
					l.waitEmpty()
					l.restart(l.world.nodes[0])
					l.world.waitReady(l.t)
				}
				l.post("last", accepted)
			},
			want: map[string]seen{"it": {5, 5}},
		},
		{
			name:    "posted: NATS is killed while the subscriber is at work",
			answers: []answer{ok}, holds: "it",
			provoke: func(l *lab) {
				l.post("a", accepted)
				<-l.desk.held
				l.restart(l.world.nodes[0])
				l.world.waitReady(l.t)
				close(l.desk.release)
			},
			want: map[string]seen{"it": {1, 1}},
		},
	}
}

// killBeforeAck posts an event, and kills the filter when it has done with it and is about to say so to the store.
func killBeforeAck(l *lab) {
	caught := l.filter().links[0].up.catch(ackCommand)
	l.post("a", accepted)
	<-caught
	l.killCaught(l.filter())
}

// loseAck posts an event, and breaks the filter's connection with its ack.
func loseAck(l *lab) {
	link := l.filter().links[0]
	caught := link.up.catch(ackCommand)
	l.post("a", accepted)
	<-caught
	link.cut()
	link.stall(false)
}

// lab is a small world for one failpoint.
type lab struct {
	t     testing.TB
	world *world
	store *store
	desk  *desk
}

func newLab(t testing.TB, bin string, f *failpoint) *lab {
	t.Helper()
	d := newDesk(t, f)
	l := &lab{t: t, desk: d, world: newWorld(t, bin, labManifest(d.URL, f.sink), size{1, 1, 1})}
	l.store = openStore(t, l.world.stores)
	return l
}

func labManifest(url string, sink bool) string {
	text := `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: ` + brokerName + `}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: it}
spec:
  broker: ` + brokerName + `
  filters: [{exact: {type: chaos.event}}]
  subscriber: {uri: URL/it}
  delivery: {retry: 10, backoffPolicy: linear, backoffDelay: PT0.05SSINK}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: listening}
spec:
  broker: ` + brokerName + `
  filters: [{exact: {type: chaos.reply}}]
  subscriber: {uri: URL/listening}
`
	to := ""
	if sink {
		to = ", deadLetterSink: {uri: URL/" + sinkName + "}"
	}
	return strings.NewReplacer("URL", url).Replace(strings.Replace(text, "SINK", to, 1))
}

func (l *lab) filter() *member { return l.world.filters[0] }

// post posts an event, which must be answered with the status; 0 says not at all.
func (l *lab) post(id string, want int) {
	l.t.Helper()
	p := newProducers(nil, l.world.brokers)
	defer p.client.CloseIdleConnections()
	if got := p.post(l.t.Context(), p.urls[0], compose(1, []string{id})); got != want {
		l.t.Errorf("posting %s was answered with %d, want %d", id, got, want)
	}
}

func (l *lab) restart(p interface {
	kill()
	start(testing.TB)
	waitReady(testing.TB)
},
) {
	l.t.Helper()
	p.kill()
	p.start(l.t)
	p.waitReady(l.t)
}

// killCaught restarts a process; what was held back on its connection does not arrive.
func (l *lab) killCaught(m *member) {
	l.t.Helper()
	m.kill()
	m.cut()
	m.stall(false)
	m.start(l.t)
	m.waitReady(l.t)
}

// waitEmpty waits until the broker has settled everything.
func (l *lab) waitEmpty() {
	l.t.Helper()
	harness.Eventually(l.t, "everything is settled", func() error {
		n, err := l.store.queued(l.t.Context())
		if err == nil && n > 0 {
			err = fmt.Errorf("%d messages are left", n)
		}
		return err
	})
}

// desk is where the subscribers of a lab sit.
type desk struct {
	*httptest.Server
	point *failpoint
	// held is closed when the first request that is not to be answered came; release answers it.
	held, release chan struct{}
	once          sync.Once

	mu   sync.Mutex
	seen map[string]seen
}

func newDesk(t testing.TB, f *failpoint) *desk {
	d := &desk{point: f, held: make(chan struct{}), release: make(chan struct{}), seen: map[string]seen{}}
	d.Server = httptest.NewServer(d)
	t.Cleanup(func() {
		d.CloseClientConnections()
		d.Close()
	})
	return d
}

// ServeHTTP answers as the failpoint says.
func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil { // to the end, or the server does not notice when the client goes
		return
	}
	place := strings.TrimPrefix(r.URL.Path, "/")
	nth := d.count(place, false)
	a := answer{status: http.StatusOK}
	if place == "it" {
		a = script(d.point.answers).at(nth)
	}
	if a.deed == hang || place == d.point.holds && nth == 1 {
		d.once.Do(func() { close(d.held) })
		select {
		case <-r.Context().Done():
			return
		case <-d.release:
		}
	}
	if a.ok() {
		d.count(place, true)
	}
	if a.deed == reply {
		writeReply(w, "1-0-0")
		return
	}
	w.WriteHeader(a.status)
}

func (d *desk) count(place string, taken bool) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.seen[place]
	if taken {
		s.taken++
	} else {
		s.requests++
	}
	d.seen[place] = s
	return s.requests
}

func (d *desk) at(place string) seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[place]
}

// testFailpoints provokes all failpoints, and then looks at what came of them: recovery takes about as long as the store
// waits for a sign of life, and that they can do at the same time.
func testFailpoints(t *testing.T, bin string) {
	t.Helper()
	points := failpoints()
	labs := make([]*lab, len(points))
	for i := range points {
		labs[i] = newLab(t, bin, &points[i])
		points[i].provoke(labs[i])
	}
	for i, f := range points {
		t.Run(f.name, func(t *testing.T) {
			l := labs[i]
			l.t = t
			l.waitEmpty()
			for place, want := range f.want {
				other, either := f.or[place]
				if got := l.desk.at(place); got != want && (!either || got != other) {
					t.Errorf("%s got %d requests and took %d, want %d and %d", place, got.requests, got.taken, want.requests, want.taken)
				}
			}
			count := 0
			l.store.parked(t, func(parked) { count++ })
			if count != f.parked {
				t.Errorf("%d events are parked, want %d", count, f.parked)
			}
		})
	}
}
