package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNoSpace says that the NATS server found its disk full while it wrote to a stream. It does not write to that stream
// again before it is restarted, even if there is room. Errors that match it match [ErrUnavailable] as well.
var ErrNoSpace = errors.New("the disk of the NATS server is full, or was: make room, then restart the server")

const (
	// slowAck is how long a stream may leave publishes without a PubAck before we ask whether it can be written to at all.
	slowAck = time.Second
	// probeTimeout bounds the wait for one answer, probePause is the time between two questions, and at least that between
	// two suspicions.
	probeTimeout = 2 * time.Second
	probePause   = time.Second
	// noSequence is one that no stream reaches.
	noSequence = 1 << 62
)

const (
	codeJetStreamOff        = 10076
	codeJetStreamOffAccount = 10039
	codeMessageDeleteFailed = 10057
)

// errSilent says that a probe got no answer, which says nothing yet: a stream may be electing a leader.
var errSilent = fmt.Errorf("%w: it does not answer", ErrUnavailable)

// health knows which streams cannot be written to. After a write that failed, a NATS server leaves every later publish
// to the stream without an answer, so that a producer would learn no more than that its time ran out. Whether it is so is
// asked of the server when publishes are slow or fail, and then again and again until the stream is well.
type health struct {
	conn   *Conn
	ctx    context.Context //nolint:containedctx // the life of the connection
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.RWMutex
	streams map[string]*condition
}

// condition is what is known of one stream.
type condition struct {
	stream string
	// nudge is a subject of the stream; see [health.nudge].
	nudge string
	// sent and answered count publishes begun and ended: a stream that leaves some without an answer is looked into.
	sent, answered atomic.Uint64

	mu       sync.Mutex
	err      error         // why the stream cannot be written to; nil as far as known
	down     chan struct{} // closed while err is not nil
	followed bool          // a goroutine asks the server
	asked    time.Time     // when the last such goroutine began

	// Only watch uses these.
	seen      uint64    // the value of answered at the last look
	seenSince time.Time // when it became so, or when there was nothing under way
}

func newHealth(c *Conn) *health {
	ctx, cancel := context.WithCancel(context.Background())
	return &health{conn: c, ctx: ctx, cancel: cancel, streams: map[string]*condition{}}
}

// watch suspects streams of which no publish has ended for long while there are some. One timer for all of them: one for
// each publish would cost more than the publish.
func (h *health) watch() {
	tick := time.NewTicker(slowAck / 4)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-tick.C:
			for _, s := range h.all() {
				if s.stalled(now) {
					h.suspect(s)
				}
			}
		}
	}
}

func (h *health) all() []*condition {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Values(h.streams))
}

// stalled says whether publishes are under way none of which has ended for slowAck.
func (s *condition) stalled(now time.Time) bool {
	answered := s.answered.Load() // before sent, which is never less
	if answered != s.seen || answered == s.sent.Load() {
		s.seen, s.seenSince = answered, now
		return false
	}
	return now.Sub(s.seenSince) >= slowAck
}

// close ends all probes.
func (h *health) close() {
	h.mu.Lock()
	h.cancel()
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *health) events(n *Names) *condition  { return h.of(n.Events, n.EventSubject, "") }
func (h *health) retries(n *Names) *condition { return h.of(n.Retries, n.RetryPrefix, "probe") }
func (h *health) parked(n *Names) *condition  { return h.of(n.Parked, n.ParkedPrefix, "probe") }

// of returns the condition of a stream, to which prefix+last is a subject.
func (h *health) of(stream, prefix, last string) *condition {
	h.mu.RLock()
	s := h.streams[stream]
	h.mu.RUnlock()
	if s != nil {
		return s
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s = h.streams[stream]; s == nil {
		s = &condition{stream: stream, nudge: prefix + last, down: make(chan struct{})}
		h.streams[stream] = s
	}
	return s
}

// now returns why the stream cannot be written to, or nil and a channel that is closed once that is found.
func (s *condition) now() (down <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down, s.err
}

// set notes what was found and reports whether it is news.
func (s *condition) set(err error) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.err
	s.err = err
	switch {
	case was == nil && err != nil:
		close(s.down)
	case was != nil && err == nil:
		s.down = make(chan struct{})
	}
	return (was == nil) != (err == nil)
}

// start reports whether a goroutine is to follow the stream now, which the caller must then start.
func (s *condition) start(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.followed || now.Sub(s.asked) < probePause {
		return false
	}
	s.followed, s.asked = true, now
	return true
}

