package adminapi

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace.dev/pkg/stream"
)

// scanPage is how many events are asked of the store at a time. Their headers, of a few hundred bytes each, are what a
// scan holds in memory.
const scanPage = 1000

// maxSequences bounds the single events of one selection.
const maxSequences = 10_000

// ParseAge reads a duration as time.ParseDuration does, and also a number of days such as 7d.
func ParseAge(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		if n, err = strconv.ParseFloat(days, 64); err == nil {
			d = time.Duration(n * 24 * float64(time.Hour))
		}
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no duration; write one such as 90m, 36h or 7d", text)
	}
	return d, nil
}

// selector is a Selection made ready for use.
type selector struct {
	triggerUID string
	code       *int
	cause      string    // in lower case
	before     time.Time // parked before; zero if it does not matter
	sequences  []uint64  // in order; nil if they do not matter
	limit      uint64
	dryRun     bool
}

// selectorFor checks the selection against the Broker it is for.
func selectorFor(s *Selection, b *Broker, now time.Time) (*selector, *Problem) {
	sel := &selector{code: s.Code, cause: strings.ToLower(s.Cause), dryRun: s.DryRun}
	if s.Limit < 0 {
		return nil, problemf(http.StatusBadRequest, "limit is negative")
	}
	sel.limit = uint64(s.Limit)
	if s.OlderThan != "" {
		age, err := ParseAge(s.OlderThan)
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "olderThan: %v", err)
		}
		sel.before = now.Add(-age)
	}
	if len(s.Sequences) > maxSequences {
		return nil, problemf(http.StatusBadRequest, "more than %d sequences", maxSequences)
	}
	if slices.Contains(s.Sequences, 0) {
		return nil, problemf(http.StatusBadRequest, "there is no sequence 0")
	}
	sel.sequences = slices.Compact(slices.Sorted(slices.Values(s.Sequences)))
	var p *Problem
	sel.triggerUID, p = triggerUID(s.Trigger, b)
	return sel, p
}

// triggerUID resolves a Trigger's name. What has no slash is taken for a UID: that is how a Trigger is told that exists
// no more.
func triggerUID(name string, b *Broker) (string, *Problem) {
	if !strings.Contains(name, "/") {
		if strings.IndexFunc(name, func(r rune) bool { return r != '-' && !isWordRune(r) || r > 0x7f }) >= 0 {
			return "", problemf(http.StatusBadRequest, "%q is neither namespace/name nor the UID of a Trigger", name)
		}
		return name, nil
	}
	for uid, t := range b.Triggers {
		if t.Name == name {
			return uid, nil
		}
	}
	return "", problemf(http.StatusNotFound, "the Broker has no Trigger %s", name).
		hint("if it was deleted, give the UID that `millrace dlq ls` shows")
}

// conditional says whether the selection has a condition.
func (s *Selection) conditional() bool {
	return s.Trigger != "" || s.Code != nil || s.Cause != "" || s.OlderThan != "" || len(s.Sequences) > 0
}

// checkScope makes sure that nobody changes everything by leaving something out.
func (s *Selection) checkScope() *Problem {
	switch {
	case s.All && s.conditional():
		return problemf(http.StatusBadRequest, `"all" does not go with a condition`)
	case !s.All && !s.conditional():
		return problemf(http.StatusBadRequest, "nothing says which events are meant").
			hint(`give a condition (trigger, code, cause, olderThan, sequences), or "all": true`)
	}
	return nil
}

// wholesale says whether the store itself can tell which events are meant.
func (s *selector) wholesale() bool {
	return s.code == nil && s.cause == "" && s.before.IsZero() && s.sequences == nil && s.limit == 0 && !s.dryRun
}

// matches says whether the selection has the event.
func (s *selector) matches(p *stream.Parked) bool {
	return (s.triggerUID == "" || p.TriggerUID == s.triggerUID) &&
		(s.code == nil || p.Progress.Code == *s.code) &&
		(s.before.IsZero() || p.At.Before(s.before)) &&
		(s.cause == "" || contains(p.Progress.Cause, s.cause) || contains(generalize(p.Progress.Cause), s.cause))
}

func contains(text, lower string) bool { return strings.Contains(strings.ToLower(text), lower) }

// scan is a walk over parked events.
type scan struct {
	reader   Reader
	names    *stream.Names
	selector *selector
	// after and until bound it: what is parked while it runs is not part of it.
	after, until uint64

	// tick, if set, is called after each event looked at.
	tick func()

	examined, total, missing uint64
}

// looked counts an event that was looked at.
func (s *scan) looked() {
	s.examined++
	if s.tick != nil {
		s.tick()
	}
}

// newScan begins a walk over what is parked now.
func newScan(ctx context.Context, r Reader, n *stream.Names, s *selector) (*scan, error) {
	state, err := r.ParkedState(ctx, n)
	if err != nil {
		return nil, err
	}
	total := state.Messages
	if s.sequences != nil {
		total = uint64(len(s.sequences))
	}
	return &scan{reader: r, names: n, selector: s, until: state.Last, total: total}, nil
}

// events yields the selected events, oldest first, or an error as the last.
func (s *scan) events(ctx context.Context) iter.Seq2[*stream.Parked, error] {
	if s.until == 0 {
		return func(func(*stream.Parked, error) bool) {}
	}
	if s.selector.sequences != nil {
		return s.single(ctx)
	}
	return func(yield func(*stream.Parked, error) bool) { s.walk(ctx, yield) }
}

// walk reports whether to go on.
func (s *scan) walk(ctx context.Context, yield func(*stream.Parked, error) bool) bool {
	q := stream.ParkedQuery{TriggerUID: s.selector.triggerUID, After: s.after, Until: s.until, Limit: scanPage}
	for {
		page, err := s.page(ctx, q)
		if err != nil {
			yield(nil, err)
			return false
		}
		if s.examined == 0 && s.selector.triggerUID != "" {
			s.total = page.Pending // of this Trigger
		}
		for i := range page.Events {
			if p := &page.Events[i]; s.selector.matches(p) && !yield(p, nil) {
				return false
			}
			s.looked()
		}
		if page.Next == 0 {
			return true
		}
		q.After = page.Next
	}
}

// page prefers the reason why ctx ended to what the store makes of it.
func (s *scan) page(ctx context.Context, q stream.ParkedQuery) (stream.ParkedPage, error) {
	page, err := s.reader.ListParked(ctx, s.names, q)
	if ctx.Err() != nil {
		return page, context.Cause(ctx)
	}
	return page, err
}

// single yields the events of the selection's sequences.
func (s *scan) single(ctx context.Context) iter.Seq2[*stream.Parked, error] {
	return func(yield func(*stream.Parked, error) bool) {
		for _, sequence := range s.selector.sequences {
			page, err := s.page(ctx, stream.ParkedQuery{After: sequence - 1, Until: sequence, Limit: 1})
			if err != nil {
				yield(nil, err)
				return
			}
			if len(page.Events) == 0 {
				s.missing++
			} else if p := &page.Events[0]; s.selector.matches(p) && !yield(p, nil) {
				return
			}
			s.looked()
		}
	}
}
