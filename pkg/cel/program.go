package cel

import (
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// Program is a compiled expression. It is immutable and safe for concurrent use, each goroutine with its own [Input].
type Program struct {
	expr       string
	ast        *cel.Ast
	prog       cel.Program
	equalities []Equality
	usesData   bool
	cost       uint64
	metered    bool
}

// Expr returns the source text.
func (p *Program) Expr() string { return p.expr }

// UsesData reports whether the expression mentions the variable data. One that does not never causes the body to be
// parsed.
func (p *Program) UsesData() bool { return p.usesData }

// StaticCost returns the estimated cost, in CEL cost units, for the most expensive event that the limits allow.
func (p *Program) StaticCost() uint64 { return p.cost }

// Metered reports whether evaluations are counted against [MaxCost] and run under [EventDeadline]. Those of small static
// cost and without a loop are not: they need no meter, which takes longer than they do.
func (p *Program) Metered() bool { return p.metered }

// Equalities returns conditions that every event meets for which the program is true. There may be none. An index may
// use them to find the few programs that an event could satisfy. The caller must not change them.
func (p *Program) Equalities() []Equality { return p.equalities }

// Eval returns whether the expression is true for the event. Its error, if any, is an [*EvalError]; Eval does not panic.
func (p *Program) Eval(in *Input) (result bool, err error) {
	out, err := p.run(in)
	if err != nil {
		return false, newEvalError(err)
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, newEvalError(kindErrorf(KindType, "the result is not a boolean but %s", typeName(out)))
	}
	return bool(b), nil
}

func (p *Program) run(in *Input) (out ref.Val, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, kindErrorf(KindInternal, "internal error: %v", r)
		}
	}()
	if !p.metered {
		out, _, err = p.prog.Eval(in)
		return out, err
	}
	ctx, done := in.context()
	defer done()
	out, _, err = p.prog.ContextEval(ctx, in)
	return out, err
}

func typeName(v ref.Val) string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("of type %s", v.Type().TypeName())
}
