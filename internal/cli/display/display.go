// Package display is a subscriber for people: an HTTP handler that takes CloudEvents and writes them out readably, and
// that can be told to fail, to be slow, or to reply, to see what a Broker makes of it.
package display

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// DefaultMaxBytes is the largest request body taken unless Options say otherwise.
const DefaultMaxBytes = 16 << 20

// Options say how events are shown and answered. The zero value shows nothing and answers 200.
type Options struct {
	// Out gets the events, each in one Write. Handlers that share it need a Writer that is safe for concurrent use; see
	// [Shared].
	Out io.Writer
	// Name is shown with each event, unless empty.
	Name string
	// Format is how events are written.
	Format Format
	// Style paints what is written for people.
	Style terminal.Style

	// Status answers events; 0 means 200.
	Status int
	// FailStatus answers what FailFirst and FailRate choose; 0 means 500.
	FailStatus int
	// FailFirst makes the first so many deliveries of each event, told by source and id, fail. An event that comes again
	// after it succeeded counts anew.
	FailFirst int
	// FailRate is the share of the other deliveries, from 0 to 1, that fails.
	FailRate float64
	// Delay is how long an answer is held back.
	Delay time.Duration
	// Reply returns the event that answers e, or nil for none. It is called for deliveries that do not fail. An answer
	// with an event has status 200 whatever Status is: no other is taken for a reply.
	Reply func(e *event.Event) *event.Event
	// OnEvent is called for each event after its delivery was answered and did not fail on purpose.
	OnEvent func(e *event.Event)
	// MaxBytes is the largest body taken; 0 means [DefaultMaxBytes].
	MaxBytes int64
	// Random returns numbers in [0,1) for FailRate; nil means math/rand.
	Random func() float64
}

// Handler is a subscriber that shows what it gets. It takes all content modes of the CloudEvents HTTP binding, a batch
// as so many events with one answer.
type Handler struct {
	opts Options

	mu     sync.Mutex
	failed map[eventKey]int // deliveries of an event that failed on account of FailFirst, until they are used up
	counts Counts
}

// Counts say what a Handler has seen.
type Counts struct {
	// Events is how many events were shown, those that failed included.
	Events int
	// Failed is how many of these were failed on purpose.
	Failed int
	// Refused is how many requests were not CloudEvents.
	Refused int
}

type eventKey struct{ source, id string }

// New returns a Handler.
func New(opts Options) *Handler {
	if opts.Out == nil {
		opts.Out = io.Discard
	}
	if opts.Status == 0 {
		opts.Status = http.StatusOK
	}
	if opts.FailStatus == 0 {
		opts.FailStatus = http.StatusInternalServerError
	}
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.Random == nil {
		opts.Random = rand.Float64
	}
	return &Handler{opts: opts, failed: map[eventKey]int{}}
}

// ReplyWith returns an Options.Reply that answers every event with one of the given type: source, subject and data are
// those of the event, the id is new.
func ReplyWith(eventType string) func(*event.Event) *event.Event {
	return func(e *event.Event) *event.Event {
		reply := &event.Event{Data: e.Data}
		reply.Set(event.SpecVersion, "1.0", event.String)
		reply.Set(event.ID, uuid.NewString(), event.String)
		reply.Set(event.Type, eventType, event.String)
		for _, name := range []string{event.Source, event.Subject, event.DataContentType, event.DataSchema} {
			if v, ok := e.Get(name); ok {
				reply.Set(name, v, event.String)
			}
		}
		return reply
	}
}

// Shared returns a Writer that several Handlers may write to at once.
func Shared(w io.Writer) io.Writer { return &sharedWriter{w: w} }

type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// Counts returns what was seen so far.
func (h *Handler) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// ServeHTTP shows and answers one request. What is not a CloudEvent is answered with 400 and why; GET and HEAD with 200
// for the sake of probes; OPTIONS as the CloudEvents webhook specification asks of a target.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		h.post(w, r)
	case http.MethodGet, http.MethodHead:
		fmt.Fprintln(w, "This is a millrace display. POST CloudEvents to this URL.")
	case http.MethodOptions:
		w.Header().Set("Allow", "POST, OPTIONS")
		w.Header().Set("WebHook-Allowed-Origin", "*")
		w.Header().Set("WebHook-Allowed-Rate", "*")
	default:
		w.Header().Set("Allow", "POST, OPTIONS")
		http.Error(w, "POST CloudEvents to this URL", http.StatusMethodNotAllowed)
	}
}

