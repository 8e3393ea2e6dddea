// Package replay gives archived events of a Broker to one of its Triggers once more. A replay is a record in the store, which any filter
// process works on, one at a time; another one goes on with it where the last one left it.
package replay

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// Attribute is the extension attribute by which a subscriber knows a replayed event; its value is the id of the replay.
const Attribute = "millracereplay"

// The states of a replay.
const (
	Running  = "running"
	Done     = "done"
	Canceled = "canceled"
	Failed   = "failed"
)

// Selection says which archived events are meant.
type Selection struct {
	// Since leaves out events accepted before it, Until those accepted after it.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Type, if not empty, leaves out events of other types. A * in it stands for anything.
	Type string `json:"type,omitempty"`
	// CEL, if not empty, is an expression over ce and data that must be true.
	CEL string `json:"cel,omitempty"`
}

// Replay is one replay.
type Replay struct {
	ID string `json:"id"`
	// Broker is namespace/name, Trigger as well.
	Broker     string `json:"broker"`
	Trigger    string `json:"trigger"`
	TriggerUID string `json:"triggerUID"`
	Selection
	// Rate bounds the events given to the Trigger a second; 0 for no bound.
	Rate    float64   `json:"rate,omitempty"`
	Created time.Time `json:"created"`
	// By is who asked for it, where that is known.
	By string `json:"by,omitempty"`
	// State is [Running] until it has ended, and Problem why it failed.
	State   string `json:"state"`
	Problem string `json:"problem,omitempty"`
	// Examined events of the archive so far, and Replayed of them, which were handed to the Trigger.
	Examined uint64 `json:"examined"`
	Replayed uint64 `json:"replayed"`

	// After is the sequence of the archive that was examined last, End the last that is to be.
	After uint64 `json:"after"`
	End   uint64 `json:"end"`
	// Owner is the process that works on it, Beat when that wrote last.
	Owner string    `json:"owner,omitempty"`
	Beat  time.Time `json:"beat,omitzero"`
}

// newID returns an id that nobody has had.
func newID() string { return strings.ToLower(rand.Text()[:12]) }

// selector tells selected events from others. It is not safe for concurrent use.
type selector struct {
	Selection
	program *cel.Program
	in      *cel.Input
	filter  *trigger.Filter
	input   *trigger.Input
}

// errNoTime says that no event can be selected.
var errNoTime = errors.New("until is not after since")

func newSelector(s Selection, filter *trigger.Filter) (*selector, error) {
	sel := &selector{Selection: s, filter: filter, in: cel.NewInput(&event.Event{}), input: trigger.NewInput(&event.Event{})}
	if !s.Until.After(s.Since) {
		return nil, errNoTime
	}
	if s.CEL == "" {
		return sel, nil
	}
	if len(s.CEL) > trigger.MaxExpression {
		return nil, fmt.Errorf("the CEL expression has more than %d bytes", trigger.MaxExpression)
	}
	env, err := cel.NewEnv()
	if err != nil {
		return nil, fmt.Errorf("prepare the CEL expression: %w", err)
	}
	if sel.program, err = env.Compile(s.CEL); err != nil {
		return nil, fmt.Errorf("the CEL expression: %w", err)
	}
	return sel, nil
}

// selects says whether the event is selected and matches the Trigger's filter.
func (s *selector) selects(a *stream.Archived) bool {
	if a.Event == nil || a.Accepted.Before(s.Since) || a.Accepted.After(s.Until) || !accepts(s.Type, a.Event.Value(event.Type)) {
		return false
	}
	if s.program != nil {
		s.in.Reset(a.Event)
		if ok, err := s.program.Eval(s.in); !ok || err != nil { // as in a Trigger
			return false
		}
	}
	s.input.Reset(a.Event)
	return s.filter.Match(s.input)
}

// accepts says whether a value is as a pattern says, in which each * stands for anything.
func accepts(pattern, value string) bool {
	if pattern == "" {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return value == pattern
	}
	first, last := parts[0], parts[len(parts)-1]
	rest, ok := strings.CutPrefix(value, first)
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		if _, rest, ok = strings.Cut(rest, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, last)
}

// Target is what a replay needs to know of a Trigger and its Broker.
type Target struct {
	Names *stream.Names
	// Trigger is namespace/name.
	Trigger, TriggerUID string
	// Filter is nil if the Trigger is not in effect.
	Filter *trigger.Filter
}

