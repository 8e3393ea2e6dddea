package cel

import (
	"fmt"
	"math"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
)

// sizes tells the estimator how large the values of the largest event are. Values in elements of arrays are reckoned
// smaller by amortized: all elements together are no larger than the body. That is an estimate and not a bound, so
// whatever loops is also metered when it runs.
type sizes struct {
	amortized bool
}

var _ checker.CostEstimator = sizes{}

// EstimateSize returns the size of ce, data and what is in them, in characters or elements. Results of functions are
// as large as guards let them be.
func (s sizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	switch {
	case len(path) == 0:
		return resultSize(node)
	case path[0] == "data":
		return upTo(s.dataSize(path))
	case path[0] != "ce":
		return upTo(16) // a loop variable over a literal list or the result of a function
	case len(path) == 1:
		return upTo(MaxAttributeBytes / 2)
	case wellKnown(path[1]) != types.StringType:
		return upTo(1)
	default:
		return upTo(MaxAttributeBytes)
	}
}

func (s sizes) dataSize(path []string) uint64 {
	level := 0
	for _, p := range path {
		if strings.HasPrefix(p, "@") {
			level++
		}
	}
	switch {
	case !s.amortized || level == 0:
		return MaxDataBytes
	case level == 1:
		return 16
	default:
		return 4
	}
}

func resultSize(node checker.AstNode) *checker.SizeEstimate {
	switch node.Type().Kind() {
	case types.StringKind, types.BytesKind, types.DynKind, types.AnyKind:
		return upTo(maxText)
	case types.ListKind, types.MapKind:
		return upTo(maxElements)
	default:
		return nil
	}
}

func upTo(n uint64) *checker.SizeEstimate { return &checker.SizeEstimate{Max: n} }

// EstimateCallCost estimates the functions that gauges measure when they are called. They take time in proportion to
// their arguments or, where they compare everything with everything, as much as a gauge allows. All else, such as
// operators, the evaluator estimates itself.
func (s sizes) EstimateCallCost(function, _ string, target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	var sum checker.SizeEstimate
	if target != nil {
		sum = s.size(*target)
	}
	for _, a := range args {
		sum = sum.Add(s.size(a))
	}
	cost := sum.MultiplyByCostFactor(common.StringTraversalCostFactor)
	switch function {
	case overloads.Contains, "charAt", "substring", "trim", "lowerAscii", "upperAscii", "slice", "math.@min", "math.@max":
		return &checker.CallEstimate{CostEstimate: atLeastOne(cost), ResultSize: &sum}
	case "split", "format", "strings.quote", "base64.encode", "base64.decode", "reverse", "flatten", "join", "replace":
		return &checker.CallEstimate{CostEstimate: atLeastOne(cost), ResultSize: upTo(maxText)}
	case "indexOf", "lastIndexOf", "distinct", "sort", "@sortByAssociatedKeys", "sets.contains", "sets.intersects", "sets.equivalent":
		worst := sum.Multiply(sum).MultiplyByCostFactor(common.StringTraversalCostFactor)
		worst.Max = min(worst.Max, MaxCost)
		return &checker.CallEstimate{CostEstimate: atLeastOne(worst), ResultSize: &sum}
	case operators.OptSelect, operators.OptIndex:
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(1), ResultSize: s.fieldSize(args[0])}
	case "or", "orValue", "value", "optional.of", "optional.ofNonZeroValue":
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(1), ResultSize: &sum}
	case "lists.range":
		return &checker.CallEstimate{CostEstimate: checker.FixedCostEstimate(1), ResultSize: s.rangeSize(args)}
	}
	return nil
}

// fieldSize is the size of an optional field, whose path the evaluator does not know.
func (s sizes) fieldSize(operand checker.AstNode) *checker.SizeEstimate {
	if path := operand.Path(); len(path) == 1 && path[0] == "ce" {
		return upTo(MaxAttributeBytes)
	}
	n := s.size(operand)
	return &n
}

func (s sizes) rangeSize(args []checker.AstNode) *checker.SizeEstimate {
	if e := args[0].Expr(); e.Kind() == ast.LiteralKind {
		if n, ok := e.AsLiteral().(types.Int); ok && n >= 0 {
			return upTo(min(uint64(n), maxRange))
		}
	}
	return upTo(maxRange)
}

func atLeastOne(c checker.CostEstimate) checker.CostEstimate {
	return checker.CostEstimate{Min: max(c.Min, 1), Max: max(c.Max, 1)}
}

func (s sizes) size(node checker.AstNode) checker.SizeEstimate {
	if n := node.ComputedSize(); n != nil {
		return *n
	}
	if n := s.EstimateSize(node); n != nil {
		return *n
	}
	return checker.FixedSizeEstimate(1)
}

// loops reports whether e has a macro that runs through a list or map. cel.bind is none, though it looks like one.
func loops(e ast.Expr) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.ComprehensionKind {
			return
		}
		r := e.AsComprehension().IterRange()
		found = found || r.Kind() != ast.ListKind || r.AsList().Size() > 0
	}))
	return found
}

// staticCost estimates what the expression costs at worst.
func (e *Env) staticCost(a *cel.Ast) uint64 {
	est, err := checker.Cost(a.NativeRep(), sizes{amortized: loops(a.NativeRep().Expr())})
	if err != nil {
		return math.MaxUint64
	}
	return est.Max
}

// tooCostly describes the part of the expression that goes beyond the limit.
func (e *Env) tooCostly(expr string, a *ast.AST, cost uint64) *CompileError {
	part := e.costliest(a.Expr(), a.SourceInfo())
	return errorAt(expr, a, part.ID(),
		fmt.Sprintf("on a large event, %s may cost %s units, the limit is %d", quoted(part, a.SourceInfo()), costText(cost), MaxStaticCost),
		"run through data once, compare with constants, and keep patterns and lists short")
}

// costliest descends from expr to the smallest part that alone goes beyond the limit. It compiles the text of each part
// anew, which is slow and needed only to refuse an expression.
func (e *Env) costliest(expr ast.Expr, info *ast.SourceInfo) ast.Expr {
	for _, part := range parts(expr) {
		text, err := cel.ExprToString(part, info)
		if err != nil {
			continue
		}
		if a, issues := e.env.Compile(text); issues.Err() == nil && e.staticCost(a) > MaxStaticCost {
			return e.costliest(part, info)
		}
	}
	return expr
}

// parts returns the operands of e that can be judged on their own: not the bodies of loops.
func parts(e ast.Expr) []ast.Expr {
	switch e.Kind() {
	case ast.CallKind:
		call := e.AsCall()
		if call.IsMemberFunction() {
			return append([]ast.Expr{call.Target()}, call.Args()...)
		}
		return call.Args()
	case ast.SelectKind:
		return []ast.Expr{e.AsSelect().Operand()}
	case ast.ListKind:
		return e.AsList().Elements()
	case ast.ComprehensionKind:
		return []ast.Expr{e.AsComprehension().IterRange()}
	default:
		return nil
	}
}
