package e2esources

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"millrace.dev/test/harness"
)

const rocketMQBenchManifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, annotations: {millrace.dev/max-bytes: 4Gi}}
---
apiVersion: sources.knative.dev/v1alpha1
kind: RocketMQSource
metadata: {name: gifts}
spec:
  endpoint: %s
  topics: [gifts]
  consumerGroup: source
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
`

// loops is how many requests the bare loop has under way at a time, as many as a source.
const loops = 4

// BenchmarkRocketMQ moves messages of 512 bytes from RocketMQ to JetStream: by a source, and by a bare loop that receives, publishes
// and acknowledges the same messages, as fast as both confirm.
//
// E2E_RECORDS says how many messages, of which a quarter is taken each round.
func BenchmarkRocketMQ(b *testing.B) {
	count := records() / 4
	count -= count % maxReceived
	r := StartRocketMQ(b, rocketMQConfig{topics: map[string]bool{"gifts": false}, groups: map[string]bool{"source": false, "bare": false}})
	a := newArena(b, fmt.Sprintf(rocketMQBenchManifest, r.Endpoint), count)
	bare := r.consumer(b, "bare")
	// Both groups begin with what is written from now on.
	begun := a.StartSource(b)
	waitSource(b, begun, "Ready")
	begun.Stop(b)
	if left := bare.receive(b); len(left) > 0 {
		b.Fatalf("there are %d messages before any was written", len(left))
	}
	for b.Loop() {
		a.compare(b, func(int) { fillRocketMQ(b, r, count) }, func() float64 { return bare.run(b, a) })
	}
}

// maxReceived is how many messages RocketMQ hands out at once at most.
const maxReceived = 32

func fillRocketMQ(b *testing.B, r *RocketMQ, count int) {
	b.Helper()
	p := r.Producer(b)
	for range count / maxReceived {
		var messages []message
		for range maxReceived {
			body := make([]byte, 512) // what cannot be compressed
			_, _ = rand.Read(body)
			messages = append(messages, message{body: body})
		}
		if err := p.Send(b.Context(), "gifts", messages...); err != nil {
			b.Fatal(err)
		}
	}
}

// consumer is a bare client of a group.
type consumer struct {
	*Producer
	group *v2.Resource
	queue *v2.MessageQueue
}

// consumer returns a client that the server knows.
func (r *RocketMQ) consumer(b *testing.B, group string) *consumer {
	b.Helper()
	c := &consumer{Producer: &Producer{stub: r.dial(b, insecure.NewCredentials()), id: group}, group: &v2.Resource{Name: group}}
	ctx := c.introduce(context.WithoutCancel(b.Context()))
	stream, err := c.stub.Telemetry(ctx)
	if err != nil {
		b.Fatal(err)
	}
	kind := v2.ClientType_SIMPLE_CONSUMER
	err = stream.Send(&v2.TelemetryCommand{Command: &v2.TelemetryCommand_Settings{Settings: &v2.Settings{
		ClientType: &kind, RequestTimeout: durationpb.New(5 * time.Second),
		PubSub: &v2.Settings_Subscription{Subscription: &v2.Subscription{Group: c.group, Subscriptions: []*v2.SubscriptionEntry{
			{Topic: &v2.Resource{Name: "gifts"}, Expression: &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"}},
		}}},
	}}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		b.Fatal(err)
	}
	c.queue = &v2.MessageQueue{Topic: &v2.Resource{Name: "gifts"}, Broker: &v2.Broker{Name: "a"}}
	return c
}

// receive returns messages; none if there are none for a while.
func (c *consumer) receive(b *testing.B) []*v2.Message {
	ctx, cancel := c.context(b.Context())
	defer cancel()
	stream, err := c.stub.ReceiveMessage(ctx, &v2.ReceiveMessageRequest{
		Group: c.group, MessageQueue: c.queue, FilterExpression: &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"}, BatchSize: maxReceived,
		InvisibleDuration: durationpb.New(30 * time.Second), LongPollingTimeout: durationpb.New(5 * time.Second),
	})
	if err != nil {
		b.Error(err)
		return nil
	}
	var messages []*v2.Message
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return messages
		}
		if err != nil {
			b.Error(err)
			return nil
		}
		if m := part.GetMessage(); m != nil {
			messages = append(messages, m)
		}
	}
}

func (c *consumer) ack(b *testing.B, messages []*v2.Message) {
	ctx, cancel := c.context(b.Context())
	defer cancel()
	request := &v2.AckMessageRequest{Group: c.group, Topic: &v2.Resource{Name: "gifts"}}
	for _, m := range messages {
		p := m.GetSystemProperties()
		request.Entries = append(request.Entries, &v2.AckMessageEntry{MessageId: p.GetMessageId(), ReceiptHandle: p.GetReceiptHandle()})
	}
	if answer, err := c.stub.AckMessage(ctx, request); err != nil || answer.GetStatus().GetCode() != v2.Code_OK {
		b.Errorf("acknowledge: %v %v", answer.GetStatus(), err)
	}
}

// run returns how many messages a second are received, published and acknowledged by loops that do nothing else.
func (c *consumer) run(b *testing.B, a *arena) float64 {
	b.Helper()
	var done atomic.Int64
	var work sync.WaitGroup
	start := time.Now()
	for range loops {
		work.Go(func() {
			for !b.Failed() && done.Load() < int64(a.count) {
				messages := c.receive(b)
				futures := make([]jetstream.PubAckFuture, len(messages))
				for i, m := range messages {
					p := m.GetSystemProperties()
					id := "gifts/" + p.GetMessageId() + "/" + strconv.FormatInt(p.GetBornTimestamp().AsTime().UnixMilli(), 36)
					var err error
					if futures[i], err = a.js.PublishMsgAsync(a.message(m.GetBody(), id, map[string]string{"ce-id": p.GetMessageId()})); err != nil {
						b.Error(err)
						return
					}
				}
				for _, f := range futures {
					select {
					case <-f.Ok():
					case err := <-f.Err():
						b.Error(err)
						return
					}
				}
				if len(messages) > 0 {
					c.ack(b, messages)
				}
				done.Add(int64(len(messages)))
			}
		})
	}
	var took time.Duration
	harness.Reach(b, "all messages are published", a.count, func() int {
		took = time.Since(start)
		return int(done.Load())
	})
	work.Wait()
	return float64(a.count) / took.Seconds()
}
