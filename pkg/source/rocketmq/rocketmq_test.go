package rocketmq_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the protocol signs with it
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/rocketmq"
	"millrace.dev/pkg/source/sourcetest"
)

// orders is the topic of a fake that has one queue. Its group is orderly, for the contract is about order too.
type orders struct{ *fake }

func (s orders) New(outlet *source.Outlet) source.Source {
	o := s.options()
	o.FIFO, o.Outlet, o.Drain = true, outlet, time.Second
	o.Logger = slog.New(slog.DiscardHandler)
	return rocketmq.New(o)
}

func (s orders) Write(t *testing.T, data ...string) {
	t.Helper()
	group := "one"
	for _, d := range data {
		s.write("orders", &v2.Message{Body: []byte(d), SystemProperties: &v2.SystemProperties{MessageGroup: &group}})
	}
}

func TestContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.System {
		t.Helper()
		f := startFake(t, "orders")
		f.orderly = true
		return orders{f}
	})
}

// sink keeps what it takes.
type sink struct {
	mu    sync.Mutex
	taken []string
	err   error
}

func (s *sink) Batch() int { return 8 }

func (s *sink) Send(_ context.Context, msgs []source.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	for _, m := range msgs {
		s.taken = append(s.taken, string(m.Event.Data))
	}
	return len(msgs), nil
}

func (s *sink) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.taken)
}

// run runs a source until the test ends, or until the function returned is called.
func run(t *testing.T, o rocketmq.Options, to source.Sink) (*rocketmq.Source, func()) {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	o.Outlet = source.NewOutlet(source.OutletOptions{Sink: to, Policy: delivery.Policy{BackoffDelay: 5 * time.Millisecond}, Logger: o.Logger})
	s := rocketmq.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return s, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const patience = 40 * time.Second
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// left is how many messages of a topic are not acknowledged.
func (f *fake) left(topic string) (n int) {
	f.locked(func() { n = len(f.topics[topic].messages) })
	return n
}

// TestReasons lets a source run into what can be wrong with servers, and then has it mended.
func TestReasons(t *testing.T) {
	tests := []struct {
		name, reason, says string
		spoil, mend        func(*fake)
		change             func(*rocketmq.Options)
	}{
		{
			name: "topic missing", reason: rocketmq.ReasonTopicMissing, says: "orders",
			spoil: func(f *fake) { delete(f.topics, "orders") },
			mend:  func(f *fake) { f.topics["orders"] = &queue{} },
		},
		{
			name: "group missing", reason: rocketmq.ReasonGroupMissing, says: "mqadmin updateSubGroup -g wall",
			spoil: func(f *fake) { f.group = "other" },
			mend:  func(f *fake) { f.group = "wall" },
		},
		{
			name: "group not orderly", reason: rocketmq.ReasonGroupNotOrderly, says: "-o true",
			change: func(o *rocketmq.Options) { o.FIFO = true },
			spoil:  func(*fake) {},
			mend:   func(f *fake) { f.orderly = true },
		},
		{
			name: "user unknown", reason: source.ReasonAuthenticationFailed, says: "spec.net.credentials",
			spoil: func(f *fake) { f.failures["Telemetry"] = []v2.Code{v2.Code_UNAUTHORIZED} },
			mend:  func(*fake) {},
		},
		{
			name: "user not allowed", reason: source.ReasonNotAuthorized, says: "allow the user",
			spoil: func(f *fake) { f.failures["QueryRoute"] = slices.Repeat([]v2.Code{v2.Code_FORBIDDEN}, 2) },
			mend:  func(*fake) {},
		},
		{
			name: "filter invalid", reason: rocketmq.ReasonFilterInvalid, says: "spec.filter",
			spoil: func(f *fake) {
				f.failures["ReceiveMessage"] = slices.Repeat([]v2.Code{v2.Code_ILLEGAL_FILTER_EXPRESSION}, 8)
			},
			mend: func(*fake) {},
		},
		{
			name: "too many requests", reason: rocketmq.ReasonThrottled, says: "for now",
			spoil: func(f *fake) { f.failures["ReceiveMessage"] = slices.Repeat([]v2.Code{v2.Code_TOO_MANY_REQUESTS}, 8) },
			mend:  func(*fake) {},
		},
		{
			name: "server failed", reason: rocketmq.ReasonServerFailed, says: "50002",
			spoil: func(f *fake) { f.failures["ReceiveMessage"] = slices.Repeat([]v2.Code{v2.Code_HA_NOT_AVAILABLE}, 8) },
			mend:  func(*fake) {},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, "orders")
			f.locked(func() { test.spoil(f) })
			o := f.options()
			if test.change != nil {
				test.change(&o)
			}
			to := &sink{}
			s, _ := run(t, o, to)
			var last source.Status
			eventually(t, test.reason, func() bool {
				last = s.Status()
				return last.Reason == test.reason
			})
			if last.Ready || !strings.Contains(last.Message, test.says) {
				t.Errorf("want %q to be said, got %+v", test.says, last)
			}
			f.locked(func() { test.mend(f) })
			eventually(t, "the topic is there", func() bool {
				there := false
				f.locked(func() { there = f.topics["orders"] != nil })
				return there
			})
			f.write("orders", &v2.Message{Body: []byte("x")})
			eventually(t, "it goes on", func() bool { return len(to.got()) == 1 && s.Status().Ready })
		})
	}
}

