package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/stream"
)

// watchSourcesEvery is how often it is looked whether the state of a source has changed.
const watchSourcesEvery = 200 * time.Millisecond

// sources runs the sources of the manifests. Each has clients and goroutines of its own, so that one that cannot go on
// holds up no other.
type sources struct {
	store    source.Store
	sender   *delivery.Sender
	dialer   *net.Dialer
	instance string
	tracer   observe.Tracer // nil for none
	log      *slog.Logger

	mu      sync.Mutex
	loaded  bool
	running map[string]*runningSource // by UID
}

// runningSource is a source at work, or one that is not to work.
type runningSource struct {
	model  *sourceModel
	source source.Source // nil if it is not to work
	cancel context.CancelFunc
	done   chan struct{}
}

// newSourceRunner returns what runs sources. Their events are stored through a Publisher of their own, so that they do not
// fill the window of what producers post.
func newSourceRunner(ctx context.Context, conn *stream.Conn, o *Options) *sources {
	options := deliveryOptions(ctx, o)
	return &sources{
		store: stream.NewPublisher(conn, 0), sender: delivery.NewSender(options), dialer: delivery.NewDialer(options),
		instance: o.Instance, tracer: o.tracer, log: o.Logger, running: map[string]*runningSource{},
	}
}

// apply starts what is new, stops what is gone, and restarts what has changed.
func (s *sources) apply(m *model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loaded = true
	next := make(map[string]*runningSource, len(m.sources))
	for _, sm := range m.sources {
		old := s.running[sm.uid]
		if old != nil && old.model.fingerprint == sm.fingerprint {
			next[sm.uid] = old
			continue
		}
		next[sm.uid] = s.start(sm, old)
	}
	for uid, old := range s.running {
		if next[uid] != old {
			old.cancel()
		}
	}
	s.running = next
}

// start runs a source as soon as an earlier version of it has stopped.
func (s *sources) start(m *sourceModel, before *runningSource) *runningSource {
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningSource{model: m, cancel: cancel, done: make(chan struct{})}
	if m.reason == "" {
		r.source = s.newSource(m)
	}
	go func() {
		defer close(r.done)
		if before != nil {
			<-before.done
		}
		if r.source != nil {
			r.source.Run(ctx)
		}
	}()
	return r
}

func (s *sources) newSource(m *sourceModel) source.Source {
	outlet := source.OutletOptions{
		Sink: s.newSink(m, m.sink), Policy: m.policy, Drop: m.drop, Logger: s.log.With(slog.String("source", m.key)),
	}
	if m.dead != nil {
		outlet.DeadLetter = s.newSink(m, m.dead)
	}
	return m.open(sourceRun{dialer: s.dialer, outlet: source.NewOutlet(outlet), log: s.log, instance: s.instance})
}

func (s *sources) newSink(m *sourceModel, to *sinkModel) source.Sink {
	if to.broker != nil {
		sink := source.NewBrokerSink(s.store, to.broker, m.uid, to.limits)
		sink.Trace(s.tracer)
		return sink
	}
	return source.NewHTTPSink(s.sender, source.HTTPOptions{
		URL: to.url, Host: to.host, Namespace: m.namespace, Timeout: m.policy.Timeout, Format: m.policy.Format,
	})
}

// sourceState is how a source is.
type sourceState struct {
	kind, key, target string
	source.Status
}

// states returns how all sources are, in order of their names.
func (s *sources) states() []sourceState {
	s.mu.Lock()
	running := make([]*runningSource, 0, len(s.running))
	for _, r := range s.running {
		running = append(running, r)
	}
	s.mu.Unlock()
	states := make([]sourceState, 0, len(running))
	for _, r := range running {
		state := sourceState{kind: r.model.kind, key: r.model.key, Status: source.Status{Reason: r.model.reason, Message: r.model.message}}
		if r.source != nil {
			state.Status, state.target = r.source.Status(), r.model.sink.String()
		}
		states = append(states, state)
	}
	slices.SortFunc(states, func(x, y sourceState) int {
		return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.kind, y.kind))
	})
	return states
}

// ready is nil if the sources are known. That one of them cannot work takes no process out of service.
func (s *sources) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return errors.New("sources are not loaded yet")
	}
	return nil
}

// faults are the sources that do not work as they should, with the reason.
func (s *sources) faults() map[string]string {
	found := map[string]string{}
	for _, state := range s.states() {
		switch {
		case !state.Ready:
			found[state.kind+" "+state.key] = state.Reason + ": " + state.Message
		case state.Outlet.Waiting > 0:
			found[state.kind+" "+state.key] = "waiting to try again: " + state.Outlet.LastError
		}
	}
	return found
}

// watch calls tell for each source whose state has changed, until ctx ends.
func (s *sources) watch(ctx context.Context, tell func(sourceState)) {
	known := map[[2]string][3]string{}
	tick := time.NewTicker(watchSourcesEvery)
	defer tick.Stop()
	for {
		for _, state := range s.states() {
			now := [3]string{state.Reason, state.Message, state.target}
			name := [2]string{state.kind, state.key}
			if last, ok := known[name]; !ok || last != now {
				known[name] = now
				tell(state)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// logState logs the state of a source.
func (s *sources) logState(state sourceState) {
	if state.Ready {
		s.log.Info("source is ready", slog.String("kind", state.kind), slog.String("source", state.key), slog.String("sink", state.target))
		return
	}
	s.log.Warn("source is not ready", slog.String("kind", state.kind), slog.String("source", state.key),
		slog.String("reason", state.Reason), slog.String("message", state.Message))
}

// stop ends all sources and waits for them, for as long as ctx allows.
func (s *sources) stop(ctx context.Context) error {
	s.mu.Lock()
	running := s.running
	s.running = map[string]*runningSource{}
	s.mu.Unlock()
	for _, r := range running {
		r.cancel()
	}
	for _, r := range running {
		select {
		case <-r.done:
		case <-ctx.Done():
			return errors.New("sources have not finished; what is not committed is read again")
		}
	}
	s.sender.Close()
	return nil
}
