package micro

import (
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/test/harness"
)

const (
	shardRounds = 3
	shardTime   = 1500 * time.Millisecond
)

// BenchmarkShards compares a Broker's events in one stream with the same in several, published to in turn and each with a
// consumer of its own. It reports messages a second that are published, consumed and acked, as ratios to one stream, with
// the default sync_interval and with `always`.
func BenchmarkShards(b *testing.B) {
	for _, sync := range []string{"default", "always"} {
		b.Run(sync, func(b *testing.B) {
			c := harness.NewCluster(b, programs.Dir(b), "")
			if sync == "always" {
				file := filepath.Join(b.TempDir(), "nats.conf")
				// The harness's flags set the folder beside what the file says.
				harness.WriteFile(b, file, "jetstream { sync_interval: always }\n")
				c.NATSFlags = []string{"-c", file}
			}
			c.StartNATS(b)
			js := connect(b, c)
			counts := []int{1, 2, 4}
			shards := map[int]*sharded{}
			for _, n := range counts {
				shards[n] = newSharded(b, js, n)
			}
			rates := map[int][]float64{}
			for b.Loop() {
				for range shardRounds {
					for _, n := range counts {
						rates[n] = append(rates[n], shards[n].run(b))
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(rates[1]), "1-messages/s")
			b.ReportMetric(median(rates[2])/median(rates[1]), "2-to-1")
			b.ReportMetric(median(rates[4])/median(rates[1]), "4-to-1")
		})
	}
}

// sharded is what a Broker would have.
type sharded struct {
	js        jetstream.JetStream
	subjects  []string
	consumers []jetstream.Consumer
}

func newSharded(b *testing.B, js jetstream.JetStream, n int) *sharded {
	b.Helper()
	s := &sharded{js: js}
	for i := range n {
		name := fmt.Sprintf("shard-%d-%d", n, i)
		st, err := js.CreateStream(b.Context(), jetstream.StreamConfig{
			Name: name, Subjects: []string{name}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: 1 << 30,
		})
		if err != nil {
			b.Fatal(err)
		}
		durable, err := st.CreateConsumer(b.Context(), jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 8192})
		if err != nil {
			b.Fatal(err)
		}
		s.subjects, s.consumers = append(s.subjects, name), append(s.consumers, durable)
	}
	return s
}

// run keeps a window of messages under way and returns how many a second are settled.
func (s *sharded) run(b *testing.B) float64 {
	b.Helper()
	window := make(chan struct{}, 4*settleWindow)
	var settled atomic.Int64
	for _, c := range s.consumers {
		consuming, err := c.Consume(func(m jetstream.Msg) {
			_ = m.Ack()
			settled.Add(1)
			<-window
		}, jetstream.PullMaxMessages(1024))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { consuming.Stop(); <-consuming.Closed() }()
	}
	start := time.Now()
	for n := 0; time.Since(start) < shardTime; n++ {
		window <- struct{}{}
		if _, err := s.js.PublishAsync(s.subjects[n%len(s.subjects)], payload); err != nil {
			b.Fatal(err)
		}
	}
	rate := float64(settled.Load()) / time.Since(start).Seconds()
	harness.Eventually(b, "all messages are settled", func() error {
		if n := len(window); n > 0 {
			return fmt.Errorf("%s are not", strconv.Itoa(n))
		}
		return nil
	})
	return rate
}
