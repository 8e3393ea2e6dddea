package e2esources

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

// BenchmarkKafka moves records of 512 bytes from Kafka to JetStream: by a source, and by a bare loop that only publishes
// what it polls, without an event, an order or an offset. ratio is the first by the second.
func BenchmarkKafka(b *testing.B) {
	const count = 300_000
	k := StartKafka(b)
	k.Create(b, "ledger", partitions)
	fill(b, k, count)
	manifest := filepath.Join(b.TempDir(), "ledger.yaml")
	harness.WriteFile(b, manifest, fmt.Sprintf(ledgerManifest, k.Plain))
	c := harness.NewCluster(b, programs.Dir(b), manifest)
	c.StartNATS(b)
	js := connect(b, c)

	for b.Loop() {
		bare := bareLoop(b, k, js, count)
		source := sourceRun(b, c, js, count)
		b.ReportMetric(bare, "bare/s")
		b.ReportMetric(source, "source/s")
		b.ReportMetric(source/bare, "ratio")
	}
}

func fill(b *testing.B, k *Kafka, count int) {
	client := k.Client(b)
	for n := range count {
		value := make([]byte, 512) // what cannot be compressed
		_, _ = rand.Read(value)
		client.Produce(b.Context(), &kgo.Record{Topic: "ledger", Partition: int32(n % partitions), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func connect(b *testing.B, c *harness.Cluster) jetstream.JetStream {
	var nc *nats.Conn
	harness.Eventually(b, "NATS answers", func() (err error) {
		nc, err = nats.Connect(c.NATSURL())
		return err
	})
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	return js
}

// bareLoop returns how many records a second are published by a loop that does nothing else.
func bareLoop(b *testing.B, k *Kafka, js jetstream.JetStream, count int) float64 {
	stream := jetstream.StreamConfig{Name: "bare", Subjects: []string{"bare"}, Retention: jetstream.WorkQueuePolicy}
	if _, err := js.CreateStream(b.Context(), stream); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = js.DeleteStream(b.Context(), "bare") }()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Plain), kgo.ConsumeTopics("ledger"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	start := time.Now()
	for n := 0; n < count; {
		for _, r := range client.PollRecords(b.Context(), 5000).Records() {
			n++
			if _, err := js.PublishAsync("bare", r.Value); err != nil {
				b.Fatal(err)
			}
		}
	}
	<-js.PublishAsyncComplete()
	return float64(count) / time.Since(start).Seconds()
}

// sourceRun returns how many records a second a source stores, from the first one on.
func sourceRun(b *testing.B, c *harness.Cluster, js jetstream.JetStream, count int) float64 {
	name := harness.BrokerNames(b, c.Manifests, "b").Events
	p := c.StartSource(b)
	stored := func() uint64 {
		s, err := js.Stream(b.Context(), name)
		if err != nil {
			return 0
		}
		return s.CachedInfo().State.Msgs
	}
	harness.Eventually(b, "a record is stored", func() error {
		if stored() == 0 {
			return fmt.Errorf("none is")
		}
		return nil
	})
	before, start := stored(), time.Now()
	harness.Eventually(b, "all records are stored", func() error {
		if n := stored(); n < uint64(count) {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	rate := float64(uint64(count)-before) / time.Since(start).Seconds()
	p.Kill()
	return rate
}
