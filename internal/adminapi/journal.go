package adminapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// Trace is what is known of the events of one id.
type Trace struct {
	ID string `json:"id"`
	// Events have the id and differ in Broker or source; the one that came first is first.
	Events []EventTrace `json:"events"`
	// Gaps are times of which the journal misses records, of these or of other events.
	Gaps []Gap `json:"gaps,omitempty"`
	// Since is how far back the journal goes for this id; absent if it holds nothing.
	Since *time.Time `json:"since,omitempty"`
	// Notes say what else one should know.
	Notes []string `json:"notes,omitempty"`
}

// Gap is a time of which a process could not keep all records.
type Gap struct {
	From    time.Time `json:"from"`
	Until   time.Time `json:"until"`
	Process string    `json:"process"`
	Dropped uint64    `json:"dropped"`
	// Of is "refusals" if only refusals are missing.
	Of string `json:"of,omitempty"`
}

// Missing says that the journal lacks records of an event, as far as that can be told from the others and from the store.
type Missing struct {
	// After is the time of the last record before those that are missing, if they are the last.
	After *time.Time `json:"after,omitempty"`
	Why   string     `json:"why"`
}

// Reference names another event.
type Reference struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	// Trigger is the one whose subscriber replied.
	Trigger string    `json:"trigger"`
	At      time.Time `json:"at"`
	// Dropped says that the reply had passed too many hops, and was not stored.
	Dropped bool `json:"dropped,omitempty"`
}

// EventTrace is what became of one event.
type EventTrace struct {
	Broker string `json:"broker"`
	ID     string `json:"id"`
	Source string `json:"source"`
	Type   string `json:"type"`
	// TraceID is that of the trace that the event was part of when it was matched, by W3C Trace Context; recorded or not.
	TraceID string `json:"traceID,omitempty"`
	// Received are the requests that brought it.
	Received []Reception `json:"received,omitempty"`
	// Stored is absent as long as no filter has read the event.
	Stored *Stored `json:"stored,omitempty"`
	// Triggers are all those of the Broker that are in effect or were when the event was matched; absent before that.
	Triggers []TriggerTrace `json:"triggers,omitempty"`
	// Fate sums up: refused, dropped (a reply that had passed too many hops), stored (and not matched yet), filtered (no Trigger
	// matched), pending, settled, or unknown, where Missing or that of a Trigger says why.
	Fate string `json:"fate"`
	// ReplyTo names the events whose subscribers answered with this one.
	ReplyTo []Reference `json:"replyTo,omitempty"`
	// Missing is absent unless records are known to be, or may be missing.
	Missing *Missing `json:"missing,omitempty"`
}

// Reception is a request that brought an event.
type Reception struct {
	At   time.Time `json:"at"`
	From string    `json:"from,omitempty"`
	// Refused says why it was not stored.
	Refused string `json:"refused,omitempty"`

	until time.Time // when it was answered
}

// Stored is where an event was stored.
type Stored struct {
	Stream   string    `json:"stream,omitempty"`
	Sequence uint64    `json:"sequence"`
	At       time.Time `json:"at"`
	// Matched is when a filter read it.
	Matched time.Time `json:"matched"`
	// Process is the one that did.
	Process string `json:"process,omitempty"`
}

// TriggerTrace is what became of an event for one Trigger.
type TriggerTrace struct {
	Trigger string `json:"trigger"`
	Matched bool   `json:"matched"`
	// Failures are the parts of the filter that did not match, as the filter is now.
	Failures []trigger.Explanation `json:"failures,omitempty"`
	// Note says what to make of it where that is not plain.
	Note     string         `json:"note,omitempty"`
	Attempts []AttemptTrace `json:"attempts,omitempty"`
	// Replies are what the subscriber answered with.
	Replies []Reference `json:"replies,omitempty"`
	// Fate is delivered, dead_lettered, parked, retrying, waiting, given_up, expired, pending or unknown; empty if it did not match.
	Fate string `json:"fate,omitempty"`
	// At is since when.
	At *time.Time `json:"at,omitempty"`
	// Next is when the next attempt may be made.
	Next *time.Time `json:"next,omitempty"`
	// Missing is absent unless records are known to be, or may be missing.
	Missing *Missing `json:"missing,omitempty"`

	waits place // the message that stands for it, as far as it is known
	last  time.Time
}

