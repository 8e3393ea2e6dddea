package rocketmq

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RocketMQ's protocol signs with it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// requestTimeout bounds requests, but for how long a receive waits for messages.
	requestTimeout = 5 * time.Second
	// pollTime is how long the server waits for messages where there are none. It is the server's minimum: what arrives
	// after a source has stopped may be handed to a request that is still waiting there.
	pollTime = 5 * time.Second
	// maxMessageBytes bounds an answer of the server. RocketMQ bounds messages to 4 MiB unless set.
	maxMessageBytes = 32 << 20
	// languageGo and protocolVersion say which client it is; the server may refuse those it does not know.
	languageGo, protocolVersion, clientVersion = "GO", "v2", "5.1.4"
)

// client speaks to one server in the name of a consumer group.
type client struct {
	opts *Options
	id   string
	conn *grpc.ClientConn
	stub v2.MessagingServiceClient
}

// dial returns a client of the server at an address. It connects when it is used.
func dial(o *Options, address, id string) (*client, error) {
	c := &client{opts: o, id: id}
	secure := insecure.NewCredentials()
	if o.TLS != nil {
		secure = credentials.NewTLS(o.TLS.Clone())
	}
	var err error
	// passthrough: the dialer resolves names, and decides which addresses may be dialed.
	c.conn, err = grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(secure),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return o.Dialer.DialContext(ctx, "tcp", address) //nolint:wrapcheck // the library wraps it
		}),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(c.sign(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(c.sign(ctx), desc, cc, method, opts...)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}, MinConnectTimeout: requestTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.stub = v2.NewMessagingServiceClient(c.conn)
	return c, nil
}

func (c *client) close() { _ = c.conn.Close() }

// sign says who asks, and proves it if there are credentials: by an HMAC of the time, as the protocol has it.
func (c *client) sign(ctx context.Context) context.Context {
	now := time.Now().UTC().Format("20060102T150405Z")
	pairs := []string{
		"x-mq-language", languageGo, "x-mq-protocol", protocolVersion, "x-mq-client-version", clientVersion,
		"x-mq-request-id", uuid.NewString(), "x-mq-client-id", c.id, "x-mq-date-time", now,
		"x-mq-namespace", c.opts.InstanceNamespace,
	}
	if cr := c.opts.Credentials; cr != nil {
		mac := hmac.New(sha1.New, []byte(cr.SecretKey))
		mac.Write([]byte(now))
		pairs = append(pairs, "authorization", fmt.Sprintf("MQv2-HMAC-SHA1 Credential=%s//Rocketmq, SignedHeaders=x-mq-date-time, Signature=%s",
			cr.AccessKey, strings.ToUpper(hex.EncodeToString(mac.Sum(nil)))))
		if cr.SecurityToken != "" {
			pairs = append(pairs, "x-mq-session-token", cr.SecurityToken)
		}
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

func (c *client) resource(name string) *v2.Resource {
	return &v2.Resource{Name: name, ResourceNamespace: c.opts.InstanceNamespace}
}

func (c *client) filter() *v2.FilterExpression {
	switch {
	case c.opts.SQL != "":
		return &v2.FilterExpression{Type: v2.FilterType_SQL, Expression: c.opts.SQL}
	case c.opts.Tag != "":
		return &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: c.opts.Tag}
	}
	return &v2.FilterExpression{Type: v2.FilterType_TAG, Expression: "*"}
}

// route returns the queues of a topic that can be read.
func (c *client) route(ctx context.Context, topic string, at *v2.Endpoints) ([]*v2.MessageQueue, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := c.stub.QueryRoute(ctx, &v2.QueryRouteRequest{Topic: c.resource(topic), Endpoints: at})
	if err != nil {
		return nil, fmt.Errorf("ask for the route of topic %s: %w", topic, err)
	}
	if err := check(answer.GetStatus()); err != nil {
		return nil, fmt.Errorf("the route of topic %s: %w", topic, err)
	}
	var queues []*v2.MessageQueue
	for _, q := range answer.GetMessageQueues() {
		if p := q.GetPermission(); p == v2.Permission_READ || p == v2.Permission_READ_WRITE {
			queues = append(queues, q)
		}
	}
	return queues, nil
}

// receive waits for messages of a queue and returns them; none if there are none for a while. attempt names the request, so
// that a repetition of it is handed the same messages if their order is to be kept.
func (c *client) receive(ctx context.Context, queue *v2.MessageQueue, size int, attempt string) ([]*v2.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTime+2*requestTimeout)
	defer cancel()
	stream, err := c.stub.ReceiveMessage(ctx, &v2.ReceiveMessageRequest{
		Group: c.resource(c.opts.Group), MessageQueue: queue, FilterExpression: c.filter(), BatchSize: int32(size), //nolint:gosec // at most 32
		InvisibleDuration: durationpb.New(c.opts.Invisible), LongPollingTimeout: durationpb.New(pollTime), AttemptId: &attempt,
	})
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	var messages []*v2.Message
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return messages, nil
		case err != nil:
			return messages, fmt.Errorf("receive: %w", err)
		}
		switch content := part.GetContent().(type) {
		case *v2.ReceiveMessageResponse_Message:
			messages = append(messages, content.Message)
		case *v2.ReceiveMessageResponse_Status:
			if code := content.Status.GetCode(); code != v2.Code_OK && code != v2.Code_MESSAGE_NOT_FOUND {
				return messages, fmt.Errorf("receive: %w", check(content.Status))
			}
		}
	}
}

