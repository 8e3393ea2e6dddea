package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/test/harness"
)

// pressureManifest is a Broker with the given annotations and a Trigger for all its events.
func pressureManifest(subscriber string, annotations ...string) string {
	return fmt.Sprintf(`
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata:
  name: b
  annotations: {%s}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: b
  subscriber: {uri: %s/all}
`, strings.Join(annotations, ", "), subscriber)
}

// startPressure returns a cluster with nothing started yet.
func startPressure(t *testing.T, manifest string) *harness.Cluster {
	t.Helper()
	file := filepath.Join(t.TempDir(), "broker.yaml")
	harness.WriteFile(t, file, manifest)
	return harness.NewCluster(t, programs.Dir(t), file)
}

// producer posts events with ascending ids and remembers which were accepted.
type producer struct {
	url    string
	client *http.Client
	next   atomic.Int64

	mu       sync.Mutex
	accepted map[string]bool
}

func newProducer(t *testing.T, url string) *producer {
	p := &producer{url: url, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}, accepted: map[string]bool{}}
	t.Cleanup(p.client.CloseIdleConnections)
	return p
}

// answer is what a producer was told.
type answer struct {
	code       int
	retryAfter string
	reason     string // the end of the problem's type
	detail     string
	took       time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d %s after %s: %s", a.code, a.reason, a.took.Round(time.Millisecond), a.detail)
}

// post sends one event with the given number of bytes of data. Every answer but a 202 must be one to try again after, or
// one that names what is too large.
func (p *producer) post(t *testing.T, size int) answer {
	t.Helper()
	id := strconv.FormatInt(p.next.Add(1), 10)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Error(err)
		return answer{}
	}
	for name, value := range map[string]string{"specversion": "1.0", "id": id, "source": "/pressure", "type": "pressure"} {
		req.Header.Set("Ce-"+name, value)
	}
	start := time.Now()
	resp, err := p.client.Do(req)
	if err != nil {
		t.Errorf("event %s: %v", id, err)
		return answer{}
	}
	defer resp.Body.Close()
	var problem struct{ Type, Detail string }
	_ = json.NewDecoder(resp.Body).Decode(&problem)
	a := answer{
		resp.StatusCode, resp.Header.Get("Retry-After"), problem.Type[strings.LastIndexByte(problem.Type, '/')+1:], problem.Detail,
		time.Since(start),
	}
	switch {
	case a.code == http.StatusAccepted:
		p.mu.Lock()
		p.accepted[id] = true
		p.mu.Unlock()
	case a.code == http.StatusRequestEntityTooLarge:
	case a.code != http.StatusServiceUnavailable && a.code != http.StatusTooManyRequests, a.retryAfter == "":
		t.Errorf("event %s: answered %s, Retry-After %q", id, a, a.retryAfter)
	}
	return a
}

// fill posts events of 1 MiB until one is refused, and returns that answer.
func (p *producer) fill(t *testing.T, most int) answer {
	t.Helper()
	for range most {
		if a := p.post(t, 1<<20-1); a.code != http.StatusAccepted {
			return a
		}
	}
	t.Fatalf("%d events of 1 MiB were accepted", most)
	return answer{}
}

// recover posts events of the given size until one is accepted.
func (p *producer) recover(t *testing.T, size int) {
	t.Helper()
	harness.Eventually(t, "an event is accepted again", func() error {
		if a := p.post(t, size); a.code != http.StatusAccepted {
			return errors.New(a.String())
		}
		return nil
	})
}

// checkDelivered waits until the ledger has every accepted event.
func (p *producer) checkDelivered(t *testing.T, ledger *harness.Ledger) {
	t.Helper()
	harness.Eventually(t, "every accepted event is delivered", func() error {
		got := ledger.Path("/all")
		p.mu.Lock()
		defer p.mu.Unlock()
		missing := 0
		for id := range p.accepted {
			if got[id] == 0 {
				missing++
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, len(p.accepted))
		}
		return nil
	})
}

// readiness is what /readyz says.
func readiness(t testing.TB, s *harness.Server) (int, map[string]string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Admin+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	said := map[string]string{}
	_ = json.NewDecoder(resp.Body).Decode(&said)
	return resp.StatusCode, said
}