// errNotInEffect says that it cannot be known which events a Trigger wants.
var errNotInEffect = errors.New("the Trigger is not in effect: mend what millrace top or its status tells of it")

// Store is where archive and replays are.
type Store interface {
	ReadArchive(ctx context.Context, n *stream.Names, q stream.ArchiveQuery) (stream.ArchivePage, error)
	ArchiveState(ctx context.Context, n *stream.Names) (stream.State, error)
	SubjectCounts(ctx context.Context, name, prefix string) (map[string]uint64, error)
	PutReplay(ctx context.Context, r stream.Record) (uint64, error)
	GetReplay(ctx context.Context, key string) (stream.Record, error)
	ListReplays(ctx context.Context) ([]stream.Record, error)
}

// Count returns how many events of the archive a replay would examine and how many of them it would give to the Trigger.
func Count(ctx context.Context, store Store, to Target, s Selection) (examined, selected uint64, err error) {
	sel, end, err := prepare(ctx, store, to, s)
	if err != nil {
		return 0, 0, err
	}
	for q := (stream.ArchiveQuery{Since: s.Since, Until: end}); ; {
		page, err := store.ReadArchive(ctx, to.Names, q)
		if err != nil {
			return examined, selected, err
		}
		for i := range page.Events {
			examined++
			if sel.selects(&page.Events[i]) {
				selected++
			}
		}
		if page.Next == 0 {
			return examined, selected, nil
		}
		q.After = page.Next
	}
}

// prepare checks what is asked for, and returns the last sequence that is to be examined.
func prepare(ctx context.Context, store Store, to Target, s Selection) (*selector, uint64, error) {
	if to.Filter == nil {
		return nil, 0, errNotInEffect
	}
	sel, err := newSelector(s, to.Filter)
	if err != nil {
		return nil, 0, err
	}
	state, err := store.ArchiveState(ctx, to.Names)
	if err != nil {
		return nil, 0, err
	}
	return sel, state.Last, nil
}

// Create has a replay begin, in any process. What is accepted, or archived, later is no part of it.
func Create(ctx context.Context, store Store, to Target, s Selection, rate float64, by string) (Replay, error) {
	_, end, err := prepare(ctx, store, to, s)
	if err != nil {
		return Replay{}, err
	}
	r := Replay{
		ID: newID(), Broker: to.Names.Namespace + "/" + to.Names.Name, Trigger: to.Trigger, TriggerUID: to.TriggerUID,
		Selection: s, Rate: rate, Created: time.Now().UTC(), By: by, State: Running, End: end,
	}
	_, err = put(ctx, store, &r, 0)
	return r, err
}

// List returns all replays, the newest first.
func List(ctx context.Context, store Store) ([]Replay, error) {
	records, err := store.ListReplays(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Replay, 0, len(records))
	for _, record := range records {
		r, err := read(record)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y Replay) int { return y.Created.Compare(x.Created) })
	return all, nil
}

// Cancel ends a replay of the Broker, given as namespace/name. What was given to the Trigger already is delivered. A replay that has ended stays as it is. The error
// matches [stream.ErrNoRecord] if there is no such replay.
func Cancel(ctx context.Context, store Store, broker, id string) (Replay, error) {
	for {
		record, err := store.GetReplay(ctx, id)
		if err != nil {
			return Replay{}, err
		}
		r, err := read(record)
		switch {
		case err != nil:
			return r, err
		case r.Broker != broker:
			return Replay{}, stream.ErrNoRecord
		case r.State != Running:
			return r, nil
		}
		r.State, r.Owner = Canceled, ""
		if _, err = put(ctx, store, &r, record.Revision); !errors.Is(err, stream.ErrChanged) {
			return r, err
		}
	}
}

func read(record stream.Record) (r Replay, err error) {
	if err = json.Unmarshal(record.Data, &r); err != nil {
		return r, fmt.Errorf("read replay %s: %w", record.Key, err)
	}
	return r, nil
}

func put(ctx context.Context, store Store, r *Replay, revision uint64) (uint64, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("write replay %s: %w", r.ID, err)
	}
	return store.PutReplay(ctx, stream.Record{Key: r.ID, Data: data, Revision: revision})
}
