package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/resolve"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/source/kafka"
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
	peers    *stream.Peers // nil outside a cluster

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
// fill the window of what producers post. In a cluster the controller is told how they are.
func newSourceRunner(ctx context.Context, conn *stream.Conn, o *Options) (*sources, error) {
	options := deliveryOptions(ctx, o)
	s := &sources{
		store: stream.NewPublisher(conn, 0), sender: delivery.NewSender(options), dialer: delivery.NewDialer(options),
		instance: o.Instance, tracer: o.tracer, log: o.Logger, running: map[string]*runningSource{},
	}
	if o.Cluster == nil {
		return s, nil
	}
	var err error
	if s.peers, err = conn.Join(stream.SourceGroup); err == nil {
		err = s.peers.Report(s.report)
	}
	if err != nil {
		return nil, fmt.Errorf("open the sources: %w", err)
	}
	return s, nil
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
			next[sm.uid] = &runningSource{model: sm, source: old.source, cancel: old.cancel, done: old.done}
			delete(s.running, sm.uid)
			continue
		}
		next[sm.uid] = s.start(sm, old)
	}
	for _, old := range s.running {
		old.cancel()
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

func (r *runningSource) state() sourceState {
	state := sourceState{kind: r.model.kind, key: r.model.key, Status: source.Status{Reason: r.model.reason, Message: r.model.message}}
	if r.source != nil {
		state.Status, state.target = r.source.Status(), r.model.sink.String()
	}
	return state
}

// states returns how all sources are, in order of their names.
func (s *sources) states() []sourceState {
	s.mu.Lock()
	running := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	states := make([]sourceState, 0, len(running))
	for _, r := range running {
		states = append(states, r.state())
	}
	slices.SortFunc(states, func(x, y sourceState) int {
		return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.kind, y.kind))
	})
	return states
}

// maxReportText is how many bytes of a message or an error are reported.
const maxReportText = 1024

// report says how the source with a UID is, as the controller wants to know it; nil if it is not there.
func (s *sources) report(uid string) []byte {
	s.mu.Lock()
	r := s.running[uid]
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	state := r.state()
	text, _ := json.Marshal(resolve.Report{ // none of it can fail
		State: r.model.state, Ready: state.Ready, Reason: state.Reason, Message: cut(state.Message), Transient: transient(state.Reason),
		Assigned: int32(min(state.Assigned, math.MaxInt32)), Lag: state.Lag, OldestSeconds: int64(state.Oldest.Seconds()),
		Waiting: state.Outlet.Waiting, LastError: cut(state.Outlet.LastError), LastErrorTime: state.Outlet.LastErrorAt,
	})
	return text
}

// transient says whether a reason for not being ready is likely to pass by itself within seconds.
func transient(reason string) bool {
	return slices.Contains([]string{source.ReasonConnecting, source.ReasonStopped, kafka.ReasonRebalancing, sourcesv1.ReasonNotResolvedYet}, reason)
}

func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxReportText)], "") }

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
	if s.peers != nil {
		s.peers.Leave()
	}
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