// waitUnready waits until each process says that it is not ready because of what is named, and checks that it lives.
func waitUnready(t *testing.T, what string, servers ...*harness.Server) {
	t.Helper()
	for _, s := range servers {
		harness.Eventually(t, s.Name+" is not ready because of "+what, func() error {
			if code, said := readiness(t, s); code != http.StatusServiceUnavailable || said[what] == "" {
				return fmt.Errorf("status %d: %v", code, said)
			}
			return nil
		})
		harness.WaitReady(t, s.Admin+"/healthz")
	}
}

func TestFullStoreRefusesAtOnceAndRecovers(t *testing.T) {
	for _, annotation := range []string{"millrace.dev/max-bytes: 16Mi", "millrace.dev/max-messages: '12'"} {
		t.Run(strings.TrimSuffix(strings.Fields(annotation)[0], ":"), func(t *testing.T) {
			ledger := harness.NewLedger(t)
			c := startPressure(t, pressureManifest(ledger.URL, annotation))
			c.NATSFlags = natsConfig(t, "max_payload: 8MB")
			c.StartAll(t, 0) // nobody takes the events out
			p := newProducer(t, c.URL("b"))
			a := p.fill(t, 16)
			if a.code != http.StatusServiceUnavailable || a.reason != "store-full" || a.took > time.Second {
				t.Errorf("a full store answered %s", a)
			}
			if code, said := readiness(t, c.Ingress); code != http.StatusOK {
				t.Errorf("a full store of one broker takes the ingress out of service: %v", said)
			}
			c.StartFilter(t)
			p.recover(t, 1<<20-1)
			p.checkDelivered(t, ledger)
		})
	}
}

// natsConfig returns the flags of a nats-server with the given configuration.
func natsConfig(t *testing.T, text string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	harness.WriteFile(t, file, text)
	return []string{"-c", file}
}

// NATS is killed, stays away for a while and comes back: producers are told at once, nothing is accepted meanwhile, and
// everything goes on by itself.
func TestNATSAwayAndBack(t *testing.T) {
	ledger := harness.NewLedger(t)
	c := startPressure(t, pressureManifest(ledger.URL))
	c.StartAll(t, 1)
	p := newProducer(t, c.URL("b"))
	for range 3 {
		for range 50 {
			if a := p.post(t, 100); a.code != http.StatusAccepted {
				t.Errorf("answered %s", a)
			}
		}
		c.NATS.Kill()
		refused := 0
		for away := time.Now(); time.Since(away) < 2*time.Second; refused++ {
			a := p.post(t, 100)
			if a.code != http.StatusServiceUnavailable || a.took > time.Second {
				t.Errorf("while NATS is away: answered %s", a)
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("%d events refused while NATS was away", refused)
		waitUnready(t, "nats", c.Ingress, c.Filters[0])
		c.StartNATS(t)
		c.WaitReady(t)
		p.recover(t, 100)
		p.checkDelivered(t, ledger)
	}
}

// NATS hangs, as on a machine that swaps or a disk that stalls: every producer gets an answer within a bounded time, the
// window of unconfirmed events fills and no further, and it goes on when NATS does.
func TestNATSHangs(t *testing.T) {
	t.Parallel() // it mostly waits

	const bound = 14 * time.Second // the wait for a confirmation, a write that is stuck before it, and a slow machine
	ledger := harness.NewLedger(t)
	c := startPressure(t, pressureManifest(ledger.URL))
	c.NATSFlags = natsConfig(t, "max_payload: 8MB")
	c.StartAll(t, 1)
	p := newProducer(t, c.URL("b"))
	p.recover(t, 100)
	c.NATS.Freeze(t)
	codes := make([]answer, 150)
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() { codes[i] = p.post(t, []int{100, 1 << 20}[i%2]) })
	}
	wg.Wait()
	count := map[string]int{}
	var longest time.Duration
	for _, a := range codes {
		count[fmt.Sprint(a.code, " ", a.reason)]++
		longest = max(longest, a.took)
	}
	t.Logf("answers %v, the last after %s", count, longest.Round(time.Millisecond))
	if count["202 "] > 0 || count["503 store-unavailable"] == 0 || count["429 overload"]+count["429 store-busy"] == 0 {
		t.Errorf("want 503 and 429 and nothing else, got %v", count)
	}
	if longest > bound {
		t.Errorf("an answer took %s, the bound is %s", longest, bound)
	}
	waitUnready(t, "nats", c.Ingress, c.Filters[0])
	if a := p.post(t, 100); a.code != http.StatusServiceUnavailable || a.took > time.Second {
		t.Errorf("with the hang known: answered %s", a)
	}
	c.NATS.Signal(t, syscall.SIGCONT)
	c.WaitReady(t)
	p.recover(t, 100)
	p.checkDelivered(t, ledger)
}

