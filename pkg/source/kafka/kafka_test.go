package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/kafka"
)

// patience bounds every wait.
const patience = 30 * time.Second

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// recorder is a Sink that keeps what it takes.
type recorder struct {
	batch int

	mu     sync.Mutex
	taken  []string // data of events
	refuse func(data string) error
}

func (r *recorder) Batch() int { return max(r.batch, 1) }

func (r *recorder) Send(_ context.Context, msgs []source.Message) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range msgs {
		if r.refuse != nil {
			if err := r.refuse(string(m.Event.Data)); err != nil {
				return i, err
			}
		}
		r.taken = append(r.taken, string(m.Event.Data))
	}
	return len(msgs), nil
}

func (r *recorder) setRefuse(refuse func(string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = refuse
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

func down(string) error {
	return &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("the sink is down")}}
}

// rig is a cluster in the process.
type rig struct {
	t       testing.TB
	cluster *kfake.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

func start(t testing.TB, opts ...kfake.Opt) *rig {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &rig{t: t, cluster: c, client: client, admin: kadm.NewClient(client)}
}

// produce writes records with the values first to last to a partition.
func (r *rig) produce(topic string, partition int32, first, last int) {
	r.t.Helper()
	var records []*kgo.Record
	for i := first; i <= last; i++ {
		records = append(records, &kgo.Record{
			Topic: topic, Partition: partition, Key: []byte("k" + strconv.Itoa(i%5)), Value: fmt.Appendf(nil, "%d/%d", partition, i),
		})
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// values are those that produce writes.
func values(partition int32, first, last int) []string {
	var all []string
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprintf("%d/%d", partition, i))
	}
	return all
}

func (r *rig) options(sink source.Sink) kafka.Options {
	return kafka.Options{
		Namespace: "default", Name: "orders", Servers: r.cluster.ListenAddrs(), Topics: []string{"orders"}, Group: "group",
		FromStart: true, Dialer: &net.Dialer{}, Drain: 2 * time.Second, CommitEvery: 50 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
		Outlet: source.NewOutlet(source.OutletOptions{
			Sink: sink, Policy: delivery.Policy{Retries: 3, BackoffDelay: 5 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler),
		}),
	}
}

// running is a source at work.
type running struct {
	*kafka.Source
	stop func()
}

// run runs a source until stop is called or the test ends.
func (r *rig) run(o kafka.Options) *running {
	r.t.Helper()
	s := kafka.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop := func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			r.t.Error("the source did not stop")
		}
	}
	r.t.Cleanup(stop)
	return &running{s, stop}
}

func (r *rig) ready(s *running) {
	r.t.Helper()
	eventually(r.t, "the source is ready", func() bool { return s.Status().Ready })
}

// committed returns the group's offset of a partition, -1 if it has none.
func (r *rig) committed(topic string, partition int32) int64 {
	r.t.Helper()
	offsets, err := r.admin.FetchOffsets(r.t.Context(), "group")
	if err != nil {
		return -1
	}
	if o, ok := offsets.Lookup(topic, partition); ok {
		return o.At
	}
	return -1
}

// of keeps the values of a partition.
func of(partition int32, all []string) []string {
	prefix := strconv.Itoa(int(partition)) + "/"
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool { return v[:len(prefix)] != prefix })
}

func TestOrderedPartitions(t *testing.T) {
	for _, batch := range []int{1, 100} {
		t.Run(fmt.Sprintf("batch of %d", batch), func(t *testing.T) {
			t.Parallel()
			r := start(t, kfake.SeedTopics(3, "orders"))
			for p := range int32(3) {
				r.produce("orders", p, 1, 500)
			}
			sink := &recorder{batch: batch}
			s := r.run(r.options(sink))
			eventually(t, "all records are delivered", func() bool { return len(sink.all()) >= 1500 })
			for p := range int32(3) {
				if !slices.Equal(of(p, sink.all()), values(p, 1, 500)) {
					t.Errorf("partition %d was not delivered once and in order", p)
				}
				eventually(t, "the offset is committed", func() bool { return r.committed("orders", p) == 500 })
			}
			eventually(t, "nothing is left", func() bool {
				status := s.Status()
				return status.Lag == 0 && status.Oldest == 0 && status.Assigned == 3
			})
		})
	}
}