// place is where a message is, or was.
type place struct {
	stream   string
	sequence uint64
}

// AttemptTrace is one attempt to deliver an event.
type AttemptTrace struct {
	Number int `json:"number"`
	// At is when it ended, Seconds how long it took.
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	// Status is that of the answer; 0 if there was none.
	Status     int    `json:"status"`
	Reason     string `json:"reason,omitempty"`
	Cause      string `json:"cause,omitempty"`
	DeadLetter bool   `json:"deadLetter,omitempty"`
	// Process is the one that made it.
	Process string `json:"process,omitempty"`
}

// The fates of an event and, the last of them, of one for a Trigger.
const (
	fateRefused  = "refused"
	fateDropped  = "dropped"
	fateStored   = "stored"
	fateFiltered = "filtered"
	fateSettled  = "settled"
	fatePending  = "pending"
	fateUnknown  = "unknown"
)

func (h *Handler) getTrace(w http.ResponseWriter, r *http.Request) {
	t, p := h.trace(r)
	if p != nil {
		writeProblem(w, p)
		return
	}
	writeJSON(w, t)
}

func (h *Handler) trace(r *http.Request) (*Trace, *Problem) {
	query := r.URL.Query()
	for name := range query {
		if name != "id" && name != "broker" && name != "source" && name != "namespace" {
			return nil, problemf(http.StatusBadRequest, "there is no parameter %q", name)
		}
	}
	id := query.Get("id")
	if id == "" {
		return nil, problemf(http.StatusBadRequest, "say which event: the parameter id is its id")
	}
	if p := h.needsJournal(); p != nil {
		return nil, p
	}
	namespace, _ := namespaceOf(r) // was looked at before
	for again := false; ; again = true {
		found, err := journal.Find(r.Context(), h.opts.Journal, id)
		if err != nil {
			return nil, journalProblem(err)
		}
		found.Records = slices.DeleteFunc(found.Records, func(r journal.Record) bool { return !inNamespace(r.Broker, namespace) })
		catalog := h.opts.Catalog()
		t := newTrace(id, found, catalog, query.Get("broker"), query.Get("source"))
		lost, err := h.compare(r.Context(), t, catalog)
		if err != nil {
			t.Notes = append(t.Notes, "what waits is told by the journal alone: "+err.Error())
		}
		if !lost || again || err != nil {
			return t, nil
		}
		// What was settled a moment ago may be told of a moment later.
		select {
		case <-time.After(journal.Settles):
		case <-r.Context().Done():
			return t, nil
		}
	}
}

func (h *Handler) needsJournal() *Problem {
	if h.opts.Journal != nil {
		return nil
	}
	return problemf(http.StatusNotFound, "this process has no journal").hint("it is turned off: start it without --journal=false")
}

func journalProblem(err error) *Problem {
	if errors.Is(err, stream.ErrNoJournal) {
		return problemf(http.StatusNotFound, "%v", err).
			hint("it is turned off, or NATS has no room for it: see /readyz of this process, --journal and --journal-max-bytes")
	}
	return problemf(http.StatusServiceUnavailable, "%v", err).hint("run it again when NATS is reachable")
}

