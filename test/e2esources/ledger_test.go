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

	var written atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() { write(t, k.Client(t), &written) })

	step := writeFor / 10
	time.Sleep(step)
	second := c.StartSource(t)
	time.Sleep(step)
	first.Kill() // its partitions go to the second only when the session is over
	first = c.StartSource(t)
	time.Sleep(step)
	second.Kill()
	second = c.StartSource(t)
	time.Sleep(step)
	c.NATS.Kill()
	time.Sleep(step / 2)
	c.StartNATS(t)
	time.Sleep(step)
	k.Kill()
	time.Sleep(step / 2)
	k.Start(t)
	time.Sleep(step)
	first.Signal(t, os.Interrupt)
	writing.Wait()
	_ = second

	verify(t, c, int(written.Load()))
}

// write writes records evenly to all partitions, each with its number in the partition, and counts what Kafka confirmed.
func write(t *testing.T, client *kgo.Client, written *atomic.Int64) {
	total := records()
	start := time.Now()
	for n := range total {
		if n%100 == 0 {
			time.Sleep(time.Until(start.Add(time.Duration(n) * writeFor / time.Duration(total))))
		}
		r := &kgo.Record{Topic: "ledger", Partition: int32(n % partitions), Value: fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, n/partitions, strings.Repeat("x", 480))}
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

// verify reads the stream and holds it to having each record once and in order.
func verify(t *testing.T, c *harness.Cluster, want int) {
	t.Helper()
	conn, err := stream.Dial(stream.ConnOptions{URL: c.NATSURL(), Name: "ledger", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b := newBook()
	names := harness.BrokerNames(t, c.Manifests, "b")
	consumption, err := conn.Consume(t.Context(), stream.ConsumeOptions{Stream: names.Events}, func(d *stream.Delivery) {
		b.enter(d.Event, d.Deliveries() > 1)
		d.Ack()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumption.Stop(context.Background()) }()
	harness.Eventually(t, "all records are in the stream", func() error {
		if got := b.count(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
	lost, twice, late := b.verdict(want)
	t.Logf("%d records: %d lost, %d stored twice, %d out of order", want, lost, twice, late)
	if lost+twice+late > 0 {
		t.Errorf("want each record once and in order")
	}
}

// book keeps what was stored of each partition.
type book struct {
	mu          sync.Mutex
	seen        map[string]bool
	last        map[string]int64
	twice, late int
}

func newBook() *book { return &book{seen: map[string]bool{}, last: map[string]int64{}} }

func (b *book) enter(e *event.Event, again bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id, partition := e.Value(event.ID), e.Value("knativekafkapartition")
	if b.seen[id] {
		if !again { // the consumer may hand out a message a second time
			b.twice++
		}
		return
	}
	b.seen[id] = true
	offset, _ := strconv.ParseInt(e.Value("knativekafkaoffset"), 10, 64)
	if last, ok := b.last[partition]; ok && offset < last {
		b.late++
	}
	b.last[partition] = offset
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