// ack acknowledges messages of a topic, and returns what went wrong with each, by receipt handle.
func (c *client) ack(ctx context.Context, topic string, entries []*v2.AckMessageEntry) (map[string]error, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := c.stub.AckMessage(ctx, &v2.AckMessageRequest{Group: c.resource(c.opts.Group), Topic: c.resource(topic), Entries: entries})
	if err != nil {
		return nil, fmt.Errorf("acknowledge: %w", err)
	}
	failed := map[string]error{}
	told := map[string]bool{}
	for _, entry := range answer.GetEntries() {
		told[entry.GetReceiptHandle()] = true
		if err := check(entry.GetStatus()); err != nil {
			failed[entry.GetReceiptHandle()] = err
		}
	}
	for _, entry := range entries { // of which nothing is said, the answer as a whole counts
		if err := check(answer.GetStatus()); err != nil && !told[entry.GetReceiptHandle()] {
			failed[entry.GetReceiptHandle()] = err
		}
	}
	return failed, nil
}

// hide keeps a message from others for a duration from now on, and returns its new receipt handle.
func (c *client) hide(ctx context.Context, topic, id, handle string, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := c.stub.ChangeInvisibleDuration(ctx, &v2.ChangeInvisibleDurationRequest{
		Group: c.resource(c.opts.Group), Topic: c.resource(topic), ReceiptHandle: handle, MessageId: id, InvisibleDuration: durationpb.New(d),
	})
	if err != nil {
		return "", fmt.Errorf("change the invisible duration: %w", err)
	}
	if err := check(answer.GetStatus()); err != nil {
		return "", fmt.Errorf("change the invisible duration: %w", err)
	}
	return answer.GetReceiptHandle(), nil
}

// settings say who this client is. The server takes no request to receive before it knows.
func (c *client) settings(at *v2.Endpoints) *v2.TelemetryCommand {
	kind := v2.ClientType_SIMPLE_CONSUMER
	subscription := &v2.Subscription{Group: c.resource(c.opts.Group), Fifo: &c.opts.FIFO, LongPollingTimeout: durationpb.New(pollTime)}
	for _, topic := range c.opts.Topics {
		subscription.Subscriptions = append(subscription.Subscriptions, &v2.SubscriptionEntry{Topic: c.resource(topic), Expression: c.filter()})
	}
	return &v2.TelemetryCommand{Command: &v2.TelemetryCommand_Settings{Settings: &v2.Settings{
		ClientType: &kind, AccessPoint: at, RequestTimeout: durationpb.New(requestTimeout),
		PubSub:    &v2.Settings_Subscription{Subscription: subscription},
		UserAgent: &v2.UA{Language: v2.Language_GOLANG, Version: clientVersion, Platform: "millrace"},
	}}}
}

// introduce tells the server the settings, calls told with those of the server whenever it says them, and returns when the
// server is gone, or told fails.
func (c *client) introduce(ctx context.Context, at *v2.Endpoints, told func(*v2.Settings) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.stub.Telemetry(ctx)
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	if err := stream.Send(c.settings(at)); err != nil && !errors.Is(err, io.EOF) { // at EOF Recv says why
		return fmt.Errorf("telemetry: %w", err)
	}
	for {
		command, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
		if err := check(command.GetStatus()); command.GetStatus() != nil && err != nil {
			return fmt.Errorf("telemetry: %w", err)
		}
		if s := command.GetSettings(); s != nil {
			if err := told(s); err != nil {
				return err
			}
		}
	}
}

// beat tells the server that the client lives.
func (c *client) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := c.stub.Heartbeat(ctx, &v2.HeartbeatRequest{Group: c.resource(c.opts.Group), ClientType: v2.ClientType_SIMPLE_CONSUMER})
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	return check(answer.GetStatus())
}

// leave tells the server that the client ends.
func (c *client) leave(ctx context.Context) {
	_, _ = c.stub.NotifyClientTermination(ctx, &v2.NotifyClientTerminationRequest{Group: c.resource(c.opts.Group)}) // it notices by itself, later
}

// endpoints returns an address as the protocol has it.
func endpoints(address string) *v2.Endpoints {
	host, port, _ := net.SplitHostPort(address) // Validate has seen to it
	number, _ := strconv.ParseInt(port, 10, 32)
	scheme := v2.AddressScheme_DOMAIN_NAME
	if ip := net.ParseIP(host); ip != nil {
		scheme = v2.AddressScheme_IPv6
		if ip.To4() != nil {
			scheme = v2.AddressScheme_IPv4
		}
	}
	return &v2.Endpoints{Scheme: scheme, Addresses: []*v2.Address{{Host: host, Port: int32(number)}}}
}

// addresses are those of endpoints, as host:port.
func addresses(e *v2.Endpoints) []string {
	var all []string
	for _, a := range e.GetAddresses() {
		all = append(all, net.JoinHostPort(a.GetHost(), strconv.Itoa(int(a.GetPort()))))
	}
	return all
}
