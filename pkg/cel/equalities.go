package cel

import (
	"slices"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// Equality is a condition that a program needs: the event has the attribute, and its canonical string form is one of
// Values (sorted, without duplicates).
type Equality struct {
	Attribute string
	Values    []string
}

// equalities returns conditions without which e is not true. An and needs both its sides. An or needs what each side
// needs in one of the two ways, so only attributes that both sides limit.
func equalities(e ast.Expr) []Equality {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.LogicalAnd:
		return append(equalities(args[0]), equalities(args[1])...)
	case operators.LogicalOr:
		return either(equalities(args[0]), equalities(args[1]))
	case operators.Equals:
		if eq, ok := equality(args[0], args[1]); ok {
			return []Equality{eq}
		}
		if eq, ok := equality(args[1], args[0]); ok {
			return []Equality{eq}
		}
	case operators.In:
		if eq, ok := membership(args[0], args[1]); ok {
			return []Equality{eq}
		}
	}
	return nil
}

func either(left, right []Equality) []Equality {
	var both []Equality
	for _, l := range left {
		for _, r := range right {
			if l.Attribute == r.Attribute {
				both = append(both, Equality{l.Attribute, sorted(slices.Concat(l.Values, r.Values))})
				break
			}
		}
	}
	return both
}

func equality(attr, value ast.Expr) (Equality, bool) {
	name, ok := attributeName(attr)
	if !ok {
		return Equality{}, false
	}
	s, ok := stringLiteral(value)
	return Equality{name, []string{s}}, ok
}

// membership leaves lists alone that hold anything but strings: an int in them could equal an attribute of kind Integer.
func membership(attr, list ast.Expr) (Equality, bool) {
	name, ok := attributeName(attr)
	if !ok || list.Kind() != ast.ListKind || len(list.AsList().OptionalIndices()) > 0 {
		return Equality{}, false
	}
	var values []string
	for _, el := range list.AsList().Elements() {
		s, ok := stringLiteral(el)
		if !ok {
			return Equality{}, false
		}
		values = append(values, s)
	}
	return Equality{name, sorted(values)}, true
}

func sorted(values []string) []string {
	slices.Sort(values)
	return slices.Compact(values)
}

func stringLiteral(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// attributeName recognizes ce.name and ce["name"].
func attributeName(e ast.Expr) (string, bool) {
	switch e.Kind() {
	case ast.SelectKind:
		sel := e.AsSelect()
		return sel.FieldName(), isCE(sel.Operand()) && !sel.IsTestOnly()
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != operators.Index || !isCE(call.Args()[0]) {
			return "", false
		}
		return stringLiteral(call.Args()[1])
	default:
		return "", false
	}
}

func isCE(e ast.Expr) bool { return isIdent(e, "ce") }
