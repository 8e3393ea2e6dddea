package e2esources

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

// BenchmarkKafka moves records of 512 bytes from Kafka to JetStream: by a source, and by a bare loop that publishes the same
// messages as fast as the store confirms them. ratio is the first by the second. The messages of both have the same headers and ids,
// in streams with the same settings, since what the store does for a message depends on these more than on its data. What the
// source does beside is in the ratio: it makes and checks events, keeps order whatever fails, and commits offsets.
//
// E2E_RECORDS says how many records. With MILLRACE_PROFILES set to a folder, CPU profiles of the source and of nats-server while either works are written there.
func BenchmarkKafka(b *testing.B) {
	count := records()
	k := StartKafka(b)
	k.Create(b, "ledger", partitions)
	fill(b, k, count)
	manifest := filepath.Join(b.TempDir(), "ledger.yaml")
	harness.WriteFile(b, manifest, fmt.Sprintf(ledgerManifest, k.Plain)) // for the names of the Broker
	c := harness.NewCluster(b, programs.Dir(b), manifest)
	profile := profiles(b, c)
	c.StartNATS(b)
	js := connect(b, c)

	for round := 0; b.Loop(); round++ {
		// Another source, for the group of the last has read everything.
		text := strings.Replace(ledgerManifest, "name: ledger}", fmt.Sprintf("name: ledger%d}", round), 1)
		harness.WriteFile(b, manifest, fmt.Sprintf(text, k.Plain))
		source := sourceRun(b, c, js, count, profile)
		bare := bareLoop(b, k, js, c, count, profile)
		b.Logf("source %.0f/s, bare loop %.0f/s, ratio %.2f", source, bare, source/bare)
		b.ReportMetric(bare, "bare/s")
		b.ReportMetric(source, "source/s")
		b.ReportMetric(source/bare, "ratio")
	}
}

// profiles has the programs of c serve profiles, if they are asked for, and returns what saves that at a URL. It returns at once, and has
// the benchmark wait in the end.
func profiles(b *testing.B, c *harness.Cluster) func(name, url string) {
	dir := os.Getenv("MILLRACE_PROFILES")
	if dir == "" {
		return func(string, string) {}
	}
	port := harness.FreePort(b)
	c.NATSFlags, c.Flags = []string{"--profile", strconv.Itoa(port)}, []string{"--profiles"}
	return func(name, base string) {
		if base == "" {
			base = fmt.Sprintf("http://127.0.0.1:%d", port)
		}
		go func() {
			file, err := os.Create(filepath.Join(dir, name+".pprof"))
			if err != nil {
				b.Error(err)
				return
			}
			defer file.Close()
			resp, err := http.Get(base + "/debug/pprof/profile?seconds=3")
			if err != nil {
				b.Error(err)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(file, resp.Body)
		}()
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

// bareLoop returns how many records a second are published by a loop that does nothing else. Its messages are made after the pattern of
// one that the source has stored.
func bareLoop(b *testing.B, k *Kafka, js jetstream.JetStream, c *harness.Cluster, count int, profile func(name, url string)) float64 {
	stored, err := js.Stream(b.Context(), harness.BrokerNames(b, c.Manifests, "b").Events)
	if err != nil {
		b.Fatal(err)
	}
	first, err := stored.GetMsg(b.Context(), stored.CachedInfo().State.FirstSeq)
	if err != nil {
		b.Fatal(err)
	}
	if err := stored.Purge(b.Context()); err != nil {
		b.Fatal(err)
	}
	settings := stored.CachedInfo().Config
	settings.Name, settings.Subjects, settings.Metadata = "bare", []string{"bare"}, nil
	if _, err := js.CreateStream(b.Context(), settings); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = js.DeleteStream(b.Context(), "bare") }()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Plain), kgo.ConsumeTopics("ledger"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	profile("nats-bare", "")
	start := time.Now()
	for n := 0; n < count; {
		for _, r := range client.PollRecords(b.Context(), 5000).Records() {
			n++
			if _, err := js.PublishMsgAsync(bareMessage(first.Header, r), jetstream.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
	}
	<-js.PublishAsyncComplete()
	return float64(count) / time.Since(start).Seconds()
}

// bareMessage is the message of a record, with what tells it from the others put into the pattern.
func bareMessage(pattern nats.Header, r *kgo.Record) *nats.Msg {
	partition, offset := strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)
	msg := &nats.Msg{Subject: "bare", Data: r.Value, Header: make(nats.Header, len(pattern))}
	maps.Copy(msg.Header, pattern)
	msg.Header["ce-id"] = []string{"partition:" + partition + "/offset:" + offset}
	msg.Header["ce-subject"] = []string{"partition:" + partition + "#" + offset}
	msg.Header["ce-time"] = []string{r.Timestamp.UTC().Format(time.RFC3339Nano)}
	msg.Header["ce-knativekafkapartition"] = []string{partition}
	msg.Header["ce-knativekafkaoffset"] = []string{offset}
	msg.Header[nats.MsgIdHdr] = []string{pattern.Get(nats.MsgIdHdr)[:36] + "/ledger/" + partition + "/" + offset + "/" + strconv.FormatInt(r.Timestamp.UnixMilli(), 36)}
	return msg
}

// sourceRun returns how many records a second a source stores, from the first one on.
func sourceRun(b *testing.B, c *harness.Cluster, js jetstream.JetStream, count int, profile func(name, url string)) float64 {
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
	profile("source", p.Admin)
	profile("nats-source", "")
	before, start := stored(), time.Now()
	harness.Eventually(b, "all records are stored", func() error {
		if n := stored(); n < uint64(count) {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	took := time.Since(start)
	b.Logf("source: %v of processor time", p.CPU(b))
	p.Kill()
	return float64(uint64(count)-before) / took.Seconds()
}