// newTrace makes of records what people want to know. catalog is what there is now.
func newTrace(id string, found journal.Found, catalog Catalog, broker, source string) *Trace {
	t := &Trace{ID: id, Events: []EventTrace{}}
	if !found.Since.IsZero() {
		t.Since = &found.Since
	}
	for _, g := range found.Gaps {
		t.Gaps = append(t.Gaps, Gap{From: g.Due, Until: g.Time, Process: g.Peer, Dropped: g.Sequence, Of: g.Reason})
	}
	if found.Cut {
		t.Notes = append(t.Notes, "there are more records of this id than are shown")
	}
	if found.Unreadable > 0 {
		t.Notes = append(t.Notes, "some of the journal was written by a later version and cannot be read")
	}
	type key struct{ broker, source string }
	tracers := map[key]*tracer{}
	var order []*tracer
	for i := range found.Records {
		r := &found.Records[i]
		if broker != "" && r.Broker != broker || source != "" && r.Source != source {
			continue
		}
		k := key{r.Broker, r.Source}
		tr := tracers[k]
		if tr == nil {
			tr = &tracer{catalog: catalog[r.Broker], byTrigger: map[string]*TriggerTrace{}}
			tr.Broker, tr.ID, tr.Source, tr.Type = r.Broker, r.ID, r.Source, r.Type
			tracers[k], order = tr, append(order, tr)
		}
		tr.add(r)
	}
	for _, tr := range order {
		t.Events = append(t.Events, tr.finish())
	}
	return t
}

// tracer follows one event through its records.
type tracer struct {
	EventTrace
	catalog   *Broker
	byTrigger map[string]*TriggerTrace
	match     *journal.Record
}

func (t *tracer) of(name string) *TriggerTrace {
	tt := t.byTrigger[name]
	if tt == nil {
		tt = &TriggerTrace{Trigger: name, Matched: true, Fate: fatePending}
		t.byTrigger[name] = tt
	}
	return tt
}

func (t *tracer) add(r *journal.Record) {
	switch r.Kind {
	case journal.Received, journal.Refused:
		t.Received = append(t.Received, Reception{At: r.Time, From: r.Peer, Refused: r.Reason, until: r.Time.Add(r.Duration)})
	case journal.Matched:
		t.match, t.TraceID = r, r.Cause
		t.Stored = &Stored{Sequence: r.Sequence, At: r.Due, Matched: r.Time, Process: r.Peer}
		if t.catalog != nil {
			t.Stored.Stream = t.catalog.Names.Events
		}
		for _, name := range r.Triggers {
			tt := t.of(name)
			tt.last, tt.waits = r.Time, place{t.Stored.Stream, r.Sequence}
		}
		if r.Again {
			t.Missing = &Missing{Why: whyAgain}
		}
	case journal.Replied:
		t.ReplyTo = append(t.ReplyTo, referenceOf(r))
	case journal.Answered:
		tt := t.of(r.Trigger)
		tt.Replies = append(tt.Replies, referenceOf(r))
	case journal.Attempted:
		tt := t.of(r.Trigger)
		tt.last = r.Time
		if r.Again && t.Missing == nil {
			tt.Missing = &Missing{Why: whyAgain}
		}
		tt.Attempts = append(tt.Attempts, AttemptTrace{
			Number: r.Attempt, At: r.Time, Seconds: r.Duration.Seconds(), Status: r.Status, Reason: r.Reason, Cause: r.Cause, DeadLetter: r.DeadLetter,
			Process: r.Peer,
		})
		if r.Fate != journal.None {
			tt.become(r)
		} else {
			tt.Fate, tt.At, tt.Next = fatePending, &r.Time, nil
		}
	case journal.Settled:
		tt := t.of(r.Trigger)
		tt.become(r)
		tt.last = r.Time
		switch {
		case r.Fate == journal.Expired:
			tt.Note = "it had waited in the backlog for longer than the Trigger allows, so no attempt was made any more"
		case r.Sequence == 0 || t.catalog == nil:
		case r.Fate == journal.Parked:
			tt.waits = place{t.catalog.Names.Parked, r.Sequence}
		default:
			tt.waits = place{t.catalog.Names.Retries, r.Sequence}
		}
	default: // of no one event, or of a later version
	}
}

