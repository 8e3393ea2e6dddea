package trigger

import (
	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
)

// EvalErrors counts the filter expressions that failed at evaluation and for that reason did not match.
type EvalErrors struct {
	// CEL counts expressions of the cel dialect.
	CEL int
	// CELDeadline is how many of these ran out of the event's time, see [cel.EventDeadline]. The machine may have been
	// busy: unlike all other evaluations these may come out differently when tried again.
	CELDeadline int
	// CESQL counts expressions of the cesql dialect, those included whose result is not a boolean.
	CESQL int
}

// Input is one event under evaluation. It holds what filters share: the JSON body, decoded when a filter first asks for
// it and then at most once, the view of the event that CESQL reads, the counts of failed evaluations, and scratch space
// that makes matching free of allocations. An Input may be reused by Reset but not shared by goroutines.
type Input struct {
	event *event.Event
	cel   *cel.Input
	sql   sqlContext
	errs  EvalErrors

	hits  []uint32 // scratch of Table.Match: the entries found so far
	slots []slot   // scratch of index.match: the values of attributes that compound keys want
}

// NewInput returns an Input for the event, which must not change until the Input is reset.
func NewInput(e *event.Event) *Input {
	in := &Input{event: e, cel: cel.NewInput(e)}
	in.sql.reset(e)
	return in
}

// Reset makes in an Input for another event, as if it were new, and keeps its memory. The deadline that bounds CEL
// starts anew.
func (in *Input) Reset(e *event.Event) {
	in.event = e
	in.cel.Reset(e)
	in.sql.reset(e)
	in.errs = EvalErrors{}
}

// Event returns the event under evaluation.
func (in *Input) Event() *event.Event { return in.event }

// Errors returns the number of evaluations that failed since the Input was made or reset. A Table evaluates only
// filters that can still match, so the counts do not include filters that an event misses by its attributes.
func (in *Input) Errors() EvalErrors { return in.errs }

// DataParses returns how often the JSON body was decoded: 0 or 1.
func (in *Input) DataParses() int { return in.cel.DataParses() }