// TestSinkDown holds a source to losing nothing, repeating nothing and not committing while its sink is down.
func TestSinkDown(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.produce("orders", 0, 1, 300)
	sink := &recorder{batch: 50, refuse: down}
	s := r.run(r.options(sink))
	eventually(t, "the outlet waits", func() bool { return s.Status().Outlet.Failed >= 3 })
	if at := r.committed("orders", 0); at > 0 {
		t.Errorf("offset %d is committed, and nothing was delivered", at)
	}
	eventually(t, "the lag is known", func() bool { return s.Status().Lag == 300 && s.Status().Oldest > 0 })
	sink.setRefuse(nil)
	eventually(t, "all records are delivered", func() bool { return len(sink.all()) >= 300 })
	if !slices.Equal(sink.all(), values(0, 1, 300)) {
		t.Error("records were not delivered once and in order")
	}
	eventually(t, "the offset is committed", func() bool { return r.committed("orders", 0) == 300 })
}

// TestRestart stops a source in the middle and has another go on.
func TestRestart(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.produce("orders", 0, 1, 200)
	sink := &recorder{refuse: func(data string) error {
		if data == "0/100" {
			return down(data)
		}
		return nil
	}}
	o := r.options(sink)
	o.CommitEvery = time.Hour // only the end commits
	s := r.run(o)
	eventually(t, "the first half is delivered", func() bool { return len(sink.all()) == 99 })
	s.stop()
	if at := r.committed("orders", 0); at != 99 {
		t.Errorf("offset %d is committed at the end, want 99", at)
	}
	sink.setRefuse(nil)
	o.Outlet = r.options(sink).Outlet
	r.run(o)
	eventually(t, "the rest is delivered", func() bool { return len(sink.all()) >= 200 })
	if !slices.Equal(sink.all(), values(0, 1, 200)) {
		t.Error("records were lost or repeated by a clean stop")
	}
}

// TestUnordered has one record stuck, which must hold up the offset and nothing else.
func TestUnordered(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.produce("orders", 0, 1, 200)
	sink := &recorder{refuse: func(data string) error {
		if data == "0/10" {
			return down(data)
		}
		return nil
	}}
	o := r.options(sink)
	o.Order = source.Unordered
	r.run(o)
	eventually(t, "the others are delivered", func() bool { return len(sink.all()) == 199 })
	eventually(t, "the offset stays before it", func() bool { return r.committed("orders", 0) == 9 })
	sink.setRefuse(nil)
	eventually(t, "the offset moves on", func() bool { return r.committed("orders", 0) == 200 })
}

// TestOrderedByKey has one key stuck and holds the others to their order.
func TestOrderedByKey(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.produce("orders", 0, 1, 200)
	sink := &recorder{refuse: func(data string) error {
		if data == "0/10" {
			return down(data)
		}
		return nil
	}}
	o := r.options(sink)
	o.Order = source.ByKey
	r.run(o)
	eventually(t, "some key goes on to its end", func() bool { return slices.Contains(sink.all(), "0/199") || slices.Contains(sink.all(), "0/198") })
	sink.setRefuse(nil)
	eventually(t, "all are delivered", func() bool { return len(sink.all()) >= 200 })
	last := map[int]int{}
	for _, v := range sink.all() {
		n, err := strconv.Atoi(v[2:])
		if err != nil {
			t.Fatal(err)
		}
		if last[n%5] > n {
			t.Errorf("record %d of a key came after %d", n, last[n%5])
		}
		last[n%5] = n
	}
}

