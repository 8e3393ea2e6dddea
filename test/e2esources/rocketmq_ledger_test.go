package e2esources

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"

	"millrace.dev/pkg/event"
	"millrace.dev/test/harness"
)

const rocketMQLedgerManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {millrace.dev/max-bytes: 4Gi}}
---
apiVersion: sources.knative.dev/v1alpha1
kind: RocketMQSource
metadata: {name: ordered}
spec:
  endpoint: %[1]s
  topics: [ordered]
  consumerGroup: ordered
  ordering: fifo
  invisibleDuration: PT10S
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
---
apiVersion: sources.knative.dev/v1alpha1
kind: RocketMQSource
metadata: {name: loose}
spec:
  endpoint: %[1]s
  topics: [loose]
  consumerGroup: loose
  invisibleDuration: PT10S
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: d}}
`

// rocketMQDeliveredManifest is all that the filter knows. The other Broker's stream is for the test to read.
const rocketMQDeliveredManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: d, annotations: {millrace.dev/max-bytes: 4Gi}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: d
  subscriber: {uri: "%[1]s/all"}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: tenth}
spec:
  broker: d
  filters: [{cel: "data.n %% 10 == 3 && ce.type == 'dev.knative.rocketmq.message'"}]
  subscriber: {uri: "%[1]s/tenth"}
`

// rocketMQGroups is the number of message groups, each of which one producer writes to.
const rocketMQGroups = 8

// TestRocketMQLedger has every message of one topic reach a Broker's stream, in order within its message group, and every message of
// another reach the subscribers whose Triggers match its data, although the processes that read RocketMQ are killed, one is added and
// taken away, and RocketMQ, NATS and the subscribers are away for a while.
func TestRocketMQLedger(t *testing.T) {
	t.Parallel()
	each := records() / 4 // to each topic
	each -= each % (rocketMQGroups * messagesAtOnce)
	r := StartRocketMQ(t, rocketMQConfig{
		topics: map[string]bool{"ordered": true, "loose": false}, groups: map[string]bool{"ordered": true, "loose": false},
	})
	subscribers := newAudience(t)
	delivered, manifest := filepath.Join(t.TempDir(), "delivered.yaml"), filepath.Join(t.TempDir(), "ledger.yaml")
	harness.WriteFile(t, delivered, fmt.Sprintf(rocketMQDeliveredManifest, subscribers.URL))
	harness.WriteFile(t, manifest, fmt.Sprintf(rocketMQLedgerManifest, r.Endpoint)+"---"+fmt.Sprintf(rocketMQDeliveredManifest, subscribers.URL))
	c := harness.NewCluster(t, programs.Dir(t), manifest)
	c.StartNATS(t)
	first := c.StartSource(t)
	filters := *c
	filters.Manifests = delivered
	filters.StartFilter(t)
	harness.Eventually(t, "the sources are ready", func() error {
		text, err := get(t.Context(), first.Admin+"/metrics")
		if n := strings.Count(text, `reason="Ready"`); err == nil && n != 2 {
			return fmt.Errorf("%d of 2", n)
		}
		return err
	})

	var writing sync.WaitGroup
	for g := range rocketMQGroups {
		writing.Go(func() { writeGroup(t, r, g, each/rocketMQGroups) })
	}
	step := writeFor / 8
	time.Sleep(step)
	second := c.StartSource(t)
	time.Sleep(step)
	first.Kill()
	first = c.StartSource(t)
	subscribers.down.Store(true)
	time.Sleep(step)
	c.NATS.Kill()
	time.Sleep(step / 2)
	c.StartNATS(t)
	time.Sleep(step)
	r.Kill()
	time.Sleep(step / 2)
	r.Start(t)
	time.Sleep(step)
	second.Signal(t, os.Interrupt)
	first.Kill()
	c.StartSource(t)
	writing.Wait()
	time.Sleep(downFor() - 5*time.Second)
	subscribers.down.Store(false)

	b := newRocketMQBook()
	stop := follow(t, c, b.enter)
	defer func() {
		if t.Failed() {
			t.Logf("of %d messages missing in the stream:%s", each, b.missing(each))
			t.Logf("what RocketMQ says of the group:\n%s", r.Admin(t, "consumerProgress", "-n", r.names, "-g", "ordered"))
			offsets, _ := os.ReadFile(r.file("store/config/consumerOffset.json"))
			order, _ := os.ReadFile(r.file("store/config/consumerOrderInfo.json"))
			t.Logf("%s\n%s", offsets, order)
		}
	}()
	harness.ReachPatiently(t, settlePatience, "all messages are in the stream", each, b.count)
	stop()
	for path, matches := range map[string]func(n int) bool{
		"/all":   func(int) bool { return true },
		"/tenth": func(n int) bool { return n%10 == 3 },
	} {
		harness.ReachPatiently(t, settlePatience, "all messages are delivered to "+path, expected(each, matches), func() int { return subscribers.count(path) })
		lost, strange, again := subscribers.verdict(path, each, matches)
		t.Logf("%s: %d lost, %d that do not match, %d delivered again", path, lost, strange, again)
		if lost+strange > 0 {
			t.Errorf("%s: want each message that matches, and no other", path)
		}
	}
	twice, late := b.verdict()
	t.Logf("%d messages a topic; of the ordered none lost, %d stored twice, %d out of order", each, twice, late)
	if late > 0 || subscribers.unread > 0 || subscribers.refusals == 0 {
		t.Errorf("%d out of order, %d requests made no sense, %d were refused while the subscribers were down", late, subscribers.unread, subscribers.refusals)
	}
}

