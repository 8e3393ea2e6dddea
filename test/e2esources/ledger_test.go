package e2esources

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

const (
	partitions = 4
	// records are written in all, over writeFor.
	writeFor = 40 * time.Second
)

func records() int {
	if n, err := strconv.Atoi(os.Getenv("E2E_RECORDS")); err == nil {
		return n
	}
	return 200_000
}

const ledgerManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {millrace.dev/max-bytes: 4Gi}}
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: ledger}
spec:
  bootstrapServers: ["%s"]
  topics: [ledger]
  initialOffset: earliest
  sink:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}
`

var programs harness.Programs

func TestMain(m *testing.M) {
	code := m.Run()
	programs.Remove()
	os.Exit(code)
}

// TestLedger reads what is in the Broker's stream in the end: every record once and, within its partition, in order,
// although the processes that read Kafka are killed, one is added and taken away, and Kafka and NATS are killed too.
func TestLedger(t *testing.T) {
	t.Parallel()
	k := StartKafka(t)
	k.Create(t, "ledger", partitions)
	manifest := filepath.Join(t.TempDir(), "ledger.yaml")
	harness.WriteFile(t, manifest, fmt.Sprintf(ledgerManifest, k.Plain))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	first := c.StartSource(t)
	harness.WaitReady(t, first.Admin+"/readyz")

	p := startPulse(t, c)
	p.mark("records are written")
	var written atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() { write(t, k.Client(t), records(), &written) })

	step := writeFor / 10
	time.Sleep(step)
	second := c.StartSource(t)
	p.mark("a second source is started")
	time.Sleep(step)
	first.Kill() // its partitions go to the second only when the session is over
	first = c.StartSource(t)
	p.mark("the first source is killed and started")
	time.Sleep(step)
	second.Kill()
	c.StartSource(t)
	p.mark("the second source is killed and started")
	time.Sleep(step)
	c.NATS.Kill()
	p.mark("NATS is killed")
	time.Sleep(step / 2)
	c.StartNATS(t)
	p.mark("NATS is started")
	time.Sleep(step)
	k.Kill()
	p.mark("Kafka is killed")
	time.Sleep(step / 2)
	k.Start(t)
	p.mark("Kafka answers again")
	time.Sleep(step)
	first.Signal(t, os.Interrupt)
	p.mark("the first source is told to end")
	writing.Wait()
	p.mark("all records are written")

	verify(t, c, int(written.Load()), func(e *event.Event) string { return e.Value("knativekafkapartition") })
	p.mark("all records are read")
}

// write writes records evenly to all partitions, each with its number in the partition and one of a hundred keys, and counts what Kafka
// confirmed.
func write(t *testing.T, client *kgo.Client, total int, written *atomic.Int64) {
	t.Helper()
	start := time.Now()
	for n := range total {
		if n%100 == 0 {
			time.Sleep(time.Until(start.Add(time.Duration(n) * writeFor / time.Duration(total))))
		}
		r := &kgo.Record{Topic: "ledger", Partition: int32(n % partitions), Key: fmt.Appendf(nil, "k%d", n%100)}
		r.Value = fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, n/partitions, strings.Repeat("x", 480))
		client.Produce(context.WithoutCancel(t.Context()), r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("write record %d: %v", n, err)
				return
			}
			written.Add(1)
		})
	}
	if err := client.Flush(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// verify reads the stream and holds it to having each record once and in order. lane says among which events of a source there is an order.
func verify(t *testing.T, c *harness.Cluster, want int, lane func(*event.Event) string) {
	t.Helper()
	b := newBook(lane)
	defer follow(t, c, b.enter)()
	harness.Reach(t, "all records are in the stream", want, b.count)
	lost, twice, late := b.verdict(want)
	t.Logf("%d records: %d lost, %d stored twice, %d out of order", want, lost, twice, late)
	if lost+twice+late > 0 {
		t.Errorf("want each record once and in order")
	}
}

// follow has all entered that is and comes in the Broker's stream, until stop is called. again says that it may have been entered before.
func follow(t *testing.T, c *harness.Cluster, enter func(e *event.Event, again bool)) (stop func()) {
	t.Helper()
	conn, err := stream.Dial(stream.ConnOptions{URL: c.NATSURL(), Name: "ledger", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	names := harness.BrokerNames(t, c.Manifests, "b")
	consumption, err := conn.Consume(t.Context(), stream.ConsumeOptions{Stream: names.Events}, func(d *stream.Delivery) {
		enter(d.Event, d.Deliveries() > 1)
		d.Ack()
	})
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = consumption.Stop(context.Background()) }
}

// book keeps what was stored of each lane.
type book struct {
	lane        func(*event.Event) string
	mu          sync.Mutex
	seen        map[string]bool
	last        map[string]int64
	twice, late int
}

func newBook(lane func(*event.Event) string) *book {
	return &book{lane: lane, seen: map[string]bool{}, last: map[string]int64{}}
}

func (b *book) enter(e *event.Event, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	source := e.Value(event.Source)
	id, lane := source+" "+e.Value(event.ID), source+" "+b.lane(e)
	if b.seen[id] {
		if !again { // the consumer may hand out a message a second time
			b.twice++
		}
		return
	}
	b.seen[id] = true
	offset, _ := strconv.ParseInt(e.Value("knativekafkaoffset"), 10, 64)
	if last, ok := b.last[lane]; ok && offset < last {
		b.late++
	}
	b.last[lane] = offset
}

func (b *book) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

func (b *book) verdict(want int) (lost, twice, late int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return want - len(b.seen), b.twice, b.late
}
