package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// store is the JetStream below the broker, seen past all proxies. The test looks at two things only: whether the work
// queues are empty, and what is parked.
type store struct{ js jetstream.JetStream }

func openStore(t testing.TB, addresses []string) *store {
	t.Helper()
	nc, err := nats.Connect("nats://"+strings.Join(addresses, ",nats://"), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return &store{js: js}
}

// streams returns the broker's streams.
func (s *store) streams(ctx context.Context) ([]*jetstream.StreamInfo, error) {
	var all []*jetstream.StreamInfo
	list := s.js.ListStreams(ctx)
	for info := range list.Info() {
		if info.Config.Metadata["millrace.dev/owner"] != "" {
			all = append(all, info)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("list streams: there are none of the broker")
	}
	return all, nil
}

// queued is how many messages the broker has not settled.
func (s *store) queued(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	all, err := s.streams(ctx)
	var n uint64
	for _, info := range all {
		if info.Config.Retention == jetstream.WorkQueuePolicy {
			n += info.State.Msgs
		}
	}
	return n, err
}

// parked calls visit for each parked event.
func (s *store) parked(t testing.TB, visit func(parked)) {
	t.Helper()
	all, err := s.streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		if !strings.HasSuffix(info.Config.Name, "_parked") || info.State.Msgs == 0 {
			continue
		}
		stream, err := s.js.Stream(t.Context(), info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
			msg, err := stream.GetMsg(t.Context(), seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			visit(parked{ID: firstOf(msg.Header, "ce-id"), Subject: msg.Subject})
		}
	}
}

// firstOf returns a header whose name may be written in any case.
func firstOf(h nats.Header, name string) string {
	for k, values := range h {
		if strings.EqualFold(k, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}
