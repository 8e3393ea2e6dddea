package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"github.com/google/uuid"

	"millrace.dev/pkg/source"
)

const (
	// pause is the pause after a request has failed.
	pause = 2 * time.Second
	// lookEvery is how often is looked where the queues of topics are.
	lookEvery = 15 * time.Second
	// beatEvery is how often a server is told that the client lives.
	beatEvery = 10 * time.Second
	// receivers are how many requests for messages of a topic wait at each broker.
	receivers = 4
	// farewell bounds what is told the servers at the end.
	farewell = 5 * time.Second
)

// Source reads the topics of a RocketMQ cluster. It implements [source.Source].
type Source struct {
	opts   Options
	mapper *mapper
	keeper *keeper
	id     string // as which the servers know it

	mu      sync.Mutex
	stopped bool
	err     error // of the last look for queues
	missing []string
	servers map[string]*server  // by address
	readers map[reading]*reader // by what they read
	queues  int
	warned  time.Time
	logged  string // the reason logged last
}

// reading is what a reader reads: the queues of a topic at a broker.
type reading struct {
	topic, broker, address string
}

// reader receives messages.
type reader struct {
	queue  *v2.MessageQueue
	server *server
	cancel context.CancelFunc

	mu    sync.Mutex
	began bool  // a request was answered, so that the group has a position in each queue
	err   error // of the last request
}

// server is a connection to a server, which has to know the client before it can be asked for messages.
type server struct {
	client *client

	mu    sync.Mutex
	known bool
	err   error
}

// New returns a Source, which does nothing until it runs.
func New(o Options) *Source {
	o = o.withDefaults()
	host, _ := os.Hostname() // it is only to be recognized by
	s := &Source{
		opts: o, id: fmt.Sprintf("%s@%d@%s", host, os.Getpid(), uuid.NewString()),
		mapper:  &mapper{source: "/apis/v1/namespaces/" + o.Namespace + "/rocketmqsources/" + o.Name, overrides: o.Extensions},
		servers: map[string]*server{}, readers: map[reading]*reader{},
	}
	s.keeper = newKeeper(o.Invisible, s.warn)
	return s
}

// Run implements [source.Source].
func (s *Source) Run(ctx context.Context) {
	// What is under way goes on for a while when ctx ends.
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { s.keeper.renew(after) })
	background.Go(func() { s.keeper.acknowledge(after) })

	order := source.Unordered
	if s.opts.FIFO {
		order = source.ByKey
	}
	lanes := source.NewLanes(source.LanesOptions[*held]{
		Outlet: s.opts.Outlet, Order: order, Size: (*held).bytes, Settled: s.keeper.settle,
		Key: func(h *held) []byte { return orderKey(h.message) },
		Message: func(h *held) source.Message {
			return source.Message{Event: s.mapper.event(h.message), Key: identity(h.message)}
		},
	})

	var work sync.WaitGroup
	for ctx.Err() == nil {
		s.look(ctx, &work, lanes)
		s.tell(ctx)
		wait := lookEvery
		if !s.Status().Ready {
			wait = pause
		}
		source.Sleep(ctx, wait)
	}
	work.Wait()
	drained, cancel := context.WithTimeout(after, s.opts.Drain)
	lanes.Close(drained)
	cancel()
	s.leave(after)
	end()
	background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, server := range s.servers {
		server.client.close()
	}
}

// leave waits until what is settled is acknowledged, gives back what is not, and takes leave of the servers.
func (s *Source) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	s.keeper.release(ctx)
	for s.keeper.shelf.settled() > 0 && ctx.Err() == nil {
		source.Sleep(ctx, 5*time.Millisecond)
	}
	s.mu.Lock()
	servers := slices.Collect(maps.Values(s.servers))
	s.mu.Unlock()
	for _, server := range servers {
		server.client.leave(ctx)
	}
}