func (tt *TriggerTrace) become(r *journal.Record) {
	tt.Fate, tt.At, tt.Next = r.Fate.String(), &r.Time, nil
	if !r.Due.IsZero() && r.Fate == journal.Retrying {
		tt.Next = &r.Due
	}
}

// finish explains the Triggers that did not match, and sums up.
func (t *tracer) finish() EventTrace {
	if t.match != nil && t.catalog != nil {
		t.explainOthers()
	}
	for _, tt := range t.byTrigger {
		if n := absentAttempt(tt.Attempts); n > 0 {
			tt.Missing = &Missing{Why: fmt.Sprintf("there is no record of attempt %d; %s", n, whyKilled)}
		}
		t.Triggers = append(t.Triggers, *tt)
	}
	slices.SortFunc(t.Triggers, func(x, y TriggerTrace) int { return cmp.Compare(x.Trigger, y.Trigger) })
	t.Fate = t.sum()
	return t.EventTrace
}

func (t *tracer) sum() string {
	if t.match == nil && len(t.byTrigger) == 0 {
		if len(t.Received) > 0 && !slices.ContainsFunc(t.Received, func(r Reception) bool { return r.Refused == "" }) {
			return fateRefused
		}
		if len(t.ReplyTo) > 0 && len(t.Received) == 0 && !slices.ContainsFunc(t.ReplyTo, func(r Reference) bool { return !r.Dropped }) {
			return fateDropped
		}
		return fateStored
	}
	matched := false
	for _, tt := range t.Triggers {
		switch {
		case !tt.Matched:
			continue
		case tt.Fate == journal.Delivered.String(), tt.Fate == journal.DeadLettered.String(), tt.Fate == journal.Parked.String():
			matched = true
		default:
			return fatePending
		}
	}
	if !matched {
		return fateFiltered
	}
	return fateSettled
}

const (
	whyKilled = "a process that is killed takes half a second of records with it"
	whyAgain  = "the store handed it out again, for whoever had it did not settle it: a process that is killed takes half a second of " +
		"records with it, perhaps of an attempt"
)

// referenceOf is the other event of a record of a reply.
func referenceOf(r *journal.Record) Reference {
	return Reference{ID: r.Cause, Source: r.Peer, Trigger: r.Trigger, At: r.Time, Dropped: r.Fate == journal.Dropped}
}

// absentAttempt is the number of an attempt that must have been made before one that there is; 0 if there is none. They count from 1 at
// the subscriber, at the dead letter sink, again after a redrive, and for each of several copies of an event.
func absentAttempt(attempts []AttemptTrace) int {
	type of struct {
		sink   bool
		number int
	}
	made := map[of]bool{}
	for _, a := range attempts {
		if before := a.Number - 1; before > 0 && !made[of{a.DeadLetter, before}] {
			return before
		}
		made[of{a.DeadLetter, a.Number}] = true
	}
	return 0
}

// compare asks the store for the messages that stand for what is not settled, and notes which are not there. lost says that records
// of what became of them seem to be missing.
func (h *Handler) compare(ctx context.Context, t *Trace, catalog Catalog) (lost bool, err error) {
	for i := range t.Events {
		e := &t.Events[i]
		b := catalog[e.Broker]
		if b == nil {
			continue
		}
		if e.Fate == fateStored {
			at := lastCame(e)
			gone, err := h.readSince(ctx, b, at)
			if err != nil {
				return false, err
			}
			if gone {
				lost = true
				e.Fate, e.Missing = fateUnknown, &Missing{After: &at, Why: whyLost("")}
			}
		}
		for k := range e.Triggers {
			tt := &e.Triggers[k]
			gone, err := h.isGone(ctx, tt)
			switch {
			case err != nil:
				return false, err
			case !gone:
			case tt.Fate == journal.Parked.String():
				tt.Note = "it is not parked any more: it was redriven a moment ago, removed, or dropped for its age or for want of room"
			default:
				lost = true
				tt.Missing = &Missing{After: &tt.last, Why: whyLost(lastProcess(e, tt))}
				tt.Fate, e.Fate = fateUnknown, fateUnknown
			}
		}
	}
	return lost, nil
}

