package micro

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"millrace.dev/test/harness"
)

const (
	openLoopRate  = 1500 // events a second at most, and a quarter of what the machine can do in the closed loop
	openLoopTime  = 5 * time.Second
	closedWindow  = 64 // events under way in the closed loop
	closedTime    = 4 * time.Second
	isolationTurn = 3 // rounds of each kind
)

// BenchmarkIsolation measures a Trigger alone and beside two others of the same Broker that match the same events: the
// subscriber of one never answers, that of the other always answers 500. Rounds take turns; the medians are compared.
//
// In the open loop events come at a fixed rate, and latency counts from when an event was due to be sent. In the closed
// loop as many events are under way as the window allows; there the Broker works at the limit of the processor, and
// part of what the Trigger loses is the processor time that it takes to store each event for the others.
func BenchmarkIsolation(b *testing.B) {
	answer := make(chan struct{})
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hung" {
			<-answer
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	b.Cleanup(bad.Close)
	b.Cleanup(func() { close(answer) })
	rigs := map[string]*rig{
		"alone":  startRig(b, ""),
		"beside": startRig(b, benchTrigger("hung", bad.URL+"/hung", "")+benchTrigger("failing", bad.URL+"/failing", "")),
	}
	perSecond := openLoopRate
	for _, r := range rigs { // warms up, too
		perSecond = min(perSecond, int(r.closedLoop(b, closedTime)/4))
	}
	open, p99, closed, cpu := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		for range isolationTurn {
			for _, name := range []string{"alone", "beside"} {
				rate, latency := rigs[name].openLoop(b, perSecond, openLoopTime)
				open[name] = append(open[name], rate)
				p99[name] = append(p99[name], float64(latency.ValueAtQuantile(99))/1e6)
				before := rigs[name].cpu(b)
				closed[name] = append(closed[name], rigs[name].closedLoop(b, closedTime))
				cpu[name] = append(cpu[name], (rigs[name].cpu(b)-before).Seconds()*1e6/float64(rigs[name].count()))
				b.Logf("%-6s open loop %.0f/s p50 %.2f ms p99 %.2f ms max %.2f ms, closed loop %.0f/s of %.0f µs CPU each", name, rate,
					float64(latency.ValueAtQuantile(50))/1e6, float64(latency.ValueAtQuantile(99))/1e6, float64(latency.Max())/1e6,
					closed[name][len(closed[name])-1], cpu[name][len(cpu[name])-1])
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(perSecond), "open-events/s")
	b.ReportMetric(median(p99["alone"]), "alone-p99-ms")
	b.ReportMetric(median(p99["beside"]), "beside-p99-ms")
	b.ReportMetric(median(p99["beside"])/median(p99["alone"]), "p99-beside/alone")
	b.ReportMetric(median(open["beside"])/median(open["alone"]), "open-rate-beside/alone")
	b.ReportMetric(median(closed["alone"]), "alone-closed-events/s")
	b.ReportMetric(median(closed["beside"])/median(closed["alone"]), "closed-rate-beside/alone")
	b.ReportMetric(median(cpu["alone"])/median(cpu["beside"]), "cpu-per-event-alone/beside")
}

// cpu is the processor time that the programs have used, NATS included.
func (r *rig) cpu(b *testing.B) time.Duration {
	b.Helper()
	return r.NATS.CPU(b) + r.Ingress.CPU(b) + r.Filters[0].CPU(b)
}

// programs are built once for all benchmarks of this package.
var programs harness.Programs

func TestMain(m *testing.M) {
	code := m.Run()
	programs.Remove()
	os.Exit(code)
}

// benchTrigger is the manifest of a Trigger of the Broker b. spec is more YAML of its spec.
func benchTrigger(name, subscriber, spec string) string {
	return fmt.Sprintf("---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: %s}\n"+
		"spec:\n  broker: b\n  subscriber: {uri: %q}\n%s", name, subscriber, spec)
}

// rig is a cluster with a Trigger whose subscriber measures.
type rig struct {
	*harness.Cluster
	client *http.Client

	mu       sync.Mutex
	latency  *hdrhistogram.Histogram
	received int
	window   chan struct{} // a token for each event of the closed loop under way
}

// startRig starts a cluster of one filter with the Trigger that is measured, for events of type steady, and others.
func startRig(b *testing.B, others string) *rig {
	b.Helper()
	r := &rig{
		client:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}},
		latency: newHistogram(), window: make(chan struct{}, closedWindow),
	}
	b.Cleanup(r.client.CloseIdleConnections)
	measuring := httptest.NewServer(http.HandlerFunc(r.receive))
	b.Cleanup(measuring.Close)
	file := filepath.Join(b.TempDir(), "manifests.yaml")
	harness.WriteFile(b, file, "apiVersion: eventing.knative.dev/v1\nkind: Broker\n"+
		"metadata: {name: b, annotations: {millrace.dev/max-bytes: 4Gi}}\n"+
		benchTrigger("measured", measuring.URL, "  filter: {attributes: {type: steady}}\n")+others)
	r.Cluster = harness.NewCluster(b, programs.Dir(b), file)
	r.StartAll(b, 1)
	return r
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1_000, int64(10*time.Minute), 3)
}