// What is missing is named, first one thing, then the next.
func TestReadinessNamesWhatIsMissing(t *testing.T) {
	ledger := harness.NewLedger(t)
	c := startPressure(t, pressureManifest(ledger.URL))
	c.StartIngress(t)
	filter := c.StartFilter(t)
	p := newProducer(t, c.URL("b"))
	waitUnready(t, "nats", c.Ingress, filter)
	if a := p.post(t, 1); a.code != http.StatusServiceUnavailable || a.took > time.Second {
		t.Errorf("without NATS: answered %s", a)
	}
	c.NATSFlags = natsConfig(t, "accounts: {plain: {users: [{user: plain, password: plain}]}}\nno_auth_user: plain")
	c.StartNATS(t)
	waitUnready(t, "streams", c.Ingress, filter)
	harness.Eventually(t, "JetStream is all that is missing", func() error {
		if _, said := readiness(t, c.Ingress); said["nats"] != "" || !strings.Contains(said["streams"], "default/b") {
			return fmt.Errorf("%v", said)
		}
		return nil
	})
	if a := p.post(t, 1); a.code != http.StatusServiceUnavailable {
		t.Errorf("without JetStream: answered %s", a)
	}
	c.NATS.Kill()
	c.NATSFlags = nil
	c.StartNATS(t)
	c.WaitReady(t)
	p.recover(t, 100)
	p.checkDelivered(t, ledger)
}

// A server that takes smaller messages than the Broker allows is named, to the producer and in the log, and is no reason
// to try again.
func TestSmallMaxPayloadIsNamed(t *testing.T) {
	ledger := harness.NewLedger(t)
	c := startPressure(t, pressureManifest(ledger.URL))
	c.NATSFlags = natsConfig(t, "max_payload: 64KB")
	c.Flags = []string{"--log-level", "warn"}
	c.StartAll(t, 1)
	p := newProducer(t, c.URL("b"))
	for _, size := range []int{100 << 10, 61 << 10, 64 << 10} {
		if a := p.post(t, size); a.code != http.StatusRequestEntityTooLarge || !strings.Contains(a.detail, "max_payload") {
			t.Errorf("%d bytes: answered %s", size, a)
		}
	}
	if a := p.post(t, 50<<10); a.code != http.StatusAccepted {
		t.Errorf("an event that fits: answered %s", a)
	}
	p.checkDelivered(t, ledger)
	if n := strings.Count(c.Ingress.Out.String(), "NATS takes smaller messages"); n != 1 {
		t.Errorf("warned %d times, want once:\n%s", n, c.Ingress.Out)
	}
}

// A Broker's limits are its own and change while events flow.
func TestLimitsChangeWithTheManifest(t *testing.T) {
	ledger := harness.NewLedger(t)
	c := startPressure(t, pressureManifest(ledger.URL, "millrace.dev/max-event-bytes: 4Ki"))
	c.NATSFlags = natsConfig(t, "max_payload: 8MB")
	c.StartAll(t, 1)
	p := newProducer(t, c.URL("b"))
	if a := p.post(t, 4<<10); a.code != http.StatusAccepted {
		t.Errorf("4 KiB: answered %s", a)
	}
	if a := p.post(t, 4<<10+1); a.code != http.StatusRequestEntityTooLarge || !strings.Contains(a.detail, "4096") {
		t.Errorf("more than 4 KiB: answered %s", a)
	}
	harness.WriteFile(t, c.Manifests, pressureManifest(ledger.URL, "millrace.dev/max-event-bytes: 3Mi"))
	harness.Eventually(t, "the larger limit is in effect", func() error {
		if a := p.post(t, 3<<20); a.code != http.StatusAccepted {
			return errors.New(a.String())
		}
		return nil
	})
	p.checkDelivered(t, ledger)
}

