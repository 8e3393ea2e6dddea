package kafka

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/source"
)

const (
	// setupPause is the pause after the cluster could not be asked.
	setupPause = 2 * time.Second
	// lookEvery is how often is looked for topics that are missing and for the ends of partitions.
	lookEvery = 5 * time.Second
)

// Source reads the topics of a Kafka cluster. It implements [source.Source].
type Source struct {
	opts Options
	work work

	mu      sync.Mutex
	ready   bool
	reason  string
	message string
	missing []string
	stuck   map[place]obstacle
	dialErr error // of the last connection that failed, nil once one succeeded
	warned  time.Time
	member  *member
}

// obstacle is what keeps a partition from being read on: the reason, and what to do.
type obstacle struct{ reason, message string }

// New returns a Source, which does nothing until it runs.
func New(o Options) *Source {
	o = o.withDefaults()
	return &Source{
		opts: o, reason: source.ReasonConnecting, message: "connecting to " + strings.Join(o.Servers, ","),
		work: work{outlet: o.Outlet, order: o.Order, mapper: &mapper{
			source: "/apis/v1/namespaces/" + o.Namespace + "/kafkasources/" + o.Name, key: o.KeyType, overrides: o.Extensions,
		}},
	}
}

// Run implements [source.Source].
func (s *Source) Run(ctx context.Context) {
	defer s.set(false, source.ReasonStopped, "the source does not run")
	asking, err := kgo.NewClient(s.opts.connection(hooks{s})...)
	if err != nil {
		// Options are checked when the object is loaded, so that only a mistake of ours leads here.
		s.fail(ctx, err)
		<-ctx.Done()
		return
	}
	defer asking.Close()
	c := newCluster(asking, s.opts.Group)
	there, fixed, ok := s.setUp(ctx, c)
	if !ok {
		return
	}
	m, err := newMember(s, c, there, fixed)
	if err != nil {
		s.fail(ctx, err)
		<-ctx.Done()
		return
	}
	s.mu.Lock()
	s.member = m
	s.mu.Unlock()
	m.run(ctx)
}

// setUp waits until one of the topics is there, and fixes where to begin. It returns false if ctx ended before.
func (s *Source) setUp(ctx context.Context, c *cluster) (there []string, fixed offsets, ok bool) {
	waited := map[string]bool{} // topics that were missing: all that is in them is new
	for ; ctx.Err() == nil; source.Sleep(ctx, setupPause) {
		there, missing, err := c.topics(ctx, s.opts.Topics)
		if err != nil {
			s.fail(ctx, err)
			continue
		}
		s.setMissing(missing)
		for _, topic := range missing {
			waited[topic] = true
		}
		if len(there) == 0 {
			continue
		}
		fixed, err := s.begin(ctx, c, there, waited)
		if err != nil {
			s.fail(ctx, err)
			continue
		}
		s.set(false, ReasonRebalancing, "waiting for partitions")
		return there, fixed, true
	}
	return nil, nil, false
}

// begin fixes where to begin in topics of which the group has no offsets: at the start of those that were waited for,
// and at the end of the others, unless all of them are wanted from the start.
func (s *Source) begin(ctx context.Context, c *cluster, topics []string, waited map[string]bool) (offsets, error) {
	if s.opts.FromStart {
		return offsets{}, nil
	}
	var fresh, old []string
	for _, topic := range topics {
		if waited[topic] {
			fresh = append(fresh, topic)
		} else {
			old = append(old, topic)
		}
	}
	fixed, err := c.fix(ctx, fresh, c.admin.ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ends, err := c.fix(ctx, old, c.admin.ListEndOffsets)
	maps.Copy(fixed, ends)
	return fixed, err
}

// set changes whether the source is ready.
func (s *Source) set(ready bool, reason, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.reason, s.message = ready, reason, message
}

// setMissing takes note of the topics that do not exist.
func (s *Source) setMissing(topics []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing = topics
}

// setStuck takes note of what keeps a partition from being read on.
func (s *Source) setStuck(at place, reason, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck == nil {
		s.stuck = map[place]obstacle{}
	}
	s.stuck[at] = obstacle{reason, message}
}

// setFree takes note that nothing keeps a partition from being read on.
func (s *Source) setFree(at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stuck, at)
}

// fail takes note of an error that keeps the source from working, and logs it if it is new.
func (s *Source) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	if s.dialErr != nil {
		err = errors.Join(err, s.dialErr) // the client's own error tells only that it gave up
	}
	reason, message := explain(err, s.opts.Group)
	fresh := s.reason != reason
	s.ready, s.reason, s.message = false, reason, message
	s.mu.Unlock()
	if fresh {
		s.opts.Logger.WarnContext(ctx, "a source cannot work; trying again", slog.String("reason", reason), slog.Any("error", err))
	}
}

// warn logs what passes by itself and may happen many times a second, at most once a minute.
func (s *Source) warn(ctx context.Context, err error, attrs ...any) {
	s.mu.Lock()
	due := time.Since(s.warned) >= time.Minute
	if due {
		s.warned = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.opts.Logger.WarnContext(ctx, "kafka does not do what a source asks; trying again", append(attrs, slog.Any("error", err))...)
	}
}

// Status implements [source.Source].
func (s *Source) Status() source.Status {
	s.mu.Lock()
	status := source.Status{Ready: s.ready, Reason: s.reason, Message: s.message, Outlet: s.opts.Outlet.Stats()}
	if len(s.missing) > 0 && (s.ready || s.reason == source.ReasonConnecting || s.reason == ReasonRebalancing) {
		status.Ready, status.Reason = false, ReasonTopicMissing
		status.Message = "waiting for topics that do not exist: " + strings.Join(s.missing, ", ")
	}
	if status.Ready && len(s.stuck) > 0 {
		status.Ready = false
		status.Reason, status.Message = summary(s.stuck)
	}
	m := s.member
	s.mu.Unlock()
	if m != nil {
		m.report(&status)
	}
	return status
}

// summary returns the first reason of some obstacles, and what all say that have it.
func summary(obstacles map[place]obstacle) (reason, message string) {
	var messages []string
	for _, o := range obstacles {
		if reason == "" || o.reason < reason {
			reason = o.reason
		}
	}
	for _, o := range obstacles {
		if o.reason == reason {
			messages = append(messages, o.message)
		}
	}
	slices.Sort(messages)
	return reason, strings.Join(slices.Compact(messages), "; ")
}

// hooks are told by a client what happens to its connections and its membership.
type hooks struct{ source *Source }

// OnBrokerConnect implements [kgo.HookBrokerConnect].
func (h hooks) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.source.mu.Lock()
	defer h.source.mu.Unlock()
	h.source.dialErr = err
}

// OnGroupManageError implements [kgo.HookGroupManageError].
func (h hooks) OnGroupManageError(err error) {
	h.source.fail(context.Background(), err)
}
