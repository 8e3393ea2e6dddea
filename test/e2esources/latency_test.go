package e2esources

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// BenchmarkKafkaLatency writes 1,000 records a second and takes the time from there until a consumer of the Broker's stream has the event, and until
// a bare Kafka client has the record. added is the median of the difference, which is what a source and the store cost. What the first
// seconds take, in which the servers get warm, is not counted.
func BenchmarkKafkaLatency(b *testing.B) {
	const rate, count, warmup = 1000, 30_000, 15_000
	k := StartKafka(b)
	k.Create(b, "ledger", partitions)
	manifest := filepath.Join(b.TempDir(), "ledger.yaml")
	harness.WriteFile(b, manifest, fmt.Sprintf(ledgerManifest, k.Plain))
	c := harness.NewCluster(b, programs.Dir(b), manifest)
	c.StartNATS(b)
	source := c.StartSource(b)
	harness.WaitReady(b, source.Admin+"/readyz")
	conn, err := stream.Dial(stream.ConnOptions{URL: c.NATSURL(), Name: "latency", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	bare, err := kgo.NewClient(kgo.SeedBrokers(k.Plain), kgo.ConsumeTopics("ledger"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()

	for b.Loop() {
		written, viaBare, viaSource := newTimes(count), newTimes(count), newTimes(count)
		consumption, err := conn.Consume(b.Context(), stream.ConsumeOptions{Stream: harness.BrokerNames(b, c.Manifests, "b").Events}, func(d *stream.Delivery) {
			viaSource.note(string(d.Event.Data))
			d.Ack()
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		go func() {
			for ctx.Err() == nil {
				for _, r := range bare.PollFetches(ctx).Records() {
					viaBare.note(string(r.Value))
				}
			}
		}()
		writer := k.Client(b, kgo.ProducerLinger(0))
		for start, n := time.Now(), 0; n < count; n++ {
			time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / rate)))
			value := strconv.Itoa(n)
			written.note(value)
			writer.Produce(b.Context(), &kgo.Record{Topic: "ledger", Partition: int32(n % partitions), Value: []byte(value)}, func(_ *kgo.Record, err error) {
				if err != nil {
					b.Error(err)
				}
			})
		}
		harness.Eventually(b, "all records are there", func() error {
			if x, y := viaBare.count(), viaSource.count(); x < count || y < count {
				return fmt.Errorf("%d and %d of %d are", x, y, count)
			}
			return nil
		})
		cancel()
		_ = consumption.Stop(context.Background())
		quantile := func(from, to *times, q float64) float64 {
			var all []time.Duration
			for n := warmup; n < count; n++ {
				all = append(all, to.at[n].Sub(from.at[n]))
			}
			slices.Sort(all)
			return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
		}
		b.ReportMetric(quantile(viaBare, viaSource, 0.5), "added-p50-ms")
		b.ReportMetric(quantile(written, viaBare, 0.5), "bare-p50-ms")
		b.ReportMetric(quantile(written, viaBare, 0.99), "bare-p99-ms")
		b.ReportMetric(quantile(written, viaSource, 0.5), "source-p50-ms")
		b.ReportMetric(quantile(written, viaSource, 0.99), "source-p99-ms")
	}
}

// times are when each of some numbers was seen first.
type times struct {
	mu   sync.Mutex
	at   []time.Time
	seen int
}

func newTimes(count int) *times { return &times{at: make([]time.Time, count)} }

func (t *times) note(number string) {
	now := time.Now()
	n, err := strconv.Atoi(number)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && n < len(t.at) && t.at[n].IsZero() {
		t.at[n] = now
		t.seen++
	}
}

func (t *times) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}
