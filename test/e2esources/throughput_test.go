package e2esources

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/test/harness"
)

// rounds are how often a source and a bare loop go in turns, after some that are not counted: in these the servers get warm.
const warmups, rounds = 2, 5

// arena is where a source and a bare loop move the same number of messages to JetStream. The messages of both have the same headers and
// ids, in streams with the same settings, since what the store does for a message depends on these more than on its data.
type arena struct {
	*harness.Cluster
	js      jetstream.JetStream
	count   int
	events  string // the stream of the Broker
	profile func(name, url string)
	pattern nats.Header // of a message that the source has stored
}

// newArena starts the store. With MILLRACE_PROFILES set to a folder, CPU profiles of the source and of nats-server while either works are
// written there.
func newArena(b *testing.B, manifest string, count int) *arena {
	b.Helper()
	file := filepath.Join(b.TempDir(), "bench.yaml")
	harness.WriteFile(b, file, manifest)
	a := &arena{Cluster: harness.NewCluster(b, programs.Dir(b), file), count: count, events: harness.BrokerNames(b, file, "b").Events}
	a.profile = profiles(b, a.Cluster)
	a.StartNATS(b)
	a.js = connect(b, a.Cluster)
	return a
}

// compare has prepare provide each round with messages, and reports how many of them a second the source and the bare loop move. They take
// turns in going first. ratio is the median of the rounds' ratios.
func (a *arena) compare(b *testing.B, prepare func(round int), bare func() float64) {
	b.Helper()
	var sources, bares, ratios []float64
	for round := range warmups + rounds {
		prepare(round)
		var source, loop float64
		var cpu time.Duration
		if round%2 == 0 {
			source, cpu = a.runSource(b)
		}
		loop = a.runBare(b, bare)
		if round%2 == 1 {
			source, cpu = a.runSource(b)
		}
		b.Logf("round %d: source %.0f/s with %v of processor time, bare loop %.0f/s, ratio %.2f", round, source, cpu, loop, source/loop)
		if round >= warmups {
			sources, bares, ratios = append(sources, source), append(bares, loop), append(ratios, source/loop)
		}
	}
	b.ReportMetric(median(bares), "bare/s")
	b.ReportMetric(median(sources), "source/s")
	b.ReportMetric(median(ratios), "ratio")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// runSource returns how many messages a second a source stores, from the first one on, and the processor time of its process. It empties
// the stream.
func (a *arena) runSource(b *testing.B) (rate float64, cpu time.Duration) {
	b.Helper()
	p := a.StartSource(b)
	stored := func() int {
		s, err := a.js.Stream(b.Context(), a.events)
		if err != nil {
			return 0
		}
		return int(s.CachedInfo().State.Msgs)
	}
	harness.Reach(b, "a message is stored", 1, stored)
	a.profile("source", p.Admin)
	a.profile("nats-source", "")
	before, start := stored(), time.Now()
	harness.Reach(b, "all messages are stored", a.count, stored)
	took := time.Since(start)
	cpu = p.CPU(b)
	p.Stop(b) // so that nothing is left to be read again
	s, err := a.js.Stream(b.Context(), a.events)
	if err != nil {
		b.Fatal(err)
	}
	first, err := s.GetMsg(b.Context(), s.CachedInfo().State.FirstSeq)
	if err != nil {
		b.Fatal(err)
	}
	a.pattern = first.Header
	if err := s.Purge(b.Context()); err != nil {
		b.Fatal(err)
	}
	return float64(a.count-before) / took.Seconds(), cpu
}

// runBare runs a loop with a stream named bare, which is as that of the Broker.
func (a *arena) runBare(b *testing.B, loop func() float64) float64 {
	b.Helper()
	like, err := a.js.Stream(b.Context(), a.events)
	if err != nil {
		b.Fatal(err)
	}
	settings := like.CachedInfo().Config
	settings.Name, settings.Subjects, settings.Metadata = "bare", []string{"bare"}, nil
	if _, err := a.js.CreateStream(b.Context(), settings); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = a.js.DeleteStream(b.Context(), "bare") }()
	a.profile("nats-bare", "")
	return loop()
}

// message returns one to publish, after the pattern of one that the source has stored, with the id and the headers that tell it from others.
func (a *arena) message(data []byte, id string, headers map[string]string) *nats.Msg {
	msg := &nats.Msg{Subject: "bare", Data: data, Header: make(nats.Header, len(a.pattern))}
	maps.Copy(msg.Header, a.pattern)
	for name, value := range headers {
		msg.Header[name] = []string{value}
	}
	const uid = 36 // characters of the source's
	msg.Header[nats.MsgIdHdr] = []string{a.pattern.Get(nats.MsgIdHdr)[:uid] + "/" + id}
	return msg
}

// BenchmarkKafka moves records of 512 bytes from Kafka to JetStream: by a source, and by a bare loop that publishes the same messages as
// fast as the store confirms them. What the source does beside is in the ratio: it makes and checks events, keeps order whatever fails, and
// commits offsets.
//
// E2E_RECORDS says how many records.
func BenchmarkKafka(b *testing.B) {
	k := StartKafka(b)
	k.Create(b, "ledger", partitions)
	manifest := fmt.Sprintf(ledgerManifest, k.Plain)
	a := newArena(b, manifest, records())
	fill(b, k, a.count)
	for b.Loop() {
		a.compare(b, func(round int) {
			// Another source, for the group of the last has read everything.
			text := strings.Replace(manifest, "name: ledger}", fmt.Sprintf("name: ledger%d}", round), 1)
			harness.WriteFile(b, a.Manifests, text)
		}, func() float64 { return bareLoop(b, k, a) })
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

// bareLoop returns how many records a second are published by a loop that does nothing else.
func bareLoop(b *testing.B, k *Kafka, a *arena) float64 {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Plain), kgo.ConsumeTopics("ledger"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	start := time.Now()
	for n := 0; n < a.count; {
		for _, r := range client.PollRecords(b.Context(), 5000).Records() {
			n++
			if _, err := a.js.PublishMsgAsync(bareMessage(a, r), jetstream.WithStallWait(time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
	}
	<-a.js.PublishAsyncComplete()
	return float64(a.count) / time.Since(start).Seconds()
}

func bareMessage(a *arena, r *kgo.Record) *nats.Msg {
	partition, offset := strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)
	return a.message(r.Value, "ledger/"+partition+"/"+offset+"/"+strconv.FormatInt(r.Timestamp.UnixMilli(), 36), map[string]string{
		"ce-id":                    "partition:" + partition + "/offset:" + offset,
		"ce-subject":               "partition:" + partition + "#" + offset,
		"ce-time":                  r.Timestamp.UTC().Format(time.RFC3339Nano),
		"ce-knativekafkapartition": partition,
		"ce-knativekafkaoffset":    offset,
	})
}
