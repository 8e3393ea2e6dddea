package cel

import "strconv"

// Explanation tells how an expression came to its result.
type Explanation struct {
	// Expr is the source text of the expression or sub-expression.
	Expr string
	// Result is "true", "false", another value, or the text of the error that took its place.
	Result string
	// Values are the attributes and fields that the expression reads directly, in the order of the text. Those of
	// Children are listed there.
	Values []Value
	// Children are the operands of a top-level &&, || or !.
	Children []Explanation
}

// Value is the value of one identifier or field selection.
type Value struct {
	Expr, Value string
}

// Explain evaluates the expression for the event and tells how its parts came out.
func (p *Program) Explain(in *Input) Explanation {
	ok, err := p.Eval(in)
	if err != nil {
		return Explanation{Expr: p.expr, Result: err.Error()}
	}
	return Explanation{Expr: p.expr, Result: strconv.FormatBool(ok)}
}
