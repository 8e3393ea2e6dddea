package micro

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/test/harness"
)

const (
	settleRounds = 3
	settleTime   = 2 * time.Second
	settleRate   = 1000 // events a second in the paced case
	settleWindow = 256  // events under way in the other
	gatherTime   = 10 * time.Millisecond
	purgeEvery   = 100 * time.Millisecond
)

// BenchmarkSettle compares how settled messages can leave a stream: from a work queue by an ack that is sent at once, from
// a work queue by acks that are gathered for a moment, and from a stream with limits retention by a purge that follows the
// acks. It reports the processor time of nats-server for each message, at a rate that leaves the stream empty most of the
// time and at the highest rate, publishing and consuming included.
func BenchmarkSettle(b *testing.B) {
	c := harness.NewCluster(b, programs.Dir(b), "")
	c.StartNATS(b)
	js := connect(b, c)
	var settlers []*settler
	for _, way := range []string{"at-once", "gathered", "purged"} {
		settlers = append(settlers, newSettler(b, c, js, way))
	}
	for b.Loop() {
		for round := range 2 * settleRounds {
			for _, s := range settlers {
				s.run(b, round%2 == 0)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, s := range settlers {
		b.ReportMetric(median(s.paced), s.way+"-paced-server-µs")
		b.ReportMetric(median(s.full), s.way+"-full-server-µs")
		b.ReportMetric(median(s.rates), s.way+"-full-messages/s")
	}
}

// connect returns a JetStream client of the cluster, once the server answers.
func connect(b *testing.B, c *harness.Cluster) jetstream.JetStream {
	b.Helper()
	var nc *nats.Conn
	harness.Eventually(b, "the server answers", func() (err error) {
		nc, err = nats.Connect(c.NATSURL())
		return err
	})
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<14))
	if err != nil {
		b.Fatal(err)
	}
	return js
}

// settler has a stream and a consumer of its own.
type settler struct {
	way     string
	cluster *harness.Cluster
	js      jetstream.JetStream
	stream  jetstream.Stream
	durable jetstream.Consumer

	paced, full, rates []float64

	window chan struct{}
	mu     sync.Mutex
	held   []jetstream.Msg
}

func newSettler(b *testing.B, c *harness.Cluster, js jetstream.JetStream, way string) *settler {
	b.Helper()
	s := &settler{way: way, cluster: c, js: js, window: make(chan struct{}, settleWindow)}
	config := jetstream.StreamConfig{Name: way, Subjects: []string{way}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: 1 << 30}
	if way == "purged" {
		config.Retention = jetstream.LimitsPolicy
	}
	var err error
	if s.stream, err = js.CreateStream(b.Context(), config); err == nil {
		s.durable, err = s.stream.CreateConsumer(b.Context(), jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 8192})
	}
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// run publishes and settles for a while, and records what that cost the server.
func (s *settler) run(b *testing.B, paced bool) {
	b.Helper()
	consuming, err := s.durable.Consume(s.settle, jetstream.PullMaxMessages(1024))
	if err != nil {
		b.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go s.follow(b, stop, stopped)
	before, start := s.cluster.NATS.CPU(b), time.Now()
	n := s.publish(b, start, paced)
	for range settleWindow { // all settled
		s.window <- struct{}{}
	}
	took := time.Since(start)
	used := float64((s.cluster.NATS.CPU(b) - before).Microseconds()) / float64(n)
	for range settleWindow {
		<-s.window
	}
	consuming.Stop()
	<-consuming.Closed()
	close(stop)
	<-stopped
	if paced {
		s.paced = append(s.paced, used)
	} else {
		s.full = append(s.full, used)
		s.rates = append(s.rates, float64(n)/took.Seconds())
	}
	b.Logf("%-9s paced %-5t %6.0f/s, server %4.0f µs each", s.way, paced, float64(n)/took.Seconds(), used)
}

func (s *settler) publish(b *testing.B, start time.Time, paced bool) (n int) {
	b.Helper()
	for ; time.Since(start) < settleTime; n++ {
		if paced {
			time.Sleep(time.Until(start.Add(time.Duration(n) * time.Second / settleRate)))
		}
		s.window <- struct{}{}
		if _, err := s.js.PublishAsync(s.way, payload); err != nil {
			b.Fatal(err)
		}
	}
	return n
}

// settle takes a message.
func (s *settler) settle(m jetstream.Msg) {
	if s.way == "gathered" {
		s.mu.Lock()
		s.held = append(s.held, m)
		s.mu.Unlock()
	} else {
		_ = m.Ack()
	}
	<-s.window
}

// follow does what is to be done now and then, until stop is closed and once more after that.
func (s *settler) follow(b *testing.B, stop, stopped chan struct{}) {
	defer close(stopped)
	every := map[string]time.Duration{"gathered": gatherTime, "purged": purgeEvery}[s.way]
	if every == 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-stop:
			last = true
		}
		if err := s.catchUp(b); err != nil {
			b.Error(err)
			return
		}
	}
}

// catchUp sends the acks that are held, or removes what has been acked.
func (s *settler) catchUp(b *testing.B) error {
	s.mu.Lock()
	held := s.held
	s.held = nil
	s.mu.Unlock()
	for _, m := range held {
		_ = m.Ack()
	}
	if s.way != "purged" {
		return nil
	}
	info, err := s.durable.Info(b.Context())
	if err == nil && info.AckFloor.Stream > 0 {
		err = s.stream.Purge(b.Context(), jetstream.WithPurgeSequence(info.AckFloor.Stream+1))
	}
	if err != nil {
		return fmt.Errorf("follow the acks: %w", err)
	}
	return nil
}
