package cel

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// meter replaces calls in the plan of a program by ones that pay before they run. The evaluator's own cost tracker is of
// no use here: it charges a call after it has returned, when a huge value has been made or a minute has passed, and its
// bookkeeping takes time that is quadratic in the turns of a loop.
type meter struct {
	impls  map[string]*functions.Overload // by overload, and by function for those that dispatch at run time
	gauges map[string]gauge               // by function
}

// newMeter collects the implementations of the functions of env.
func newMeter(env *cel.Env) (*meter, error) {
	m := &meter{impls: map[string]*functions.Overload{}, gauges: gauges()}
	for name, decl := range env.Functions() {
		bindings, err := decl.Bindings()
		if err != nil {
			return nil, fmt.Errorf("bind function %s: %w", name, err)
		}
		for _, b := range bindings {
			m.impls[b.Operator] = b
		}
	}
	for name := range m.gauges {
		if _, ok := env.Functions()[name]; !ok {
			return nil, fmt.Errorf("meter function %s: not declared", name)
		}
	}
	return m, nil
}

// decorate returns what replaces calls. Where there are no loops, calls whose work does not depend on the size of their
// arguments are left alone: the length of the expression bounds them.
func (m *meter) decorate(loops bool) interpreter.InterpretableDecoratorV2 {
	return func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		call, ok := i.(interpreter.InterpretableCall)
		if !ok {
			return i, nil
		}
		switch call.Function() {
		case operators.Equals, operators.NotEquals:
			return meterEquality(call, loops), nil
		case overloads.Matches:
			if pattern, ok := stringConst(call.Args()[1]); ok {
				return newLiteralMatch(call, pattern)
			}
		}
		return m.call(call, loops), nil
	}
}

func (m *meter) call(call interpreter.InterpretableCall, loops bool) interpreter.InterpretableV2 {
	impl := m.impls[call.OverloadID()]
	if impl == nil {
		impl = m.impls[call.Function()]
	}
	g := m.gauges[call.Function()]
	if impl == nil || impl.NonStrict || len(call.Args()) == 0 || g == nil && !loops {
		return call
	}
	if g == nil {
		g = scan(slowBytes)
	}
	return &meteredCall{InterpretableCall: call, args: call.Args(), impl: impl, gauge: g}
}

func stringConst(i interpreter.InterpretableV2) (string, bool) {
	c, ok := i.(interpreter.InterpretableConst)
	if !ok {
		return "", false
	}
	s, ok := c.Value().(types.String)
	return string(s), ok
}

// inputVariable is the name, which no expression can spell, under which a call finds the Input of its evaluation.
const inputVariable = "@input"

// spend takes work from what the evaluation has left. It panics as the evaluator does to stop at once: an error value
// could be absorbed by the other side of an or, and the loop around it would go on.
func spend(frame *interpreter.ExecutionFrame, work int, what string) {
	in, ok := frame.Activation.(*Input)
	if !ok {
		v, _ := frame.ResolveName(inputVariable)
		if in, ok = v.(*Input); !ok {
			return // the evaluator computes a constant while it plans
		}
	}
	in.fuel -= work
	if in.fuel < 0 {
		panic(interpreter.EvalCancelledError{
			Cause:   interpreter.CostLimitExceeded,
			Message: fmt.Sprintf("the evaluation takes more than %d units of work; it was stopped at %s", MaxCost, display(what)),
		})
	}
}

func display(function string) string {
	if symbol, ok := operators.FindReverse(function); ok && symbol != "" {
		return symbol
	}
	return function
}

// meteredCall is a strict call: it has no result if an argument has none.
type meteredCall struct {
	interpreter.InterpretableCall
	args  []interpreter.InterpretableV2
	impl  *functions.Overload
	gauge gauge
}

// Exec implements the evaluator's interface.
func (c *meteredCall) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	args := make([]ref.Val, len(c.args))
	for i, a := range c.args {
		args[i] = a.Exec(frame)
		if types.IsUnknownOrError(args[i]) {
			return args[i]
		}
	}
	work, err := c.gauge(args)
	if err != nil {
		return types.WrapErr(err)
	}
	spend(frame, work, c.Function())
	return c.invoke(args)
}

