package adminapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

const (
	// maxBody bounds the body of a request; a selection of maxSequences events fits in.
	maxBody = 1 << 20
	// defaultPage and maxPage are how many events a page has unless the client says otherwise, and at most.
	defaultPage = 100
	maxPage     = 1000
	// progressEvery is the time between two lines of progress.
	progressEvery = 200 * time.Millisecond
)

func (h *Handler) listBrokers(w http.ResponseWriter, r *http.Request) {
	brokers := []BrokerInfo{}
	for _, b := range h.brokersFor(r) {
		state, err := h.opts.Reader.ParkedState(r.Context(), b.Names)
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		brokers = append(brokers, BrokerInfo{Namespace: b.Names.Namespace, Name: b.Names.Name, Parked: state.Messages, Bytes: state.Bytes, URL: b.URL})
	}
	writeJSON(w, map[string]any{"brokers": brokers})
}

// brokersFor are the Brokers in the namespace that the request is about, in order.
func (h *Handler) brokersFor(r *http.Request) []*Broker {
	namespace, _ := namespaceOf(r) // was looked at before
	var found []*Broker
	for name, b := range h.opts.Catalog() {
		if inNamespace(name, namespace) {
			found = append(found, b)
		}
	}
	slices.SortFunc(found, func(x, y *Broker) int { return cmp.Compare(x.key(), y.key()) })
	return found
}

func (h *Handler) listEvents(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	s, after, p := selectionOf(r.URL.Query())
	if p != nil {
		return p
	}
	limit := min(cmp.Or(s.Limit, defaultPage), maxPage)
	sel, p := selectorFor(s, b, h.opts.Now())
	if p != nil {
		return p
	}
	scan, err := newScan(r.Context(), h.opts.Reader, b.Names, sel)
	if err != nil {
		return problemOf(err)
	}
	scan.after = after
	page := Page{Items: []Item{}}
	for parked, err := range scan.events(r.Context()) {
		if err != nil {
			return problemOf(err)
		}
		if len(page.Items) == limit {
			page.Next = page.Items[limit-1].Sequence
			break
		}
		page.Items = append(page.Items, itemOf(parked, b))
	}
	writeJSON(w, page)
	return nil
}

func itemOf(p *stream.Parked, b *Broker) Item {
	item := Item{
		Sequence: p.Sequence, Parked: p.At, Trigger: b.Triggers[p.TriggerUID].Name, TriggerUID: p.TriggerUID,
		Attempts: p.Progress.Attempt, Code: p.Progress.Code, Cause: p.Progress.Cause, Destination: p.Progress.Destination,
		DeadLetter: p.Progress.DeadLetter, Size: p.Size,
	}
	if first := p.Progress.First; !first.IsZero() {
		item.FirstAttempt = &first
	}
	if p.Event == nil {
		item.Unreadable = p.Problem.Error()
		return item
	}
	item.ID, item.Type = p.Event.Value(event.ID), p.Event.Value(event.Type)
	item.Source, item.Subject = p.Event.Value(event.Source), p.Event.Value(event.Subject)
	return item
}

func (h *Handler) getEvent(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	sequence, err := strconv.ParseUint(r.PathValue("sequence"), 10, 64)
	if err != nil || sequence == 0 {
		return problemf(http.StatusBadRequest, "%q is no sequence", r.PathValue("sequence")).hint("write the number that a list shows")
	}
	p, err := h.opts.Reader.GetParked(r.Context(), b.Names, sequence)
	if err != nil {
		return problemOf(err)
	}
	d := Detail{Item: itemOf(p, b)}
	if p.Event != nil {
		d.Event = p.Event.AppendJSON(nil)
	}
	writeJSON(w, d)
	return nil
}

func (h *Handler) listGroups(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	s, _, p := selectionOf(r.URL.Query())
	if p != nil {
		return p
	}
	scan, ctx, end, p := h.start(r, b, s)
	if p != nil {
		return p
	}
	defer end()
	lines := newLines(w, scan, func() *Groups { return nil })
	g := newGrouper()
	for parked, err := range scan.events(ctx) {
		if err != nil {
			lines.end(nil, err)
			return nil
		}
		g.add(parked)
	}
	lines.end(g.result(b), nil)
	return nil
}