// TestLatest holds a source to beginning with what comes after it has become ready, for good: also after a restart
// before anything was delivered.
func TestLatest(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(2, "orders"))
	r.produce("orders", 0, 1, 50)
	sink := &recorder{}
	o := r.options(sink)
	o.FromStart = false
	first := r.run(o)
	r.ready(first)
	eventually(t, "the beginning is committed", func() bool { return r.committed("orders", 0) == 50 && r.committed("orders", 1) == 0 })
	first.stop()
	r.produce("orders", 0, 51, 60)
	r.produce("orders", 1, 1, 10)
	o.Outlet = r.options(sink).Outlet
	r.run(o)
	eventually(t, "what came later is delivered", func() bool { return len(sink.all()) >= 20 })
	if got := of(0, sink.all()); !slices.Equal(got, values(0, 51, 60)) {
		t.Errorf("delivered %v", got)
	}
}

// TestAddedPartition has a partition added under a source that began with the latest: nothing in it may be missed.
func TestAddedPartition(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.produce("orders", 0, 1, 5)
	sink := &recorder{}
	o := r.options(sink)
	o.FromStart = false
	s := r.run(o)
	r.ready(s)
	if _, err := r.admin.CreatePartitions(t.Context(), 1, "orders"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the partition is there", func() bool {
		r.client.ForceMetadataRefresh()
		topics, err := r.admin.ListTopics(t.Context(), "orders")
		return err == nil && len(topics["orders"].Partitions) == 2
	})
	s.stop()
	r.produce("orders", 1, 1, 5)
	o.Outlet = r.options(sink).Outlet
	r.run(o)
	eventually(t, "the new partition is read from its beginning", func() bool { return len(sink.all()) >= 5 })
	if got := sink.all(); !slices.Equal(got, values(1, 1, 5)) {
		t.Errorf("delivered %v", got)
	}
}

// TestTopicMissing waits for topics, says so, and reads them from the beginning when they come.
func TestTopicMissing(t *testing.T) {
	t.Parallel()
	r := start(t)
	sink := &recorder{}
	o := r.options(sink)
	o.FromStart = false
	o.Topics = []string{"orders", "later"}
	s := r.run(o)
	missing := func(message string) func() bool {
		return func() bool {
			status := s.Status()
			return !status.Ready && status.Reason == kafka.ReasonTopicMissing && status.Message == "waiting for topics that do not exist: "+message
		}
	}
	eventually(t, "the source waits for both", missing("orders, later"))
	r.create("orders")
	r.produce("orders", 0, 1, 5)
	eventually(t, "the first topic is read", func() bool { return len(sink.all()) >= 5 })
	eventually(t, "the source waits for the other", missing("later"))
	r.create("later")
	r.produce("later", 0, 6, 10)
	eventually(t, "the second topic is read", func() bool { return len(sink.all()) >= 10 })
	r.ready(s)
	if got := sink.all(); !slices.Equal(got, values(0, 1, 10)) {
		t.Errorf("delivered %v", got)
	}
}

func (r *rig) create(topic string) {
	r.t.Helper()
	if _, err := r.admin.CreateTopic(r.t.Context(), 1, 1, nil, topic); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "the topic is there", func() bool {
		topics, err := r.admin.ListTopics(r.t.Context(), topic)
		return err == nil && topics[topic].Err == nil && len(topics[topic].Partitions) == 1
	})
}

// TestRebalance adds a member, and takes one away, while records flow.
func TestRebalance(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(4, "orders"))
	sink := &recorder{batch: 20}
	o := r.options(sink)
	first := r.run(o)
	r.ready(first)
	for p := range int32(4) {
		r.produce("orders", p, 1, 200)
	}
	o.Outlet = r.options(sink).Outlet
	second := r.run(o)
	eventually(t, "the partitions are shared", func() bool {
		return first.Status().Assigned == 2 && second.Status().Assigned == 2
	})
	for p := range int32(4) {
		r.produce("orders", p, 201, 400)
	}
	first.stop()
	eventually(t, "the second has all partitions", func() bool { return second.Status().Assigned == 4 })
	for p := range int32(4) {
		r.produce("orders", p, 401, 500)
	}
	eventually(t, "all offsets are committed", func() bool {
		for p := range int32(4) {
			if r.committed("orders", p) != 500 {
				return false
			}
		}
		return true
	})
	for p := range int32(4) {
		if got := of(p, sink.all()); !slices.Equal(got, values(p, 1, 500)) {
			t.Errorf("partition %d: %d records were delivered, not each once and in order", p, len(got))
		}
	}
}