// TestUnreachable says what to look at when no proxy answers: nothing, or something that speaks another protocol.
func TestUnreachable(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // as a server of RocketMQ 4 does with what it does not understand
		}
	}()
	closed, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, test := range map[string]struct{ address, says string }{
		"nothing":     {closed.Addr().String(), "connection refused"},
		"not a proxy": {l.Addr().String(), "must be the gRPC port of a proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := run(t, rocketmq.Options{Namespace: "shop", Name: "gifts", Endpoint: test.address, Topics: []string{"orders"}, Group: "wall"}, &sink{})
			eventually(t, "it says "+test.says, func() bool {
				status := s.Status()
				return status.Reason == source.ReasonUnreachable && strings.Contains(status.Message, test.says)
			})
		})
	}
}

// TestHidden holds messages for longer than the server keeps them from others, and counts that none was handed out twice.
func TestHidden(t *testing.T) {
	t.Parallel()
	f := startFake(t, "orders")
	to := &sink{err: &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("away")}}}
	o := f.options()
	o.Invisible = 3 * time.Second
	s, _ := run(t, o, to)
	for n := range 50 {
		f.write("orders", &v2.Message{Body: fmt.Append(nil, n)})
	}
	eventually(t, "all are held", func() bool { return s.Status().Lag == 50 })
	hides := 0
	eventually(t, "each was hidden for longer several times", func() bool {
		f.locked(func() { hides = f.hides })
		return hides >= 4*50
	})
	to.set(nil)
	eventually(t, "all are delivered and acknowledged", func() bool { return len(to.got()) == 50 && f.left("orders") == 0 })
	f.locked(func() {
		for id, n := range f.attempts {
			if n != 1 {
				t.Errorf("message %s was handed out %d times", id, n)
			}
		}
	})
}

// TestAckFails has acknowledgments refused: they are repeated, and what is handed out again though it was delivered is
// acknowledged without being delivered again.
func TestAckFails(t *testing.T) {
	t.Parallel()
	f := startFake(t, "orders")
	f.failures["AckMessage"] = slices.Repeat([]v2.Code{v2.Code_INTERNAL_SERVER_ERROR}, 5)
	to := &sink{}
	s, _ := run(t, f.options(), to)
	f.write("orders", &v2.Message{Body: []byte("a")}, &v2.Message{Body: []byte("b")})
	eventually(t, "both are acknowledged", func() bool { return f.left("orders") == 0 && s.Status().Lag == 0 })
	if got := to.got(); len(got) != 2 {
		t.Errorf("delivered %v, want each once", got)
	}
	var acks int
	f.locked(func() { acks = f.acks })
	if acks < 6 {
		t.Errorf("%d requests to acknowledge, want the failed ones repeated", acks)
	}
}