// invoke calls the implementation, or the method of the first argument where types have methods.
func (c *meteredCall) invoke(args []ref.Val) ref.Val {
	if c.impl.OperandTrait == 0 || args[0].Type().HasTrait(c.impl.OperandTrait) {
		switch {
		case len(args) == 1 && c.impl.Unary != nil:
			return c.impl.Unary(args[0])
		case len(args) == 2 && c.impl.Binary != nil:
			return c.impl.Binary(args[0], args[1])
		case c.impl.Function != nil:
			return c.impl.Function(args...)
		}
	}
	if r, ok := args[0].(traits.Receiver); ok {
		return r.Receive(c.Function(), c.OverloadID(), args[1:])
	}
	return types.NewErr("no such overload: %s", display(c.Function()))
}

// Eval implements the evaluator's older interface.
func (c *meteredCall) Eval(vars interpreter.Activation) ref.Val {
	return c.Exec(interpreter.AsFrame(vars))
}

// meterEquality leaves comparisons with a constant number or string alone.
func meterEquality(call interpreter.InterpretableCall, loops bool) interpreter.InterpretableV2 {
	args := call.Args()
	if !loops && slices.ContainsFunc(args, isScalarConst) {
		return call
	}
	return &meteredEquality{call, args[0], args[1], call.Function() == operators.Equals}
}

func isScalarConst(i interpreter.InterpretableV2) bool {
	c, ok := i.(interpreter.InterpretableConst)
	return ok && !isContainer(c.Value())
}

// meteredEquality is == or !=.
type meteredEquality struct {
	interpreter.InterpretableCall
	lhs, rhs interpreter.InterpretableV2
	equal    bool
}

// Exec implements the evaluator's interface.
func (b *meteredEquality) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	l := b.lhs.Exec(frame)
	if types.IsUnknownOrError(l) {
		return l
	}
	r := b.rhs.Exec(frame)
	if types.IsUnknownOrError(r) {
		return r
	}
	spend(frame, equalityWork(l, r), b.Function())
	eq := types.Equal(l, r)
	if v, ok := eq.(types.Bool); ok {
		return types.Bool(bool(v) == b.equal)
	}
	return eq
}

// Eval implements the evaluator's older interface.
func (b *meteredEquality) Eval(vars interpreter.Activation) ref.Val {
	return b.Exec(interpreter.AsFrame(vars))
}

// equalityWork is the weight of a side that is small, or else twice that of one that is not, as it takes as long to
// weigh it. Lists may refer to the same large list many times over: their weight is out of proportion to the work of
// making them.
func equalityWork(l, r ref.Val) int {
	if !isContainer(l) || !isContainer(r) {
		return 1 + min(textSize(l), textSize(r))/fastBytes
	}
	const small = 256
	if n := min(weight(l, small), weight(r, small)); n <= small {
		return n
	}
	if n := weight(l, MaxCost); n <= MaxCost {
		return 2 * n
	}
	return 2 * weight(r, MaxCost)
}

// literalMatch is a call of matches whose pattern is constant and compiled once. It does not show the evaluator that it
// is a call, which would put its own version of the same in its place.
type literalMatch struct {
	call    interpreter.InterpretableCall
	subject interpreter.InterpretableV2
	re      *regexp.Regexp
	size    int
}

func newLiteralMatch(call interpreter.InterpretableCall, pattern string) (interpreter.InterpretableV2, error) {
	size, err := regexSize(pattern)
	if err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("compile regular expression: %w", err)
	}
	return &literalMatch{call: call, subject: call.Args()[0], re: re, size: size}, nil
}

// ID implements the evaluator's interface.
func (m *literalMatch) ID() int64 { return m.call.ID() }

// Exec implements the evaluator's interface.
func (m *literalMatch) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	subject := m.subject.Exec(frame)
	if types.IsUnknownOrError(subject) {
		return subject
	}
	s, ok := subject.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(subject)
	}
	spend(frame, matchWork(len(s), m.size), overloads.Matches)
	return types.Bool(m.re.MatchString(string(s)))
}

// Eval implements the evaluator's older interface.
func (m *literalMatch) Eval(vars interpreter.Activation) ref.Val {
	return m.Exec(interpreter.AsFrame(vars))
}