func whyLost(process string) string {
	if process != "" {
		process = " (here it was " + process + ")"
	}
	return "the store has nothing of it any more, so it was settled by a process that was killed before it had stored its records, " +
		"of half a second at most" + process
}

func lastProcess(e *EventTrace, tt *TriggerTrace) string {
	if n := len(tt.Attempts); n > 0 {
		return tt.Attempts[n-1].Process
	}
	return e.Stored.Process
}

// clockSkew is by how much the clocks of a process and of the store may differ.
const clockSkew = 2 * time.Second

// lastCame is when an event was stored last, as far as it is known.
func lastCame(e *EventTrace) (at time.Time) {
	for _, r := range e.Received {
		if r.until.After(at) {
			at = r.until
		}
	}
	for _, r := range e.ReplyTo {
		if r.At.After(at) {
			at = r.At
		}
	}
	return at
}

// readSince says whether the store has nothing left of the time when an event came in.
func (h *Handler) readSince(ctx context.Context, b *Broker, at time.Time) (bool, error) {
	state, err := h.opts.Reader.StreamState(ctx, b.Names.Events)
	if err != nil {
		return false, err
	}
	return state.Oldest.IsZero() || state.Oldest.After(at.Add(clockSkew)), nil
}

// isGone says whether the message that stands for an unsettled delivery is not in the store.
func (h *Handler) isGone(ctx context.Context, tt *TriggerTrace) (bool, error) {
	switch {
	case !tt.Matched, tt.waits.sequence == 0, tt.waits.stream == "",
		tt.Fate == journal.Delivered.String(), tt.Fate == journal.DeadLettered.String():
		return false, nil
	}
	there, err := h.opts.Reader.Waits(ctx, tt.waits.stream, tt.waits.sequence)
	return !there && err == nil, err
}

// explainOthers adds the Triggers of the Broker that did not match, with the reason as far as the attributes tell it.
func (t *tracer) explainOthers() {
	in := trigger.NewInput(&event.Event{Attributes: t.match.Attributes})
	for _, tr := range t.catalog.Triggers {
		if t.byTrigger[tr.Name] != nil {
			continue
		}
		tt := &TriggerTrace{Trigger: tr.Name}
		t.byTrigger[tr.Name] = tt
		if !tr.Ready || tr.Filter == nil {
			tt.Note = "it is not in effect"
			if tr.Reason != "" {
				tt.Note += ": " + tr.Reason
			}
			continue
		}
		in.Reset(in.Event())
		x := tr.Filter.Explain(in)
		switch {
		case tr.Filter.UsesData():
			tt.Note = "its filter looks at the data, which the journal does not keep; `millrace trigger test` explains it with the event at hand"
		case x.Matched && t.match.Cut:
			tt.Note = "the event's attributes are too long to be kept in the journal as a whole"
		case x.Matched:
			tt.Note = "its filter, as it is now, would match: it was made or changed after the event was matched"
		default:
			tt.Failures = x.Failures()
		}
	}
}