// TestReceiptLost makes a receipt worthless while its message is held. It is handed out again, and its new receipt counts.
func TestReceiptLost(t *testing.T) {
	t.Parallel()
	f := startFake(t, "orders")
	to := &sink{err: &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("away")}}}
	s, _ := run(t, f.options(), to)
	f.write("orders", &v2.Message{Body: []byte("a")})
	eventually(t, "it is held", func() bool { return s.Status().Lag == 1 })
	f.locked(func() { f.topics["orders"].messages[0].visible = time.Time{} })
	eventually(t, "it was handed out again", func() bool {
		n := 0
		f.locked(func() { n = f.attempts["orders-1"] })
		return n == 2
	})
	to.set(nil)
	eventually(t, "it is acknowledged", func() bool { return f.left("orders") == 0 && s.Status().Lag == 0 })
	if got := to.got(); len(got) != 1 {
		t.Errorf("delivered %v, want it once", got)
	}
}

// TestSigned holds requests to the protocol's way to prove who asks, and keeps the key out of them.
func TestSigned(t *testing.T) {
	f := startFake(t, "orders")
	o := f.options()
	o.InstanceNamespace, o.Credentials = "live", &rocketmq.Credentials{AccessKey: "alice", SecretKey: "hush", SecurityToken: "token"}
	run(t, o, &sink{})
	var got map[string]string
	eventually(t, "it asks", func() bool {
		f.locked(func() { got = f.signed })
		return got != nil
	})
	mac := hmac.New(sha1.New, []byte("hush"))
	mac.Write([]byte(got["x-mq-date-time"]))
	want := "MQv2-HMAC-SHA1 Credential=alice//Rocketmq, SignedHeaders=x-mq-date-time, Signature=" + strings.ToUpper(hex.EncodeToString(mac.Sum(nil)))
	if got["authorization"] != want {
		t.Errorf("authorization %q, want %q", got["authorization"], want)
	}
	if got["x-mq-session-token"] != "token" || got["x-mq-namespace"] != "live" || got["x-mq-client-id"] == "" {
		t.Errorf("metadata %v", got)
	}
	for key, value := range got {
		if strings.Contains(value, "hush") {
			t.Errorf("%s gives the key away", key)
		}
	}
}

// TestFilter passes the filter on to the server.
func TestFilter(t *testing.T) {
	for want, change := range map[string]func(*rocketmq.Options){
		"TAG *":         func(*rocketmq.Options) {},
		"TAG gift||tip": func(o *rocketmq.Options) { o.Tag = "gift||tip" },
		"SQL price > 5": func(o *rocketmq.Options) { o.SQL = "price > 5" },
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, "orders")
			o := f.options()
			change(&o)
			run(t, o, &sink{})
			eventually(t, "the server knows it", func() bool {
				got := ""
				f.locked(func() {
					if f.filter != nil {
						got = f.filter.GetType().String() + " " + f.filter.GetExpression()
					}
				})
				return got == want
			})
		})
	}
}

// TestReleased gives back what is held when the source stops, so that others need not wait for it.
func TestReleased(t *testing.T) {
	t.Parallel()
	f := startFake(t, "orders")
	o := f.options()
	o.Invisible, o.Drain = 10*time.Minute, 50*time.Millisecond
	to := &sink{err: &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("away")}}}
	s, stop := run(t, o, to)
	f.write("orders", &v2.Message{Body: []byte("a")})
	eventually(t, "it is held", func() bool { return s.Status().Lag == 1 })
	stop()
	next := &sink{}
	run(t, o, next)
	eventually(t, "another has it", func() bool { return len(next.got()) == 1 })
}