// smallDisk mounts a file system of its own and returns its folder and a function that fills it to the last byte, as
// others would who share the disk, and one that gives the room back.
func smallDisk(t *testing.T) (dir string, fill, free func()) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	fill = func() {
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	free = func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	return dir, fill, free
}

// startOnSmallDisk starts a cluster whose store may grow beyond the disk that it is on.
func startOnSmallDisk(t *testing.T, dir, subscriber string, filters int) (c *harness.Cluster, health string) {
	t.Helper()
	c = startPressure(t, pressureManifest(subscriber, "millrace.dev/max-bytes: 1Gi"))
	port := strconv.Itoa(harness.FreePort(t))
	c.NATSFlags = append(natsConfig(t, "max_payload: 8MB\njetstream: {max_file_store: 10GB}"), "-sd", filepath.Join(dir, "nats"), "-m", port)
	c.StartAll(t, filters)
	return c, "http://127.0.0.1:" + port + "/healthz"
}

// The disk of the store runs full, which its own limits should have prevented. Not one event is said to be stored that is
// not. When there is room again, a restart of nats-server is all it takes.
func TestFullDisk(t *testing.T) {
	t.Parallel() // it mostly waits
	dir, fill, free := smallDisk(t)
	ledger := harness.NewLedger(t)
	c, health := startOnSmallDisk(t, dir, ledger.URL, 0)
	p := newProducer(t, c.URL("b"))
	for range 20 {
		p.post(t, 1<<20-1)
	}
	fill()
	a := p.fill(t, 20)
	if a.code != http.StatusServiceUnavailable || a.took > 4*time.Second {
		t.Errorf("on the full disk: answered %s", a)
	}
	t.Logf("the first refusal: %s", a)
	waitUnready(t, "store", c.Ingress)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := p.post(t, 100); a.code != http.StatusServiceUnavailable || a.took > time.Second {
				t.Errorf("with the full disk known: answered %s", a)
			}
		})
	}
	wg.Wait()
	free()
	// The server does not write to the stream again before its restart, and says so: its liveness probe is to ask this.
	if body := get(t, health); !strings.Contains(body, "no space left on device") {
		t.Errorf("nats-server says of its health: %s", body)
	}
	if code, _ := readiness(t, c.Ingress); code != http.StatusServiceUnavailable {
		t.Errorf("ready although the server does not write")
	}
	c.NATS.Kill()
	c.StartNATS(t)
	c.WaitReady(t)
	checkStored(t, c, p)
	p.recover(t, 100)
	c.StartFilter(t)
	p.checkDelivered(t, ledger)
}

// Others fill the disk while events flow. Producers are told at once, readiness goes and comes, a supervisor restarts
// nats-server by its health, and nobody does anything but make room.
func TestFullDiskUnderSupervision(t *testing.T) {
	t.Parallel() // it mostly waits
	dir, fill, free := smallDisk(t)
	ledger := harness.NewLedger(t)
	c, health := startOnSmallDisk(t, dir, ledger.URL, 1)
	p := newProducer(t, c.URL("b"))
	var wg sync.WaitGroup
	var refused atomic.Int64
	flow, cut := make(chan struct{}), sync.Once{}
	end := func() { cut.Do(func() { close(flow) }); wg.Wait() }
	defer end()
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-flow:
					return
				case <-time.After(5 * time.Millisecond):
				}
				if a := p.post(t, 32<<10); a.code != http.StatusAccepted {
					refused.Add(1)
				}
			}
		})
	}
	harness.Eventually(t, "events flow", func() error {
		if n := ledger.Total(); n < 200 {
			return fmt.Errorf("%d delivered", n)
		}
		return nil
	})
	fill()
	waitUnready(t, "store", c.Ingress, c.Filters[0])
	if a := p.post(t, 100); a.code != http.StatusServiceUnavailable || a.took > time.Second {
		t.Errorf("with the full disk known: answered %s", a)
	}
	stop := c.SuperviseNATS(t, health)
	time.Sleep(4 * time.Second) // restarts are in vain while the disk is full, and must do no harm
	free()
	c.WaitReady(t)
	p.recover(t, 32<<10)
	before := ledger.Total()
	harness.Eventually(t, "events flow again", func() error {
		if n := ledger.Total() - before; n < 200 {
			return fmt.Errorf("%d delivered", n)
		}
		return nil
	})
	end()
	p.checkDelivered(t, ledger)
	c.WaitReady(t)
	restarts := stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("%d accepted, %d refused, %d delivered; nats-server restarted %d times", len(p.accepted), refused.Load(), ledger.Total(), restarts)
	if restarts == 0 {
		t.Error("nats-server was not restarted, so this showed nothing")
	}
}

