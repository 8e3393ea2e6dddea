// Package sourcetest holds every kind of source to what package source promises of one.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/source"
)

// patience bounds every wait.
const patience = 30 * time.Second

// System is a system that has messages, with one queue, partition or the like for all of them.
type System interface {
	// New returns a source that reads the system from its beginning, or from where an earlier one has left off, and hands
	// each message to the outlet in order.
	New(outlet *source.Outlet) source.Source
	// Write adds messages with the given data.
	Write(t *testing.T, data ...string)
}

// Run runs the contract. Each part of it gets a System of its own from open.
func Run(t *testing.T, open func(t *testing.T) System) {
	for name, part := range map[string]func(*testing.T, *rig){
		"delivers each message once and in order":              delivers,
		"waits while the sink is down":                         waits,
		"goes on where a stopped one has left off":             goesOn,
		"skips only what the dead letter sink has":             skips,
		"stops in bounded time while the sink does not answer": stops,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, &rig{system: open(t), sink: &sink{}, dead: &sink{}})
		})
	}
}

func delivers(t *testing.T, r *rig) {
	r.system.Write(t, numbers(1, 100)...)
	s := r.start(t)
	r.sink.wait(t, numbers(1, 100))
	r.system.Write(t, numbers(101, 200)...)
	r.sink.wait(t, numbers(1, 200))
	eventually(t, "it is ready and nothing is left", func() bool {
		status := s.Status()
		return status.Ready && status.Reason == "" && status.Lag == 0 && status.Held == 0 && status.Oldest == 0 && status.Outlet.Sent == 200
	})
}

func waits(t *testing.T, r *rig) {
	r.sink.refuse(func(string) error {
		return &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("away")}}
	})
	r.system.Write(t, numbers(1, 50)...)
	s := r.start(t)
	eventually(t, "it says that it waits", func() bool {
		status := s.Status()
		return status.Outlet.Waiting > 0 && status.Outlet.LastError == "away" && status.Held > 0 && status.Oldest > 0
	})
	r.sink.refuse(nil)
	r.sink.wait(t, numbers(1, 50))
}

func goesOn(t *testing.T, r *rig) {
	r.system.Write(t, numbers(1, 50)...)
	first := r.start(t)
	r.sink.wait(t, numbers(1, 50))
	first.stop(t)
	if status := first.Status(); status.Ready || status.Reason != source.ReasonStopped {
		t.Errorf("stopped, it says %+v", status)
	}
	r.system.Write(t, numbers(51, 60)...)
	r.start(t)
	r.sink.wait(t, numbers(1, 60))
}

func skips(t *testing.T, r *rig) {
	r.sink.refuse(func(data string) error {
		if data == "3" {
			return &source.Failure{Result: delivery.Result{Status: 400}}
		}
		return nil
	})
	r.dead.refuse(func(string) error { return &source.Failure{Result: delivery.Result{Status: 503}} })
	r.system.Write(t, numbers(1, 5)...)
	s := r.start(t)
	eventually(t, "the dead letter sink was tried", func() bool { return s.Status().Outlet.Failed >= 4 })
	r.sink.wait(t, numbers(1, 2))
	r.dead.refuse(nil)
	r.sink.wait(t, []string{"1", "2", "4", "5"})
	r.dead.wait(t, []string{"3"})
}

func stops(t *testing.T, r *rig) {
	r.sink.hang()
	r.system.Write(t, numbers(1, 5)...)
	s := r.start(t)
	eventually(t, "it has received messages", func() bool { return s.Status().Held > 0 })
	s.stop(t)
	r.sink.resume()
	r.start(t)
	r.sink.wait(t, numbers(1, 5))
}

// rig is a System with sinks.
type rig struct {
	system     System
	sink, dead *sink
}

// running is a source at work.
type running struct {
	source.Source
	cancel context.CancelFunc
	done   chan struct{}
}

func (r *rig) start(t *testing.T) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &running{cancel: cancel, done: make(chan struct{}), Source: r.system.New(source.NewOutlet(source.OutletOptions{
		Sink: r.sink, DeadLetter: r.dead, Policy: delivery.Policy{Retries: 2, BackoffDelay: 5 * time.Millisecond},
		Logger: slog.New(slog.DiscardHandler),
	}))}
	go func() {
		defer close(s.done)
		s.Run(ctx)
	}()
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *running) stop(t *testing.T) {
	t.Helper()
	s.cancel()
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatalf("it did not stop within %v", patience)
	}
}

// sink is a Sink that keeps what it takes.
type sink struct {
	mu      sync.Mutex
	taken   []string
	refused func(data string) error
	hanging bool
}

// Batch implements [source.Sink].
func (s *sink) Batch() int { return 7 }

// Send implements [source.Sink].
func (s *sink) Send(ctx context.Context, msgs []source.Message) (int, error) {
	s.mu.Lock()
	hanging := s.hanging
	s.mu.Unlock()
	if hanging {
		<-ctx.Done()
		return 0, fmt.Errorf("hang: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range msgs {
		if s.refused != nil {
			if err := s.refused(string(m.Event.Data)); err != nil {
				return i, err
			}
		}
		s.taken = append(s.taken, string(m.Event.Data))
	}
	return len(msgs), nil
}

func (s *sink) refuse(why func(data string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = why
}

func (s *sink) hang() { s.setHanging(true) }

func (s *sink) resume() { s.setHanging(false) }

func (s *sink) setHanging(hanging bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hanging = hanging
}

// wait waits until the sink has taken as many events as are wanted, and fails if they are others.
func (s *sink) wait(t *testing.T, want []string) {
	t.Helper()
	var got []string
	eventually(t, fmt.Sprintf("%d events are taken", len(want)), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = slices.Clone(s.taken)
		return len(got) >= len(want)
	})
	if !slices.Equal(got, want) {
		t.Fatalf("taken %v, want %v", got, want)
	}
}

func numbers(first, last int) []string {
	var all []string
	for n := first; n <= last; n++ {
		all = append(all, fmt.Sprint(n))
	}
	return all
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