func (h *Handler) postRedrive(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	var req RedriveRequest
	if p := readBody(w, r, &req); p != nil {
		return p
	}
	if req.Rate < 0 {
		return problemf(http.StatusBadRequest, "rate is negative")
	}
	if p := req.checkScope(); p != nil {
		return p
	}
	scan, ctx, end, p := h.start(r, b, &req.Selection)
	if p != nil {
		return p
	}
	defer end()
	op := newRedrive(&h.opts, b, scan, req.Rate)
	lines := newLines(w, scan, op.soFar)
	err := op.run(ctx)
	result := op.soFar()
	h.opts.Logger.InfoContext(ctx, "redrive of parked events ended",
		slog.String("broker", b.key()), slog.String("user", userOf(ctx)), slog.Bool("dry_run", result.DryRun), slog.Uint64("selected", result.Selected),
		slog.Uint64("redriven", result.Redriven), slog.Uint64("no_trigger", result.NoTrigger), slog.Any("error", err))
	lines.end(result, err)
	return nil
}

func (h *Handler) deleteEvents(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	var req PurgeRequest
	if p := readBody(w, r, &req); p != nil {
		return p
	}
	if p := req.checkScope(); p != nil {
		return p
	}
	scan, ctx, end, p := h.start(r, b, &req.Selection)
	if p != nil {
		return p
	}
	defer end()
	op := newPurge(&h.opts, scan)
	lines := newLines(w, scan, op.soFar)
	err := op.run(ctx)
	result := op.soFar()
	h.opts.Logger.InfoContext(ctx, "purge of parked events ended",
		slog.String("broker", b.key()), slog.String("user", userOf(ctx)), slog.Bool("dry_run", result.DryRun), slog.Uint64("selected", result.Selected),
		slog.Uint64("purged", result.Purged), slog.Any("error", err))
	lines.end(result, err)
	return nil
}

// start begins an operation that takes a while. The caller calls end when it has ended.
func (h *Handler) start(r *http.Request, b *Broker, s *Selection) (_ *scan, ctx context.Context, end func(), _ *Problem) {
	sel, p := selectorFor(s, b, h.opts.Now())
	if p != nil {
		return nil, nil, nil, p
	}
	ctx, end = h.begin(r.Context())
	scan, err := newScan(ctx, h.opts.Reader, b.Names, sel)
	if err != nil {
		end()
		return nil, nil, nil, problemOf(err)
	}
	return scan, ctx, end, nil
}

// selectionOf reads the parameters of a request that lists. One that is not known is a mistake: it would be a condition
// that is not heeded.
func selectionOf(values url.Values) (s *Selection, after uint64, _ *Problem) {
	s = &Selection{}
	for name := range values {
		value := values.Get(name)
		var err error
		switch name {
		case "trigger":
			s.Trigger = value
		case "code":
			var code int
			code, err = strconv.Atoi(value)
			s.Code = &code
		case "cause":
			s.Cause = value
		case "olderThan":
			s.OlderThan = value
		case "limit":
			s.Limit, err = strconv.Atoi(value)
		case "after":
			after, err = strconv.ParseUint(value, 10, 64)
		default:
			return nil, 0, problemf(http.StatusBadRequest, "there is no parameter %q", name)
		}
		if err != nil {
			return nil, 0, problemf(http.StatusBadRequest, "%s: %q is no number", name, value)
		}
	}
	return s, after, nil
}

// readBody reads a request whose every member is known: one misspelled would be a condition that is not heeded.
func readBody(w http.ResponseWriter, r *http.Request, into any) *Problem {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		// Reading to the end is also what lets the server notice that the client goes away.
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &size):
		return problemf(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", size.Limit)
	case err != nil:
		return problemf(http.StatusBadRequest, "the body is not as expected: %v", err)
	}
	return nil
}

// lines writes the answer of an operation.
type lines[T any] struct {
	w     http.ResponseWriter
	scan  *scan
	soFar func() *T
	last  time.Time
}

// newLines returns the writer of an operation's answer, which tells how far the scan is. soFar returns the result to
// show, or nil for none.
func newLines[T any](w http.ResponseWriter, s *scan, soFar func() *T) *lines[T] {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	l := &lines[T]{w: w, scan: s, soFar: soFar, last: time.Now()}
	s.tick = l.tick
	return l
}

// tick writes a line of progress if it is time for one.
func (l *lines[T]) tick() {
	if time.Since(l.last) < progressEvery {
		return
	}
	l.last = time.Now()
	l.write(Line[T]{State: Running, Result: l.soFar()})
	_ = http.NewResponseController(l.w).Flush() // the client is gone if this fails, which ends the request's context
}

// end writes the last line.
func (l *lines[T]) end(result *T, err error) {
	line := Line[T]{State: Done, Result: result}
	if err != nil {
		line.State, line.Problem = Stopped, problemOf(err)
	}
	l.write(line)
}

func (l *lines[T]) write(line Line[T]) {
	line.Examined, line.Total = l.scan.examined, l.scan.total
	writeValue(l.w, line)
}
