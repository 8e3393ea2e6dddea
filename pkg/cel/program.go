package cel

import (
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// Program is a compiled expression. It is immutable and safe for concurrent use, each goroutine with its own [Input].
type Program struct {
	env        *Env
	expr       string
	prog       cel.Program
	equalities []Equality
	cost       uint64
	usesData   bool
	loops      bool
}

// Expr returns the source text.
func (p *Program) Expr() string { return p.expr }

// UsesData reports whether the expression mentions the variable data. One that does not never causes the body to be
// parsed.
func (p *Program) UsesData() bool { return p.usesData }

// StaticCost returns the estimated cost, in CEL cost units, for the most expensive event that the limits allow.
func (p *Program) StaticCost() uint64 { return p.cost }

// Metered reports whether every call is counted against [MaxCost] and the evaluation runs under [EventDeadline], because
// the expression has a loop. In others only those calls count whose work depends on the size of their arguments.
func (p *Program) Metered() bool { return p.loops }

// Equalities returns conditions that every event meets for which the program is true. There may be none. An index may
// use them to find the few programs that an event could satisfy. The caller must not change them.
func (p *Program) Equalities() []Equality { return p.equalities }

// Eval returns whether the expression is true for the event. Its error, if any, is an [*EvalError]; Eval does not panic.
func (p *Program) Eval(in *Input) (bool, error) {
	out, err := p.run(in)
	if err != nil {
		return false, newEvalError(err)
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, newEvalError(kindErrorf(KindType, "the result is not a boolean but of type %s", out.Type().TypeName()))
	}
	return bool(b), nil
}

// run evaluates to a value of any type.
func (p *Program) run(in *Input) (out ref.Val, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, kindErrorf(KindInternal, "internal error: %v", r)
		}
		if err == nil && out == nil {
			err = kindErrorf(KindInternal, "internal error: no result")
		}
	}()
	if p.loops {
		return p.runTimed(in)
	}
	in.fuel = MaxCost
	out, _, err = p.prog.Eval(in)
	return out, err
}

// runTimed evaluates under the event's deadline. The time that it takes to parse the body is not on the account of the
// filter that happens to need it first: after that, the clock starts anew. A filter that ran out of time before it had
// done much was held up by the machine and gets a second try, as a missed deadline may cost a Trigger the event.
func (p *Program) runTimed(in *Input) (ref.Val, error) {
	parses := in.parses
	out, err := p.tryTimed(in)
	if in.parses > parses {
		in.stopClock()
	}
	if err == nil || kindOf(err) != KindDeadline || in.parses == parses && in.fuel < MaxCost-MaxCost/10 {
		return out, err
	}
	return p.tryTimed(in)
}

func (p *Program) tryTimed(in *Input) (ref.Val, error) {
	ctx, done := in.context()
	defer done()
	in.fuel = MaxCost
	out, _, err := p.prog.ContextEval(ctx, in)
	return out, err
}
