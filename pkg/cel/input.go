package cel

import (
	"context"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/interpreter"

	"millrace.dev/pkg/event"
)

// Input is one event under evaluation. It holds what programs share: the converted attributes, the JSON body, which is
// parsed when a program first asks for it, and the event's deadline. An Input may be reused by [Input.Reset]; it is not
// safe for concurrent use. The event must not change meanwhile.
type Input struct {
	attrs   attributes
	data    any
	dataErr *types.Err
	parses  int
	decoded bool

	fuel   int             // units of work that the evaluation under way has left
	ctx    context.Context // the event's deadline, made by the first program that needs it
	cancel context.CancelFunc
}

var _ interpreter.Activation = (*Input)(nil)

// NewInput returns the input for one event.
func NewInput(e *event.Event) *Input {
	in := &Input{}
	in.Reset(e)
	return in
}

// Reset makes in the input for another event. Values that came from it before stay valid.
func (in *Input) Reset(e *event.Event) {
	in.attrs.reset(e)
	in.data, in.dataErr, in.parses, in.decoded = nil, nil, 0, false
	in.stopClock()
}

// stopClock gives the programs that follow the whole of the event's deadline.
func (in *Input) stopClock() {
	if in.cancel != nil {
		in.cancel()
	}
	in.ctx, in.cancel = nil, nil
}

// Event returns the event.
func (in *Input) Event() *event.Event { return in.attrs.event }

// Data returns the JSON body as nil, bool, int64, uint64, float64, string, []any or map[string]any, and whether the
// event has one: it has none if its content type is not JSON, if it has no data, or if that is not valid JSON. Numbers
// that do not fit are error values inside it. The caller must not change it.
func (in *Input) Data() (any, bool) {
	in.decode()
	return in.data, in.dataErr == nil
}

// DataParses returns how often the body has been parsed for this event: 0 or 1.
func (in *Input) DataParses() int { return in.parses }

func (in *Input) decode() {
	if in.decoded {
		return
	}
	in.decoded = true
	if len(in.attrs.event.Data) > 0 && event.IsJSON(in.attrs.event.Value(event.DataContentType)) {
		in.parses++
	}
	data, err := decodeData(in.attrs.event)
	if err != nil {
		in.dataErr = types.WrapErr(err).(*types.Err)
		return
	}
	in.data = data
}

// ResolveName implements the evaluator's activation: it finds the variables ce and data.
func (in *Input) ResolveName(name string) (any, bool) {
	switch name {
	case "ce":
		return &in.attrs, true
	case "data":
		in.decode()
		if in.dataErr != nil {
			return in.dataErr, true
		}
		return in.data, true
	case inputVariable:
		return in, true
	default:
		return nil, false
	}
}

// Parent implements the evaluator's activation: an Input has none.
func (in *Input) Parent() interpreter.Activation { return nil }

// context returns the context in which the next costly program runs, and what to call after it. All of them share the
// event's deadline; once that has passed, each still gets MinSlice.
func (in *Input) context() (context.Context, context.CancelFunc) {
	if in.ctx == nil {
		in.ctx, in.cancel = context.WithTimeout(context.Background(), EventDeadline)
	}
	if end, _ := in.ctx.Deadline(); time.Until(end) > MinSlice {
		return in.ctx, func() {}
	}
	return context.WithTimeout(context.Background(), MinSlice)
}