func (h *Handler) post(w http.ResponseWriter, r *http.Request) {
	events, err := h.decode(w, r)
	if err != nil {
		h.refuse(w, err)
		return
	}
	if len(events) == 0 {
		w.WriteHeader(h.opts.Status)
		return
	}
	fail := h.fails(events[0])
	reply := h.reply(events, fail)
	h.show(events, fail, reply)
	if !sleep(r.Context(), h.opts.Delay) {
		return // The client has gone, and nobody waits for an answer.
	}
	h.answer(w, fail, reply)
	if !fail && h.opts.OnEvent != nil {
		for _, e := range events {
			h.opts.OnEvent(e)
		}
	}
}

func (h *Handler) decode(w http.ResponseWriter, r *http.Request) ([]*event.Event, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.opts.MaxBytes))
	if err != nil {
		return nil, err
	}
	switch contentType := r.Header.Get("Content-Type"); event.DetectMode(contentType) {
	case event.ModeBatch:
		return event.DecodeJSONBatch(body)
	case event.ModeStructured:
		e, err := event.DecodeJSON(body)
		return []*event.Event{e}, err
	case event.ModeBinary:
		e, err := event.DecodeBinary(r.Header, body)
		return []*event.Event{e}, err
	default:
		return nil, fmt.Errorf("the event format %q is not supported; send application/cloudevents+json", contentType)
	}
}

func (h *Handler) refuse(w http.ResponseWriter, err error) {
	h.mu.Lock()
	h.counts.Refused++
	h.mu.Unlock()
	status := http.StatusBadRequest
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	if !h.opts.Format.forPrograms() {
		h.write([]byte(h.opts.Style.Bad("✗ not a CloudEvent: "+terminal.Safe(err.Error())) + "\n"))
	}
	http.Error(w, "not a CloudEvent: "+err.Error(), status)
}

// fails decides whether this delivery is to fail.
func (h *Handler) fails(e *event.Event) bool {
	return h.failsFirst(e) || h.opts.FailRate > 0 && h.opts.Random() < h.opts.FailRate
}

func (h *Handler) failsFirst(e *event.Event) bool {
	if h.opts.FailFirst <= 0 {
		return false
	}
	key := eventKey{source: e.Value(event.Source), id: e.Value(event.ID)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed[key] < h.opts.FailFirst {
		h.failed[key]++
		return true
	}
	delete(h.failed, key) // So that memory is bounded by the events that are still to come again.
	return false
}

// reply returns the event that answers the first of the events that wants one: an answer has room for one only.
func (h *Handler) reply(events []*event.Event, fail bool) *event.Event {
	if fail || h.opts.Reply == nil {
		return nil
	}
	for _, e := range events {
		if reply := h.opts.Reply(e); reply != nil {
			return reply
		}
	}
	return nil
}

func (h *Handler) show(events []*event.Event, fail bool, reply *event.Event) {
	note := h.note(fail, reply)
	var text []byte
	for _, e := range events {
		d := delivery{event: e, name: h.opts.Name, note: note}
		text = append(text, h.opts.Format.render(d, h.opts.Style)...)
	}
	h.mu.Lock()
	h.counts.Events += len(events)
	if fail {
		h.counts.Failed += len(events)
	}
	h.mu.Unlock()
	h.write(text)
}

func (h *Handler) note(fail bool, reply *event.Event) string {
	switch {
	case fail:
		return fmt.Sprintf("answered %d on purpose", h.opts.FailStatus)
	case reply != nil:
		return "replied " + terminal.Safe(reply.Value(event.Type))
	case h.opts.Status >= http.StatusMultipleChoices:
		return fmt.Sprintf("answered %d", h.opts.Status)
	default:
		return ""
	}
}

// write ignores errors: whoever closed the output does not want to see more.
func (h *Handler) write(text []byte) {
	_, _ = h.opts.Out.Write(text)
}

func (h *Handler) answer(w http.ResponseWriter, fail bool, reply *event.Event) {
	switch {
	case fail:
		http.Error(w, "failed on purpose", h.opts.FailStatus)
	case reply != nil:
		reply.WriteHeader(w.Header())
		_, _ = w.Write(reply.Data) // A client that has gone delivers again.
	default:
		w.WriteHeader(h.opts.Status)
	}
}

// sleep waits and reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