// settlePatience is how long nothing new may come: what was read before a server was killed may be read again first.
const settlePatience = 3 * harness.Patience

// messagesAtOnce is how many messages a request writes.
const messagesAtOnce = 16

// writeGroup writes messages of one group to the topic that keeps order, and as many to the other, each with its number, over
// writeFor. One that RocketMQ may not have is written again, with the same id.
func writeGroup(t *testing.T, r *RocketMQ, group, count int) {
	p := r.Producer(t)
	start := time.Now()
	ctx := context.WithoutCancel(t.Context())
	for n := 0; n < count; n += messagesAtOnce {
		time.Sleep(time.Until(start.Add(time.Duration(n) * writeFor / time.Duration(count))))
		requests := make([]*v2.SendMessageRequest, 0, messagesAtOnce+1)
		var loose []message
		for i := n; i < n+messagesAtOnce; i++ {
			body := fmt.Appendf(nil, `{"n":%d,"pad":"%s"}`, i*rocketMQGroups+group, strings.Repeat("x", 480))
			// RocketMQ chooses the queue of what is written at once without regard to the group.
			requests = append(requests, p.request("ordered", message{body: body, group: "g" + strconv.Itoa(group)}))
			loose = append(loose, message{body: body})
		}
		for _, request := range append(requests, p.request("loose", loose...)) {
			for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
				err := p.send(ctx, request)
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("write: %v", err)
					return
				}
			}
		}
	}
}

// rocketMQBook keeps what was stored of each group.
type rocketMQBook struct {
	mu          sync.Mutex
	seen        map[int]bool
	last        map[string]int
	twice, late int
}

func newRocketMQBook() *rocketMQBook {
	return &rocketMQBook{seen: map[int]bool{}, last: map[string]int{}}
}

func (b *rocketMQBook) enter(e *event.Event, again bool) {
	var number int
	if _, err := fmt.Sscanf(string(e.Data), `{"n":%d,`, &number); err != nil {
		number = -1
	}
	group := e.Value("partitionkey")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[number] {
		if !again { // the consumer may hand out a message a second time
			b.twice++
		}
		return
	}
	b.seen[number] = true
	if number < b.last[group] {
		b.late++
	}
	b.last[group] = max(b.last[group], number)
}

func (b *rocketMQBook) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

// missing says which messages are, by group.
func (b *rocketMQBook) missing(total int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text strings.Builder
	for g := range rocketMQGroups {
		gap := -1
		for n := g; n < total+rocketMQGroups; n += rocketMQGroups {
			switch gone := n < total && !b.seen[n]; {
			case gone && gap < 0:
				gap = n
			case !gone && gap >= 0:
				fmt.Fprintf(&text, " g%d: %d to %d;", g, gap, n-rocketMQGroups)
				gap = -1
			}
		}
	}
	return text.String()
}

func (b *rocketMQBook) verdict() (twice, late int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.twice, b.late
}