// receive is the subscriber. Of the open loop's events the id is the time when they were due to be sent, in nanoseconds.
func (r *rig) receive(_ http.ResponseWriter, req *http.Request) {
	now := time.Now().UnixNano()
	_, _ = io.Copy(io.Discard, req.Body)
	due, open := strings.CutPrefix(req.Header.Get("ce-id"), "open-")
	if !open {
		<-r.window
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received++
	if open {
		n, _ := strconv.ParseInt(due, 10, 64)
		_ = r.latency.RecordValue(min(max(now-n, 1_000), r.latency.HighestTrackableValue()))
	}
}

func (r *rig) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.received
}

// openLoop sends events at the given rate and returns the rate at which they arrived and how long each took.
func (r *rig) openLoop(b *testing.B, perSecond int, duration time.Duration) (rate float64, latency *hdrhistogram.Histogram) {
	b.Helper()
	r.mu.Lock()
	r.latency, r.received = newHistogram(), 0
	r.mu.Unlock()
	total := perSecond * int(duration/time.Second)
	due := make(chan time.Time, total)
	var senders sync.WaitGroup
	for range connections {
		senders.Go(func() {
			for at := range due {
				r.send(b, "open-"+strconv.FormatInt(at.UnixNano(), 10))
			}
		})
	}
	start := time.Now()
	for n := range total {
		at := start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	senders.Wait()
	r.waitFor(b, total)
	rate = float64(total) / time.Since(start).Seconds()
	r.mu.Lock()
	defer r.mu.Unlock()
	return rate, r.latency
}

// closedLoop keeps the window full and returns the rate at which events arrived.
func (r *rig) closedLoop(b *testing.B, duration time.Duration) float64 {
	b.Helper()
	r.mu.Lock()
	r.received = 0
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(b.Context(), duration)
	defer cancel()
	start := time.Now()
	var senders sync.WaitGroup
	for range closedWindow {
		senders.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				select {
				case r.window <- struct{}{}:
					r.send(b, "closed") // what is sent is to arrive
				case <-ctx.Done():
				}
			}
		})
	}
	senders.Wait()
	rate := float64(r.count()) / time.Since(start).Seconds()
	harness.Eventually(b, "the window empties", func() error {
		if n := len(r.window); n > 0 {
			return fmt.Errorf("%d under way", n)
		}
		return nil
	})
	return rate
}

func (r *rig) waitFor(b *testing.B, total int) {
	b.Helper()
	harness.Eventually(b, "all events arrive", func() error {
		if n := r.count(); n < total {
			return fmt.Errorf("%d of %d", n, total)
		}
		return nil
	})
}

// send posts an event of 1 KiB that must be accepted.
func (r *rig) send(b *testing.B, id string) {
	if err := postOne(r.client, eventRequest(r.URL("b"), id, "steady")); err != nil {
		b.Error(err)
	}
}