// JournalLine is a record of the journal as it is told to those who follow it.
type JournalLine struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Broker string    `json:"broker,omitempty"`
	ID     string    `json:"id,omitempty"`
	Source string    `json:"source,omitempty"`
	Type   string    `json:"type,omitempty"`
	// From is who sent an event that was received or refused.
	From string `json:"from,omitempty"`
	// Process is the one that matched it, made an attempt, or could not keep records.
	Process string `json:"process,omitempty"`
	// Reply is what the event was answered with, ReplyTo what it answers.
	Reply   *Reference `json:"reply,omitempty"`
	ReplyTo *Reference `json:"replyTo,omitempty"`
	// TraceID is that of the trace which an event that was matched is part of.
	TraceID string `json:"traceID,omitempty"`
	// Triggers are those that an event matched, Trigger is the one that an attempt or a fate is about.
	Triggers   []string   `json:"triggers,omitempty"`
	Trigger    string     `json:"trigger,omitempty"`
	Attempt    int        `json:"attempt,omitempty"`
	Status     int        `json:"status,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Cause      string     `json:"cause,omitempty"`
	Seconds    float64    `json:"seconds,omitempty"`
	DeadLetter bool       `json:"deadLetter,omitempty"`
	Fate       string     `json:"fate,omitempty"`
	Next       *time.Time `json:"next,omitempty"`
	// Dropped is how many records are missing where Kind is gap.
	Dropped uint64 `json:"dropped,omitempty"`
}

func lineOf(r *journal.Record) JournalLine {
	l := JournalLine{
		At: r.Time, Kind: r.Kind.String(), Broker: r.Broker, ID: r.ID, Source: r.Source, Type: r.Type,
		Triggers: r.Triggers, Trigger: r.Trigger, Attempt: r.Attempt, Status: r.Status, Reason: r.Reason, Cause: r.Cause,
		Seconds: r.Duration.Seconds(), DeadLetter: r.DeadLetter, Fate: r.Fate.String(),
	}
	if r.Fate == journal.Retrying && !r.Due.IsZero() {
		l.Next = &r.Due
	}
	switch r.Kind {
	case journal.Received, journal.Refused:
		l.From = r.Peer
	case journal.Replied, journal.Answered:
		other := referenceOf(r)
		l.Cause, l.Reply = "", &other
		if r.Kind == journal.Replied {
			l.Reply, l.ReplyTo = nil, &other
		}
	case journal.Gap:
		l.Dropped, l.Process = r.Sequence, r.Peer
	case journal.Matched:
		l.Cause, l.TraceID, l.Process = "", r.Cause, r.Peer
	default:
		l.Process = r.Peer
	}
	return l
}

// TailFilter says which records are wanted; its conditions must all hold. A type or source that ends in * is a prefix.
type TailFilter struct {
	Namespace, Broker, Type, Source, Trigger string
	// CEL is an expression over the event's attributes, as in a Trigger.
	CEL string
	// Failures leaves out all but failed attempts, refusals, and what follows from them.
	Failures bool
}

func (h *Handler) tailJournal(w http.ResponseWriter, r *http.Request) {
	f := TailFilter{}
	for name, values := range r.URL.Query() {
		into := map[string]*string{"broker": &f.Broker, "type": &f.Type, "source": &f.Source, "trigger": &f.Trigger, "cel": &f.CEL, "namespace": &f.Namespace}[name]
		switch {
		case name == "failures":
			f.Failures = values[0] == "true"
		case into == nil:
			writeProblem(w, problemf(http.StatusBadRequest, "there is no parameter %q", name))
			return
		default:
			*into = values[0]
		}
	}
	wanted, p := newTailer(f)
	if p == nil {
		p = h.needsJournal()
	}
	if p != nil {
		writeProblem(w, p)
		return
	}
	ctx, release := h.begin(r.Context())
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	flush := func() {
		if http.NewResponseController(w).Flush() != nil {
			cancel()
		}
	}
	flush()
	records := make(chan []journal.Record)
	var failed error
	go func() {
		defer close(records)
		failed = h.opts.Journal.FollowJournal(ctx, func(data []byte) {
			var block []journal.Record
			_ = journal.Decode(data, func(r *journal.Record) bool { // of a later version
				if wanted.wants(r) {
					block = append(block, *r)
				}
				return true
			})
			select {
			case records <- block:
			case <-ctx.Done():
			}
		})
	}()
	for block := range records {
		slices.SortStableFunc(block, func(x, y journal.Record) int { return x.Time.Compare(y.Time) })
		for i := range block {
			writeValue(w, lineOf(&block[i]))
		}
		flush()
	}
	var end *Problem
	if failed != nil {
		end = journalProblem(failed)
	}
	if errors.As(context.Cause(ctx), &end) || end != nil { // the right to follow it may have been taken away
		writeValue(w, struct {
			Problem *Problem `json:"problem"`
		}{end})
	}
}

// maxVerdicts bounds the events whose outcome an expression is remembered for.
const maxVerdicts = 20_000

// tailer chooses records. Only those of a match have all attributes, so what an expression said of one holds for the later
// records of the event.
type tailer struct {
	f        TailFilter
	matches  func(*event.Event) bool // nil if all do
	verdicts map[verdictKey]bool
}

type verdictKey struct{ broker, source, id string }

func newTailer(f TailFilter) (*tailer, *Problem) {
	t := &tailer{f: f}
	if f.CEL == "" {
		return t, nil
	}
	if len(f.CEL) > trigger.MaxExpression {
		return nil, problemf(http.StatusBadRequest, "the CEL expression has more than %d bytes", trigger.MaxExpression)
	}
	env, err := cel.NewEnv()
	if err != nil {
		return nil, problemf(http.StatusInternalServerError, "prepare the CEL expression: %v", err)
	}
	program, err := env.Compile(f.CEL)
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "the CEL expression: %v", err)
	}
	if program.UsesData() {
		return nil, problemf(http.StatusBadRequest, "the CEL expression looks at data, which the journal does not keep").
			hint("use attributes only, such as ce.type and ce.subject")
	}
	in := cel.NewInput(&event.Event{})
	t.matches = func(e *event.Event) bool {
		in.Reset(e)
		ok, err := program.Eval(in)
		return ok && err == nil // as in a Trigger
	}
	t.verdicts = map[verdictKey]bool{}
	return t, nil
}

func (t *tailer) wants(r *journal.Record) bool {
	if r.Kind == journal.Gap {
		return true
	}
	f := &t.f
	switch {
	case !inNamespace(r.Broker, f.Namespace), f.Broker != "" && r.Broker != f.Broker, !accepts(f.Type, r.Type), !accepts(f.Source, r.Source):
		return false
	case f.Trigger != "" && r.Trigger != f.Trigger && !slices.Contains(r.Triggers, f.Trigger):
		return false
	case !t.satisfies(r): // before what follows, so that it learns
		return false
	}
	return !f.Failures || isFailure(r)
}

func isFailure(r *journal.Record) bool {
	switch r.Kind {
	case journal.Attempted:
		return r.Fate != journal.Delivered && r.Fate != journal.DeadLettered
	case journal.Settled, journal.Refused:
		return r.Fate != journal.Waiting
	case journal.Replied:
		return r.Fate == journal.Dropped
	default:
		return false
	}
}

func accepts(pattern, value string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(value, prefix)
	}
	return pattern == "" || pattern == value
}

func (t *tailer) satisfies(r *journal.Record) bool {
	if t.matches == nil {
		return true
	}
	key := verdictKey{r.Broker, r.Source, r.ID}
	if r.Kind != journal.Matched {
		if verdict, known := t.verdicts[key]; known {
			return verdict
		}
	}
	e := &event.Event{Attributes: r.Attributes}
	if len(e.Attributes) == 0 {
		for name, value := range map[string]string{event.ID: r.ID, event.Source: r.Source, event.Type: r.Type} {
			e.Set(name, value, event.String)
		}
	}
	verdict := t.matches(e)
	if r.Kind == journal.Matched {
		if len(t.verdicts) >= maxVerdicts {
			clear(t.verdicts)
		}
		t.verdicts[key] = verdict
	}
	return verdict
}
