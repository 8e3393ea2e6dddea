package trigger

import (
	"errors"

	"millrace.dev/pkg/cel"
)

// celNode is an expression in CEL.
type celNode struct {
	label
	source  string
	program *cel.Program
}

func (n *celNode) match(in *Input) bool {
	ok, err := n.program.Eval(in.cel)
	if err != nil {
		in.countCEL(err)
	}
	return ok && err == nil
}

func (in *Input) countCEL(err error) {
	in.errs.CEL++
	var evalErr *cel.EvalError
	if errors.As(err, &evalErr) && evalErr.Kind == cel.KindDeadline {
		in.errs.CELDeadline++
	}
}

func (n *celNode) cost() int {
	if n.program.UsesData() {
		return costData
	}
	return costCEL
}

func (n *celNode) conditions() conditions {
	var c conditions
	for _, eq := range n.program.Equalities() {
		c.add(condition{eq.Attribute, opEqual, eq.Values})
	}
	return c
}