// The disk is full when events are removed, and nobody publishes: the server itself notices only at the next publish. Yet
// the ingress is not ready, and the server's health says what its supervisor must know.
func TestFullDiskWithoutProducers(t *testing.T) {
	t.Parallel() // it mostly waits
	dir, fill, free := smallDisk(t)
	ledger := harness.NewLedger(t)
	c, health := startOnSmallDisk(t, dir, ledger.URL, 0)
	p := newProducer(t, c.URL("b"))
	for range 1000 {
		p.post(t, 10)
	}
	fill()
	removeUntilFailure(t, c, 1000)
	waitUnready(t, "store", c.Ingress)
	harness.Eventually(t, "nats-server knows of it", func() error {
		if body := get(t, health); !strings.Contains(body, "no space left on device") {
			return errors.New(body)
		}
		return nil
	})
	stop := c.SuperviseNATS(t, health)
	free()
	c.WaitReady(t)
	p.recover(t, 100)
	if stop() == 0 {
		t.Error("nats-server was not restarted")
	}
}

// removeUntilFailure removes every other event, as deliveries do that end out of order, until the server cannot.
func removeUntilFailure(t *testing.T, c *harness.Cluster, last uint64) {
	t.Helper()
	js := jetStream(t, c.NATSURL())
	name, err := js.StreamNameBySubject(t.Context(), "millrace.events.>")
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(2); seq < last; seq += 2 {
		if err := s.DeleteMsg(t.Context(), seq); err != nil {
			return
		}
	}
	t.Fatal("everything could be removed from a full disk")
}

// Dev mode brings its server along, so it recovers by itself as soon as there is room.
func TestFullDiskInDevMode(t *testing.T) {
	t.Parallel() // it mostly waits
	dir, fill, free := smallDisk(t)
	ledger := harness.NewLedger(t)
	file := filepath.Join(t.TempDir(), "broker.yaml")
	harness.WriteFile(t, file, pressureManifest(ledger.URL, "millrace.dev/max-bytes: 16Mi"))
	d := harness.StartDev(t, filepath.Join(dir, "data"), file)
	p := newProducer(t, d.URL+"/default/b")
	for range 10 {
		p.post(t, 100<<10)
	}
	fill()
	if a := p.fill(t, 20); a.code != http.StatusServiceUnavailable || a.took > 4*time.Second {
		t.Errorf("on the full disk: answered %s", a)
	}
	waitUnready(t, "store", &harness.Server{Process: &harness.Process{Name: "dev"}, Admin: d.Admin})
	harness.Eventually(t, "people are told", func() error {
		if out := d.Out.String(); !strings.Contains(out, "make room") || !strings.Contains(out, dir) {
			return errors.New(out)
		}
		return nil
	})
	free()
	harness.WaitReady(t, d.Admin+"/readyz")
	p.recover(t, 100<<10)
	p.checkDelivered(t, ledger)
}

// checkStored reads the stream directly: every accepted event must be in it.
func checkStored(t *testing.T, c *harness.Cluster, p *producer) {
	t.Helper()
	js := jetStream(t, c.NATSURL())
	stored := map[string]bool{}
	names := js.StreamNames(t.Context(), jetstream.WithStreamListSubject("millrace.events.>"))
	for name := range names.Name() {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		st := s.CachedInfo().State
		for seq := st.FirstSeq; seq <= st.LastSeq; seq++ {
			msg, err := s.GetMsg(t.Context(), seq)
			if err != nil {
				t.Fatalf("message %d: %v", seq, err)
			}
			stored[msg.Header.Get("ce-id")] = true
		}
	}
	for id := range p.accepted {
		if !stored[id] {
			t.Errorf("event %s was answered 202 and is not stored", id)
		}
	}
	t.Logf("%d events accepted, %d stored", len(p.accepted), len(stored))
}