// TestStopWhileJoining stops a source whose group is long in giving it partitions, as when other members died.
func TestStopWhileJoining(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	first := r.run(r.options(&recorder{}))
	r.ready(first)
	joining, release := make(chan struct{}, 10), make(chan struct{})
	r.cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		joining <- struct{}{}
		r.cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	t.Cleanup(func() { close(release) })
	second := r.run(r.options(&recorder{}))
	<-joining
	second.stop()
}

// TestLeaveWhileJoining stops a source that waits for the group to miss one that died: the group must not go on with it as a member.
func TestLeaveWhileJoining(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	r.die()
	s := r.run(r.options(&recorder{}))
	eventually(t, "it joins", func() bool { return len(r.members()) == 2 })
	s.stop()
	if got := r.members(); len(got) != 1 {
		t.Errorf("the group has the members %v, want the one that died alone", got)
	}
}

// die has a member join the group and never be heard of again.
func (r *rig) die() {
	r.t.Helper()
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = "group", "consumer", 60_000, 60_000
	protocol := kmsg.NewJoinGroupRequestProtocol()
	metadata := kmsg.NewConsumerMemberMetadata()
	metadata.Topics = []string{"orders"}
	protocol.Name, protocol.Metadata = "cooperative-sticky", metadata.AppendTo(nil)
	join.Protocols = append(join.Protocols, protocol)
	joined, err := join.RequestWith(r.t.Context(), r.client)
	if err == nil && joined.ErrorCode == kerr.MemberIDRequired.Code {
		join.MemberID = joined.MemberID
		joined, err = join.RequestWith(r.t.Context(), r.client)
	}
	if err != nil || joined.ErrorCode != 0 {
		r.t.Fatal(err, joined)
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = "group", joined.MemberID, joined.Generation
	if synced, err := sync.RequestWith(r.t.Context(), r.client); err != nil || synced.ErrorCode != 0 {
		r.t.Fatal(err, synced)
	}
}

// members returns the ids of the group's members.
func (r *rig) members() (ids []string) {
	r.t.Helper()
	groups, err := r.admin.DescribeGroups(r.t.Context(), "group")
	if err != nil {
		return nil
	}
	for _, m := range groups["group"].Members {
		ids = append(ids, m.MemberID)
	}
	return ids
}

// TestMoreMembersThanPartitions has a member without partitions, which is ready all the same.
func TestMoreMembersThanPartitions(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	first := r.run(r.options(&recorder{}))
	r.ready(first)
	second := r.run(r.options(&recorder{}))
	r.ready(second)
	eventually(t, "one of them has the partition", func() bool { return first.Status().Assigned+second.Status().Assigned == 1 })
}

// TestAbortedTransactions holds offsets to passing what was aborted, also at the end of the partition.
func TestAbortedTransactions(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(1, "orders"))
	client, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), &kgo.Record{Value: []byte(strconv.Itoa(i))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	sink := &recorder{}
	s := r.run(r.options(sink))
	eventually(t, "the offset is that of the end", func() bool { return r.committed("orders", 0) == 8 })
	if got := sink.all(); !slices.Equal(got, []string{"0", "2"}) {
		t.Errorf("delivered %v, want what was committed", got)
	}
	eventually(t, "there is no lag", func() bool { return s.Status().Lag == 0 })
}

// TestBoundedMemory holds a source that cannot deliver to a bounded number of bytes, and to fetching the rest afterwards.
func TestBoundedMemory(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(2, "orders"))
	big := make([]byte, 512<<10)
	const records = 200 // 100 MiB
	for range records {
		if err := r.client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: big}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	r.produce("orders", 1, 1, 10)
	sink := &recorder{refuse: func(data string) error {
		if len(data) == len(big) {
			return down(data)
		}
		return nil
	}}
	o := r.options(sink)
	s := r.run(o)
	eventually(t, "the other partition is delivered", func() bool { return len(sink.all()) == 10 })
	eventually(t, "the partition is held up", func() bool { return s.Status().Outlet.Failed > 10 })
	if held := s.Status().Held; held > 40<<20 {
		t.Errorf("%d bytes are held", held)
	}
	sink.setRefuse(nil)
	eventually(t, "the rest is delivered", func() bool { return len(sink.all()) == records+10 })
}