// look finds out where the queues of the topics are, and has them read.
func (s *Source) look(ctx context.Context, work *sync.WaitGroup, lanes *source.Lanes[*held]) {
	wanted := map[reading]*v2.MessageQueue{}
	var missing []string
	queues := 0
	entry, err := s.connect(ctx, work, s.opts.Endpoint)
	for _, topic := range s.opts.Topics {
		if err != nil {
			break
		}
		var found []*v2.MessageQueue
		found, err = entry.client.route(ctx, topic, endpoints(s.opts.Endpoint))
		if isCode(err, v2.Code_TOPIC_NOT_FOUND) || err == nil && len(found) == 0 {
			missing, err = append(missing, topic), nil
			continue
		}
		queues += len(found)
		for _, q := range found {
			// The server is asked for messages of any queue of a broker, so one request stands for all of them.
			at := reading{topic: topic, broker: q.GetBroker().GetName(), address: s.opts.Endpoint}
			if there := addresses(q.GetBroker().GetEndpoints()); len(there) > 0 && !slices.Contains(there, s.opts.Endpoint) {
				at.address = there[0]
			}
			if wanted[at] == nil {
				wanted[at] = q
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.missing = err, missing
	if err != nil {
		return
	}
	s.queues = queues
	for at, r := range s.readers {
		if wanted[at] == nil {
			r.cancel()
			delete(s.readers, at)
		}
	}
	for at, queue := range wanted {
		if s.readers[at] == nil {
			s.readers[at] = s.read(ctx, work, lanes, at, queue)
		}
	}
}

// connect returns the server at an address, which gets to know the client.
func (s *Source) connect(ctx context.Context, work *sync.WaitGroup, address string) (*server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connectLocked(ctx, work, address)
}

func (s *Source) connectLocked(ctx context.Context, work *sync.WaitGroup, address string) (*server, error) {
	if known := s.servers[address]; known != nil {
		return known, nil
	}
	c, err := dial(&s.opts, address, s.id)
	if err != nil {
		return nil, err
	}
	added := &server{client: c}
	s.servers[address] = added
	work.Go(func() { s.attend(ctx, added, endpoints(address)) })
	work.Go(func() { s.beat(ctx, added) })
	return added, nil
}

// attend keeps a server knowing the client until ctx ends.
func (s *Source) attend(ctx context.Context, to *server, at *v2.Endpoints) {
	for ; ctx.Err() == nil; source.Sleep(ctx, pause) {
		err := to.client.introduce(ctx, at, func(theirs *v2.Settings) error {
			if s.opts.FIFO && !theirs.GetSubscription().GetFifo() {
				return errNotOrderly
			}
			to.set(true, nil)
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		to.set(false, err)
		s.tell(ctx)
	}
}

// beat tells a server that the client lives, until ctx ends.
func (s *Source) beat(ctx context.Context, to *server) {
	for ctx.Err() == nil {
		if known, _ := to.state(); known {
			if err := to.client.beat(ctx); err != nil && ctx.Err() == nil {
				s.warn(ctx, err)
			}
		}
		source.Sleep(ctx, beatEvery)
	}
}

func (t *server) set(known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known, t.err = known, err
}

func (t *server) state() (known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known, t.err
}

// read has a broker's queues of a topic read until ctx ends or the reader is canceled.
func (s *Source) read(ctx context.Context, work *sync.WaitGroup, lanes *source.Lanes[*held], at reading, queue *v2.MessageQueue) *reader {
	r := &reader{queue: queue}
	r.server, r.err = s.connectLocked(ctx, work, at.address)
	if r.err != nil {
		r.cancel = func() {}
		return r
	}
	ctx, r.cancel = context.WithCancel(ctx)
	for range receivers {
		work.Go(func() {
			attempt := uuid.NewString()
			for ctx.Err() == nil {
				if known, _ := r.server.state(); !known {
					source.Sleep(ctx, pause/10)
					continue
				}
				if s.receive(ctx, r, at.topic, attempt, lanes) == nil {
					attempt = uuid.NewString()
					continue
				}
				s.tell(ctx)
				source.Sleep(ctx, pause)
			}
		})
	}
	return r
}

// receive makes one request for messages and queues what it brings.
func (s *Source) receive(ctx context.Context, r *reader, topic, attempt string, lanes *source.Lanes[*held]) error {
	places := s.keeper.shelf.reserve(ctx, s.opts.BatchSize, receivers*len(s.opts.Topics))
	if places == 0 {
		return nil
	}
	asked := time.Now()
	messages, err := r.server.client.receive(ctx, r.queue, places, attempt)
	items := make([]*held, 0, len(messages))
	for _, m := range messages {
		items = append(items, &held{
			message: m, topic: topic, received: time.Now(), from: r.server.client,
			handle: m.GetSystemProperties().GetReceiptHandle(), until: asked.Add(s.opts.Invisible),
		})
	}
	lanes.Add(s.keeper.shelf.put(items, places)...)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the request was given up
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began, r.err = r.began || err == nil, err
	return err
}

// orderKey is what messages have in common whose order is kept: the message group, or the queue.
func orderKey(m *v2.Message) []byte {
	p := m.GetSystemProperties()
	if group := p.GetMessageGroup(); group != "" {
		return []byte(group)
	}
	return fmt.Appendf(nil, "queue %d", p.GetQueueId())
}

// warn logs what passes by itself and may happen many times a second, at most once a minute.
func (s *Source) warn(ctx context.Context, err error) {
	s.mu.Lock()
	due := time.Since(s.warned) >= time.Minute
	if due {
		s.warned = time.Now()
	}
	s.mu.Unlock()
	if due {
		s.opts.Logger.WarnContext(ctx, "RocketMQ does not do what a source asks; trying again", slog.Any("error", err))
	}
}

// tell logs why the source does not work, if that is new.
func (s *Source) tell(ctx context.Context) {
	status := s.Status()
	s.mu.Lock()
	fresh := s.logged != status.Reason
	s.logged = status.Reason
	s.mu.Unlock()
	if fresh && status.Reason != "" && status.Reason != source.ReasonConnecting && ctx.Err() == nil {
		s.opts.Logger.WarnContext(ctx, "a source cannot work; trying again", slog.String("reason", status.Reason), slog.String("error", status.Message))
	}
}

// Status implements [source.Source].
func (s *Source) Status() source.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := source.Status{Outlet: s.opts.Outlet.Stats(), Assigned: s.queues}
	s.keeper.shelf.report(&status)
	connected, err := s.fault()
	switch {
	case s.stopped:
		status.Reason, status.Message = source.ReasonStopped, "the source does not run"
	case err != nil:
		status.Reason, status.Message = explain(err, s.opts.Group)
	case len(s.missing) > 0:
		status.Reason, status.Message = ReasonTopicMissing, "waiting for topics that do not exist: "+strings.Join(s.missing, ", ")
	case !connected:
		status.Reason, status.Message = source.ReasonConnecting, "connecting to "+s.opts.Endpoint
	default:
		status.Ready = true
	}
	return status
}

// fault is why the source does not work, and whether all that is to be read is.
func (s *Source) fault() (connected bool, err error) {
	connected = len(s.readers) > 0
	var faults []error
	for _, r := range s.readers {
		r.mu.Lock()
		began, err := r.began, r.err
		r.mu.Unlock()
		connected = connected && began
		if err != nil {
			faults = append(faults, err)
		}
	}
	for _, t := range s.servers {
		known, err := t.state()
		connected = connected && known
		if err != nil {
			faults = append(faults, err)
		}
	}
	if s.err != nil {
		faults = append(faults, s.err)
	}
	for _, fault := range faults { // what the server says tells more than that a connection failed
		var answer *StatusError
		if errors.As(fault, &answer) || errors.Is(fault, errNotOrderly) {
			return connected, fault
		}
	}
	if len(faults) > 0 {
		return connected, faults[0]
	}
	return connected, nil
}

// settled counts the messages that wait to be acknowledged.
func (s *shelf) settled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, h := range s.items {
		h.mu.Lock()
		if h.settled {
			n++
		}
		h.mu.Unlock()
	}
	return n
}

// report says how much is held.
func (s *shelf) report(status *source.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status.Held, status.Lag = s.bytes, int64(len(s.items))
	for _, h := range s.items {
		status.Oldest = max(status.Oldest, time.Since(h.received))
	}
}
