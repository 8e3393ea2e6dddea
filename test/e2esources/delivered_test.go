package e2esources

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

const deliveredManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {millrace.dev/max-bytes: 4Gi}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: b
  subscriber: {uri: "%[2]s/all"}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: tenth}
spec:
  broker: b
  filters: [{cel: "data.n %% 10 == 3"}]
  subscriber: {uri: "%[2]s/tenth"}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: deep}
spec:
  broker: b
  filters: [{cel: "data.order.region == 'eu' && ce.type == 'dev.knative.kafka.event'"}]
  subscriber: {uri: "%[2]s/deep"}
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: ledger}
spec:
  bootstrapServers: ["%[1]s"]
  topics: [ledger]
  initialOffset: earliest
  sink:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}
`

// audience is the subscribers of all Triggers: it notes the numbers that each gets.
type audience struct {
	*httptest.Server
	down atomic.Bool // answers 503

	mu       sync.Mutex
	got      map[string]map[int]int // by path: how often each number came
	unread   int                    // requests without a number
	refusals int
}

func newAudience(t *testing.T) *audience {
	a := &audience{got: map[string]map[int]int{"/all": {}, "/tenth": {}, "/deep": {}}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

// ServeHTTP implements [http.Handler].
func (a *audience) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var record struct{ N *int }
	err := json.NewDecoder(r.Body).Decode(&record)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.down.Load():
		a.refusals++
		w.WriteHeader(http.StatusServiceUnavailable)
	case err != nil || record.N == nil || a.got[r.URL.Path] == nil:
		a.unread++
	default:
		a.got[r.URL.Path][*record.N]++
	}
}

func (a *audience) count(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.got[path])
}

// region of the record with the number n.
func region(n int) string { return []string{"eu", "us", "ap"}[n%3] }

// TestDelivered has every record reach each subscriber whose Trigger matches its data, and no other, although the subscribers are down
// for a while and the source, NATS and Kafka are killed.
func TestDelivered(t *testing.T) {
	t.Parallel()
	// CEL and HTTP cost more than the stream alone, which TestLedger looks at.
	total := records() / 10
	k := StartKafka(t)
	k.Create(t, "ledger", partitions)
	subscribers := newAudience(t)
	manifest := filepath.Join(t.TempDir(), "delivered.yaml")
	harness.WriteFile(t, manifest, fmt.Sprintf(deliveredManifest, k.Plain, subscribers.URL))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	c.StartFilter(t)
	source := c.StartSource(t)
	harness.WaitReady(t, source.Admin+"/readyz")

	var writing sync.WaitGroup
	writing.Go(func() { writeNumbers(t, k.Client(t), total) })
	reach := func(part, of int) {
		what := fmt.Sprintf("%d/%d of the records are delivered", part, of)
		harness.Reach(t, what, total*part/of, func() int { return subscribers.count("/all") })
	}
	reach(1, 8)
	source.Kill()
	source = c.StartSource(t)
	reach(2, 8)
	subscribers.down.Store(true)
	time.Sleep(downFor())
	subscribers.down.Store(false)
	reach(3, 8)
	c.NATS.Kill()
	c.StartNATS(t)
	reach(4, 8)
	k.Kill()
	k.Start(t)
	reach(5, 8)
	source.Signal(t, os.Interrupt)
	c.StartSource(t)
	writing.Wait()
	reach(8, 8)

	want := map[string]func(n int) bool{
		"/all":   func(int) bool { return true },
		"/tenth": func(n int) bool { return n%10 == 3 },
		"/deep":  func(n int) bool { return region(n) == "eu" },
	}
	for path, matches := range want {
		harness.Reach(t, "all records are delivered to "+path, expected(total, matches), func() int { return subscribers.count(path) })
		lost, strange, again := subscribers.verdict(path, total, matches)
		t.Logf("%s: %d lost, %d that do not match, %d delivered again", path, lost, strange, again)
		if lost+strange > 0 {
			t.Errorf("%s: want each record that matches, and no other", path)
		}
	}
	if subscribers.unread > 0 || subscribers.refusals == 0 {
		t.Errorf("%d requests made no sense, %d were refused while the subscribers were down", subscribers.unread, subscribers.refusals)
	}
}

// downFor is how long the subscribers are down: a minute for the full number of records.
func downFor() time.Duration {
	if records() >= 200_000 {
		return time.Minute
	}
	return 5 * time.Second
}

// expected is how many of the numbers match.
func expected(total int, matches func(n int) bool) (count int) {
	for n := range total {
		if matches(n) {
			count++
		}
	}
	return count
}

func (a *audience) verdict(path string, total int, matches func(n int) bool) (lost, strange, again int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range total {
		times := a.got[path][n]
		switch {
		case !matches(n):
			strange += times
		case times == 0:
			lost++
		default:
			again += times - 1
		}
	}
	return lost, strange, again
}

// writeNumbers writes records evenly over the partitions, a part of them at a time, for as long as a third of writeFor.
func writeNumbers(t *testing.T, client *kgo.Client, total int) {
	start := time.Now()
	for n := range total {
		if n%100 == 0 {
			time.Sleep(time.Until(start.Add(time.Duration(n) * (writeFor / 3) / time.Duration(total))))
		}
		value := fmt.Appendf(nil, `{"n":%d,"order":{"region":"%s"}}`, n, region(n))
		r := &kgo.Record{Topic: "ledger", Partition: int32(n % partitions), Value: value}
		client.Produce(context.WithoutCancel(t.Context()), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("write record %d: %v", n, err)
			}
		})
	}
	if err := client.Flush(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}