// TestUnpackedBatch reads no batch that becomes too large, says where it is, and reads the other partitions.
func TestUnpackedBatch(t *testing.T) {
	t.Parallel()
	r := start(t, kfake.SeedTopics(2, "orders"))
	packing, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(packing.Close)
	r.produce("orders", 0, 1, 3)
	if err := packing.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: make([]byte, 33<<20)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r.produce("orders", 0, 4, 5)
	r.produce("orders", 1, 1, 3)
	sink := &recorder{}
	s := r.run(r.options(sink))
	eventually(t, "the batch is noticed", func() bool { return s.Status().Reason == kafka.ReasonBatchTooLarge })
	eventually(t, "what is before it, and in the other partition, is delivered", func() bool { return len(sink.all()) == 6 })
	if message := s.Status().Message; !strings.Contains(message, "the batch at offset 3 of partition 0 of topic orders") || !strings.Contains(message, "to 4 to pass") {
		t.Errorf("the message is %q", message)
	}
	s.stop()
	if at := r.committed("orders", 0); at != 3 {
		t.Errorf("offset %d is committed", at)
	}
	passed := kadm.Offsets{}
	passed.AddOffset("orders", 0, 4, -1)
	if err := r.admin.CommitAllOffsets(t.Context(), "group", passed); err != nil {
		t.Fatal(err)
	}
	s = r.run(r.options(sink))
	eventually(t, "the rest is delivered", func() bool { return len(sink.all()) == 8 })
	if status := s.Status(); !status.Ready {
		t.Errorf("the source is not ready: %s", status.Message)
	}
}

// TestReasons says what keeps a source from working.
func TestReasons(t *testing.T) {
	t.Parallel()
	secured := start(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "alice", "hush"), kfake.SeedTopics(1, "orders"))
	// The cluster in the process hangs up where a real one answers.
	secured.cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		secured.cluster.KeepControl()
		if bytes.Contains(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, []byte("hush")) {
			return nil, nil, false
		}
		answer := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		answer.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return answer, nil, true
	})
	wrong, err := kafka.NewMechanism("PLAIN", "alice", "loud")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*kafka.Options)
		want   string
	}{
		"wrong password": {func(o *kafka.Options) { o.Mechanism = wrong }, source.ReasonAuthenticationFailed},
		"no password":    {func(*kafka.Options) {}, source.ReasonUnreachable},
		"nobody there":   {func(o *kafka.Options) { o.Servers = []string{closedPort(t)} }, source.ReasonUnreachable},
		"address denied": {func(o *kafka.Options) { o.Dialer = delivery.NewDialer(delivery.Options{}) }, kafka.ReasonAddressDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := secured.options(&recorder{})
			c.change(&o)
			s := secured.run(o)
			eventually(t, "the reason is found", func() bool { return s.Status().Reason == c.want })
			if s.Status().Ready {
				t.Error("the source is ready")
			}
		})
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestMechanisms delivers by each SASL mechanism that the cluster in the process knows.
func TestMechanisms(t *testing.T) {
	for _, name := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mechanism, err := kafka.NewMechanism(name, "alice", "hush")
			if err != nil {
				t.Fatal(err)
			}
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(name, "alice", "hush"), kfake.SeedTopics(1, "orders"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.SASL(mechanism), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			r := &rig{t: t, cluster: c, client: client, admin: kadm.NewClient(client)}
			r.produce("orders", 0, 1, 3)
			sink := &recorder{}
			o := r.options(sink)
			o.Mechanism = mechanism
			r.run(o)
			eventually(t, "the records are delivered", func() bool { return len(sink.all()) == 3 })
		})
	}
	if _, err := kafka.NewMechanism("KERBEROS", "", ""); !errors.Is(err, kafka.ErrMechanism) {
		t.Errorf("an unknown mechanism: %v", err)
	}
}
