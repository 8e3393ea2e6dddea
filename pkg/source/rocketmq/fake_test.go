package rocketmq_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace.dev/pkg/source/rocketmq"
)

// fake is a proxy as far as a simple consumer sees one: one queue a topic, which keeps order if the group is orderly. What
// it does is held to the real one by the tests in test/e2esources, which run the same contract.
type fake struct {
	v2.UnimplementedMessagingServiceServer

	address string

	mu       sync.Mutex
	changed  sync.Cond
	topics   map[string]*queue
	orderly  bool
	group    string
	signed   map[string]string // the last metadata of requests
	sessions int
	known    map[string]bool // clients that told their settings
	filter   *v2.FilterExpression
	// failures, by method, are the answers to the next requests.
	failures map[string][]v2.Code
	acks     int // requests
	hides    int
	attempts map[string]int
}

// queue has the messages of a topic, in order.
type queue struct {
	messages []*stored
	next     int // id
}

// stored is a message that is not acknowledged.
type stored struct {
	message *v2.Message
	visible time.Time
	attempt int32
	handle  string
}

// startFake runs a fake with the topics.
func startFake(t *testing.T, topics ...string) *fake {
	t.Helper()
	f := &fake{topics: map[string]*queue{}, group: "wall", known: map[string]bool{}, failures: map[string][]v2.Code{}, attempts: map[string]int{}}
	f.changed.L = &f.mu
	for _, topic := range topics {
		f.topics[topic] = &queue{}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	server := grpc.NewServer()
	v2.RegisterMessagingServiceServer(server, f)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return f
}

// options read the topic orders of the fake.
func (f *fake) options() rocketmq.Options {
	return rocketmq.Options{Namespace: "shop", Name: "gifts", Endpoint: f.address, Topics: []string{"orders"}, Group: "wall", Invisible: 10 * time.Second}
}

// locked changes the fake under its lock.
func (f *fake) locked(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.changed.Broadcast()
}

// write adds messages to a topic.
func (f *fake) write(topic string, messages ...*v2.Message) {
	f.locked(func() {
		q := f.topics[topic]
		for _, m := range messages {
			q.next++
			m.Topic = &v2.Resource{Name: topic}
			if m.SystemProperties == nil {
				m.SystemProperties = &v2.SystemProperties{}
			}
			p := m.GetSystemProperties()
			if p.GetMessageId() == "" {
				p.MessageId = topic + "-" + strconv.Itoa(q.next)
			}
			p.BornTimestamp = timestamppb.New(time.Unix(1_700_000_000, 0))
			offset := int64(q.next - 1)
			p.QueueOffset = &offset
			q.messages = append(q.messages, &stored{message: m})
		}
	})
}

// answer returns OK, or what the test wants to be answered to the method.
func (f *fake) answer(method string) *v2.Status {
	code := v2.Code_OK
	if next := f.failures[method]; len(next) > 0 {
		code, f.failures[method] = next[0], next[1:]
	}
	return &v2.Status{Code: code, Message: code.String()}
}

func (f *fake) note(ctx context.Context) {
	f.signed = map[string]string{}
	md, _ := metadata.FromIncomingContext(ctx)
	for key, values := range md {
		f.signed[key] = values[0]
	}
}

func (f *fake) QueryRoute(ctx context.Context, r *v2.QueryRouteRequest) (*v2.QueryRouteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(ctx)
	s := f.answer("QueryRoute")
	if s.GetCode() != v2.Code_OK {
		return &v2.QueryRouteResponse{Status: s}, nil
	}
	if f.topics[r.GetTopic().GetName()] == nil {
		return &v2.QueryRouteResponse{Status: &v2.Status{Code: v2.Code_TOPIC_NOT_FOUND, Message: "no such topic"}}, nil
	}
	return &v2.QueryRouteResponse{Status: s, MessageQueues: []*v2.MessageQueue{{
		Topic: r.GetTopic(), Permission: v2.Permission_READ_WRITE, Broker: &v2.Broker{Name: "a", Endpoints: r.GetEndpoints()},
	}}}, nil
}

func (f *fake) Telemetry(stream v2.MessagingService_TelemetryServer) error {
	for {
		command, err := stream.Recv()
		if err != nil {
			return err
		}
		settings, ok := command.GetCommand().(*v2.TelemetryCommand_Settings)
		if !ok {
			continue
		}
		md, _ := metadata.FromIncomingContext(stream.Context())
		f.mu.Lock()
		f.sessions++
		s := f.answer("Telemetry")
		f.known[md.Get("x-mq-client-id")[0]] = true
		f.filter = settings.Settings.GetSubscription().GetSubscriptions()[0].GetExpression()
		orderly := f.orderly
		f.mu.Unlock()
		if s.GetCode() == v2.Code_UNAUTHORIZED {
			return status.Error(codes.Unauthenticated, "unknown user")
		}
		theirs, _ := proto.Clone(settings.Settings).(*v2.Settings)
		theirs.GetSubscription().Fifo = &orderly
		if err := stream.Send(&v2.TelemetryCommand{Status: s, Command: &v2.TelemetryCommand_Settings{Settings: theirs}}); err != nil {
			return err
		}
	}
}

func (f *fake) ReceiveMessage(r *v2.ReceiveMessageRequest, stream v2.MessagingService_ReceiveMessageServer) error {
	ctx, cancel := context.WithTimeout(stream.Context(), r.GetLongPollingTimeout().AsDuration())
	defer cancel()
	stop := context.AfterFunc(ctx, func() { f.locked(func() {}) })
	defer stop()
	wake := time.AfterFunc(200*time.Millisecond, func() { f.locked(func() {}) }) // messages become visible by themselves
	defer wake.Stop()
	f.mu.Lock()
	md, _ := metadata.FromIncomingContext(stream.Context())
	s := f.answer("ReceiveMessage")
	switch {
	case s.GetCode() != v2.Code_OK:
	case !f.known[md.Get("x-mq-client-id")[0]]:
		s = &v2.Status{Code: v2.Code_UNRECOGNIZED_CLIENT_TYPE, Message: "no settings"}
	case r.GetGroup().GetName() != f.group:
		s = &v2.Status{Code: v2.Code_CONSUMER_GROUP_NOT_FOUND, Message: "no such group"}
	}
	var out []*v2.Message
	for s.GetCode() == v2.Code_OK && ctx.Err() == nil {
		if out = f.pop(r); len(out) > 0 {
			break
		}
		f.changed.Wait()
	}
	f.mu.Unlock()
	if s.GetCode() == v2.Code_OK && len(out) == 0 {
		s = &v2.Status{Code: v2.Code_MESSAGE_NOT_FOUND}
	}
	if err := stream.Send(&v2.ReceiveMessageResponse{Content: &v2.ReceiveMessageResponse_Status{Status: s}}); err != nil {
		return err
	}
	for _, m := range out {
		if err := stream.Send(&v2.ReceiveMessageResponse{Content: &v2.ReceiveMessageResponse_Message{Message: m}}); err != nil {
			return err
		}
	}
	return nil
}

// pop hides and returns messages that nobody has. Of an orderly group there are none while somebody has any.
func (f *fake) pop(r *v2.ReceiveMessageRequest) (out []*v2.Message) {
	q := f.topics[r.GetMessageQueue().GetTopic().GetName()]
	now := time.Now()
	if f.orderly && slices.ContainsFunc(q.messages, func(s *stored) bool { return s.visible.After(now) }) {
		return nil
	}
	for _, s := range q.messages {
		if len(out) == int(r.GetBatchSize()) || s.visible.After(now) {
			continue
		}
		s.attempt++
		s.visible = now.Add(r.GetInvisibleDuration().AsDuration())
		s.handle = fmt.Sprintf("%s/%d", s.message.GetSystemProperties().GetMessageId(), s.attempt)
		f.attempts[s.message.GetSystemProperties().GetMessageId()] = int(s.attempt)
		m, _ := proto.Clone(s.message).(*v2.Message)
		handle, attempt := s.handle, s.attempt
		m.SystemProperties.ReceiptHandle, m.SystemProperties.DeliveryAttempt = &handle, &attempt
		out = append(out, m)
	}
	return out
}

func (f *fake) find(topic, handle string) (*queue, int) {
	q := f.topics[topic]
	return q, slices.IndexFunc(q.messages, func(s *stored) bool { return s.handle == handle && s.visible.After(time.Now()) })
}

func (f *fake) AckMessage(_ context.Context, r *v2.AckMessageRequest) (*v2.AckMessageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acks++
	answer := &v2.AckMessageResponse{Status: f.answer("AckMessage")}
	for _, e := range r.GetEntries() {
		result := &v2.AckMessageResultEntry{MessageId: e.GetMessageId(), ReceiptHandle: e.GetReceiptHandle(), Status: answer.GetStatus()}
		if answer.GetStatus().GetCode() == v2.Code_OK {
			if q, i := f.find(r.GetTopic().GetName(), e.GetReceiptHandle()); i >= 0 {
				q.messages = slices.Delete(q.messages, i, i+1)
			} else {
				result.Status = &v2.Status{Code: v2.Code_INVALID_RECEIPT_HANDLE, Message: "it is expired"}
			}
		}
		answer.Entries = append(answer.Entries, result)
	}
	f.changed.Broadcast()
	return answer, nil
}

func (f *fake) ChangeInvisibleDuration(_ context.Context, r *v2.ChangeInvisibleDurationRequest) (*v2.ChangeInvisibleDurationResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hides++
	s := f.answer("ChangeInvisibleDuration")
	q, i := f.find(r.GetTopic().GetName(), r.GetReceiptHandle())
	switch {
	case s.GetCode() != v2.Code_OK:
		return &v2.ChangeInvisibleDurationResponse{Status: s}, nil
	case i < 0:
		return &v2.ChangeInvisibleDurationResponse{Status: &v2.Status{Code: v2.Code_INVALID_RECEIPT_HANDLE, Message: "it is expired"}}, nil
	}
	m := q.messages[i]
	m.visible = time.Now().Add(r.GetInvisibleDuration().AsDuration())
	m.handle += "+"
	return &v2.ChangeInvisibleDurationResponse{Status: s, ReceiptHandle: m.handle}, nil
}

func (f *fake) Heartbeat(context.Context, *v2.HeartbeatRequest) (*v2.HeartbeatResponse, error) {
	return &v2.HeartbeatResponse{Status: &v2.Status{Code: v2.Code_OK}}, nil
}

func (f *fake) NotifyClientTermination(context.Context, *v2.NotifyClientTerminationRequest) (*v2.NotifyClientTerminationResponse, error) {
	return &v2.NotifyClientTerminationResponse{Status: &v2.Status{Code: v2.Code_OK}}, nil
}