func (s *condition) stop() {
	s.mu.Lock()
	s.followed = false
	s.mu.Unlock()
}

// suspect has the server asked whether the stream can be written to. It does not wait for the answer.
//
// The questions are not part of the publish that raised the first of them.
func (h *health) suspect(s *condition) {
	if !s.start(time.Now()) {
		return
	}
	h.mu.RLock() // close waits for those that were added before it
	defer h.mu.RUnlock()
	if h.ctx.Err() != nil {
		s.stop()
		return
	}
	h.wg.Go(func() {
		defer s.stop()
		h.follow(s)
	})
}

// follow asks until the stream can be written to. A server that says nothing is given as long as a publish is.
func (h *health) follow(s *condition) {
	for since := time.Now(); ; {
		err := h.probe(s.stream)
		switch {
		case err == nil:
			h.note(s, nil)
			return
		case !errors.Is(err, errSilent):
			since = time.Now()
			h.note(s, err)
			h.nudge(s) // each time: the server may be another one by now
		case time.Since(since) >= ackTimeout:
			h.note(s, err)
		}
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(probePause):
		}
	}
}

// note keeps what was found and logs it if it is news.
func (h *health) note(s *condition, err error) {
	switch news := s.set(err); {
	case news && err != nil:
		h.conn.log.Error("a stream cannot be written to; its producers are told to try again later",
			slog.String("stream", s.stream), slog.Any("error", err))
	case news && h.conn.Connected():
		h.conn.log.Info("a stream can be written to again", slog.String("stream", s.stream))
	}
}

// nudge has the server's own health check notice what we know. It learns of a disk that was full when an event was
// removed only from the next publish, and while the ingress refuses events there is none, so nobody would restart it.
// The server does not store this message, for it stores nothing in that stream; if it could, readers would drop it
// because it is not an event.
func (h *health) nudge(s *condition) {
	_ = h.conn.nc.PublishMsg(&nats.Msg{Subject: s.nudge, Reply: h.conn.nc.NewInbox()})
}

// probe asks whether the stream can be written to, without a change to it: the server refuses to delete a message that
// does not exist, and before that, to delete any if it could not. nil means yes, or that nothing speaks against it.
func (h *health) probe(stream string) error {
	if !h.conn.Connected() {
		return nil // producers are told so anyway, and what held before may not hold after
	}
	ctx, cancel := context.WithTimeout(h.ctx, probeTimeout)
	defer cancel()
	request := fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, int64(noSequence))
	reply, err := h.conn.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, request)
	if h.ctx.Err() != nil || !h.conn.Connected() {
		return nil
	}
	if err != nil {
		return silence(err)
	}
	return verdict(reply.Data)
}

// silence tells a server that has no JetStream from one that took its time.
func silence(err error) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: JetStream is off: %w", ErrUnavailable, err)
	}
	return errSilent
}

// verdict reads an answer to a probe. Only what surely speaks of writing counts: a server that words another error anew
// must not take Brokers out of service.
func verdict(answer []byte) error {
	var said struct {
		Error struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return nil
	}
	what := said.Error.Description
	switch code := said.Error.Code; {
	case code == codeJetStreamOff, code == codeJetStreamOffAccount:
		return fmt.Errorf("%w: %s", ErrUnavailable, what)
	case code != codeMessageDeleteFailed:
		return nil
	case strings.Contains(what, "no space left"), strings.Contains(what, "quota exceeded"):
		return fmt.Errorf("%w: %w: %s", ErrUnavailable, ErrNoSpace, what)
	case strings.Contains(what, "input/output error"), strings.Contains(what, "read-only file system"),
		strings.Contains(what, "permission denied"):
		return fmt.Errorf("%w: the NATS server cannot write to the stream: %s", ErrUnavailable, what)
	default:
		return nil
	}
}

// Verify has the server asked, without waiting, whether it can write to the Broker's stream of accepted events. Publishers
// do that of themselves when a publish is slow or fails; it is for those that publish seldom.
func (c *Conn) Verify(n *Names) { c.health.suspect(c.health.events(n)) }

// Writable returns nil unless one of the Broker's streams is known not to take what is written, which does not include
// its own limits. An error matches [ErrUnavailable], and [ErrNoSpace] if it is the disk.
func (c *Conn) Writable(n *Names) error {
	var first error
	for _, s := range []*condition{c.health.events(n), c.health.retries(n), c.health.parked(n)} {
		_, err := s.now()
		if err != nil && (first == nil || errors.Is(err, ErrNoSpace)) {
			first = err
		}
	}
	return first
}
