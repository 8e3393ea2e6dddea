package app

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// startProvisioner runs a provisioner on a real JetStream.
func startProvisioner(t *testing.T, grace time.Duration, configure ...func(*provisioner)) (*provisioner, jetstream.JetStream) {
	t.Helper()
	srv, err := devserver.Start(devserver.Options{Dir: filepath.Join(t.TempDir(), "store")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	p := newProvisioner(log, grace)
	for _, c := range configure {
		c(p)
	}
	if p.conn, err = stream.Dial(stream.ConnOptions{InProcess: srv, Logger: log, OnReconnect: p.recheck}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.conn.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return p, js
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func streamsOf(name string, l stream.Limits) brokerStreams {
	return brokerStreams{stream.NewNames("default", name, "uid-"+name), l.WithDefaults()}
}

func (p *provisioner) settled() bool {
	return p.check() == nil && len(p.faults()) == 0
}

func TestProvisionerAppliesChangedLimits(t *testing.T) {
	p, js := startProvisioner(t, 0)
	small, large := streamsOf("b", stream.Limits{MaxBytes: 32 << 20}), streamsOf("b", stream.Limits{MaxBytes: 64 << 20})
	maxBytes := func() int64 {
		s, err := js.Stream(t.Context(), small.names.Events)
		if err != nil {
			return 0
		}
		return s.CachedInfo().Config.MaxBytes
	}
	p.apply([]brokerStreams{small}, true)
	if err := p.check(); err == nil || !strings.Contains(err.Error(), "default/b") {
		t.Errorf("before the streams are there: %v", err)
	}
	eventually(t, "the streams are there", func() bool { return p.settled() && p.ready(small.names) })
	for _, w := range []brokerStreams{large, small} {
		p.apply([]brokerStreams{w}, true)
		eventually(t, "the limit is changed", func() bool { return maxBytes() == w.limits.MaxBytes && p.settled() })
	}
}

// One Broker's impossible wish is told and takes nobody out of service; if nothing works, that is told too.
func TestProvisionerOutlivesARefusal(t *testing.T) {
	p, _ := startProvisioner(t, 0)
	good, bad := streamsOf("good", stream.Limits{}), streamsOf("bad", stream.Limits{Replicas: 3})
	p.apply([]brokerStreams{bad, good}, true)
	eventually(t, "both were tried", func() bool { return p.ready(good.names) && len(p.faults()) == 1 })
	if err := p.check(); err != nil {
		t.Errorf("not ready because of one broker: %v", err)
	}
	if got := p.faults()["broker default/bad"]; !strings.Contains(got, "replicas") {
		t.Errorf("faults %v", p.faults())
	}
	if p.ready(bad.names) {
		t.Error("a broker without streams passes for ready")
	}
	p.apply([]brokerStreams{bad}, true)
	eventually(t, "no broker works", func() bool { return errors.Is(p.check(), stream.ErrRefused) })
	// What the store cannot change on a stream that is there keeps nobody from using it.
	p.apply([]brokerStreams{streamsOf("good", stream.Limits{Replicas: 3})}, true)
	eventually(t, "the refusal is told", func() bool { return len(p.faults()) == 1 })
	if err := p.check(); err != nil || !p.ready(good.names) {
		t.Errorf("not ready although the streams are there: %v", err)
	}
}

// Where a controller makes the streams, a Broker it has not got to yet keeps no other from being served.
func TestProvisionerObserves(t *testing.T) {
	p, js := startProvisioner(t, 0, func(p *provisioner) { p.observe = true })
	made, waiting := streamsOf("made", stream.Limits{}), streamsOf("waiting", stream.Limits{})
	p.apply([]brokerStreams{waiting}, true)
	eventually(t, "the missing streams are told", func() bool { return errors.Is(p.check(), errNotMade) })
	if _, err := js.Stream(t.Context(), waiting.names.Events); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("looking for a stream gave %v, want that there is none", err)
	}
	if err := p.conn.Ensure(t.Context(), made.names, made.limits); err != nil {
		t.Fatal(err)
	}
	p.apply([]brokerStreams{waiting, made}, true)
	eventually(t, "the streams that are there are found", func() bool { return p.check() == nil && p.ready(made.names) })
	if p.ready(waiting.names) {
		t.Error("a broker without streams passes for ready")
	}
	if err := p.conn.Ensure(t.Context(), waiting.names, waiting.limits); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new streams are found", p.settled)
}

func TestProvisionerMakesLostStreamsAnew(t *testing.T) {
	p, js := startProvisioner(t, 0)
	w := streamsOf("b", stream.Limits{})
	p.apply([]brokerStreams{w}, true)
	eventually(t, "the streams are there", p.settled)
	if err := js.DeleteStream(t.Context(), w.names.Retries); err != nil {
		t.Fatal(err)
	}
	p.recheck() // as after a reconnection
	eventually(t, "the stream is there again", func() bool {
		_, err := js.Stream(t.Context(), w.names.Retries)
		return err == nil && p.settled()
	})
}

func TestProvisionerSweepsOnlyWhenToldAndSure(t *testing.T) {
	for name, c := range map[string]struct {
		grace time.Duration
		sure  bool
		kept  bool
	}{
		"told":         {time.Nanosecond, true, false},
		"not told":     {0, true, true},
		"with mistake": {time.Nanosecond, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			p, js := startProvisioner(t, c.grace)
			gone, stays := streamsOf("gone", stream.Limits{}), streamsOf("stays", stream.Limits{})
			p.apply([]brokerStreams{gone, stays}, c.sure)
			eventually(t, "the streams are there", p.settled)
			e := &event.Event{}
			for _, attribute := range []string{event.ID, event.Source, event.Type} {
				e.Set(attribute, "x", event.String)
			}
			e.Set(event.SpecVersion, "1.0", event.String)
			if err := stream.NewPublisher(p.conn, 0).Publish(t.Context(), stays.names, stream.Message{Event: e}); err != nil {
				t.Fatal(err)
			}
			p.apply([]brokerStreams{stays, streamsOf("new", stream.Limits{})}, c.sure)
			eventually(t, "the new streams are there", p.settled)
			exist := func() bool {
				_, err := js.Stream(t.Context(), gone.names.Events)
				return err == nil
			}
			if c.kept {
				p.sweep(t.Context())
				if !exist() {
					t.Error("the stream was deleted")
				}
			} else {
				eventually(t, "the stream is deleted", func() bool { p.signal(); return !exist() })
			}
			if st, err := p.conn.StreamState(t.Context(), stays.names.Events); err != nil || st.Messages != 1 {
				t.Errorf("the stream of a broker that stays: %+v, %v", st, err)
			}
		})
	}
}
