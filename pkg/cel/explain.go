package cel

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// Explanation tells how an expression came to its result.
type Explanation struct {
	// Expr is the source text of the expression or part.
	Expr string
	// Result is "true", "false", or the text of the error that took their place.
	Result string
	// Failed reports whether Result is an error.
	Failed bool
	// Values are the attributes and fields that the part reads, in the order of the text and each once. Those of
	// Children are listed there.
	Values []Value
	// Children are the operands of &&, || and !, evaluated each on its own even where the whole did not need it.
	Children []Explanation
}

// Value is what one attribute or field had.
type Value struct {
	// Expr is its name, such as ce.type or data.items[0].sku.
	Expr string
	// Value is the value as CEL would write it, shortened if it is long, or the text of an error.
	Value string
	// Missing reports that the event has no such attribute or field.
	Missing bool
}

// Explain evaluates the expression and its parts and tells how each came out. It is for people who test a filter: it
// compiles every part anew and takes milliseconds. The result of the whole is that of [Program.Eval].
func (p *Program) Explain(in *Input) Explanation {
	// The parts must not use up the time of one another, nor that of the programs that run on in later.
	own := *in
	own.ctx, own.cancel = nil, nil
	checked, err := p.env.check(p.expr)
	if err != nil { // it compiled before
		return Explanation{Expr: p.expr, Result: err.Error(), Failed: true}
	}
	x := explainer{env: p.env, info: checked.NativeRep().SourceInfo(), in: &own}
	out := x.explain(checked.NativeRep().Expr())
	out.Expr = p.expr
	out.Result, out.Failed = x.result(p)
	return out
}

type explainer struct {
	env  *Env
	info *ast.SourceInfo
	in   *Input
}

func (x *explainer) explain(e ast.Expr) Explanation {
	out := Explanation{Expr: x.text(e)}
	if operands := logicalOperands(e); operands != nil {
		for _, o := range operands {
			out.Children = append(out.Children, x.explain(o))
		}
	} else {
		out.Values = x.values(e)
	}
	p, err := x.env.compileAny(out.Expr)
	if err != nil {
		out.Result, out.Failed = err.Error(), true
		return out
	}
	out.Result, out.Failed = x.result(p)
	return out
}

func (x *explainer) result(p *Program) (string, bool) {
	x.in.stopClock()
	defer x.in.stopClock()
	ok, err := p.Eval(x.in)
	if err != nil {
		return err.Error(), true
	}
	return strconv.FormatBool(ok), false
}

// logicalOperands returns the operands of a logical operator, those of a && b && c on one level, or nil.
func logicalOperands(e ast.Expr) []ast.Expr {
	if e.Kind() != ast.CallKind {
		return nil
	}
	call := e.AsCall()
	switch op := call.FunctionName(); op {
	case operators.LogicalNot:
		return call.Args()
	case operators.LogicalAnd, operators.LogicalOr:
		var all []ast.Expr
		for _, a := range call.Args() {
			if a.Kind() == ast.CallKind && a.AsCall().FunctionName() == op {
				all = append(all, logicalOperands(a)...)
			} else {
				all = append(all, a)
			}
		}
		return all
	default:
		return nil
	}
}

// values looks up the attributes and fields that e reads.
func (x *explainer) values(e ast.Expr) []Value {
	var out []Value
	for _, path := range paths(e) {
		if !slices.ContainsFunc(out, func(v Value) bool { return v.Expr == path }) {
			out = append(out, x.value(path))
		}
	}
	return out
}

func (x *explainer) value(path string) Value {
	x.in.stopClock()
	p, err := x.env.compileAny(path)
	if err != nil {
		return Value{Expr: path, Value: err.Error()}
	}
	v, err := p.run(x.in)
	if err != nil {
		return Value{Expr: path, Value: err.Error(), Missing: kindOf(err) == KindMissing}
	}
	return Value{Expr: path, Value: show(v)}
}

// compileAny compiles an expression of any type.
func (e *Env) compileAny(expr string) (*Program, error) {
	checked, err := e.check(expr)
	if err != nil {
		return nil, err
	}
	return e.program(expr, checked)
}

func (x *explainer) text(e ast.Expr) string {
	s, err := cel.ExprToString(e, x.info)
	if err != nil {
		return "?"
	}
	return s
}

// paths returns the text of the longest selections in e that start at ce or data and have constant steps. The variables
// of loops have many values and are left out.
func paths(e ast.Expr) []string {
	if p, ok := path(e); ok {
		return []string{p}
	}
	var out []string
	for _, c := range children(e) {
		out = append(out, paths(c)...)
	}
	return out
}

// path renders e if it is such a selection.
func path(e ast.Expr) (string, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		name := strings.TrimPrefix(e.AsIdent(), ".")
		return name, name == "ce" || name == "data"
	case ast.SelectKind:
		sel := e.AsSelect()
		base, ok := path(sel.Operand())
		return base + "." + sel.FieldName(), ok
	case ast.CallKind:
		return pathStep(e.AsCall())
	default:
		return "", false
	}
}

func pathStep(call ast.CallExpr) (string, bool) {
	switch call.FunctionName() {
	case operators.Index, operators.OptIndex, operators.OptSelect:
	default:
		return "", false
	}
	base, ok := path(call.Args()[0])
	if !ok || call.Args()[1].Kind() != ast.LiteralKind {
		return "", false
	}
	switch step := call.Args()[1].AsLiteral().(type) {
	case types.String:
		if call.FunctionName() == operators.OptSelect {
			return base + "." + string(step), true
		}
		return base + "[" + strconv.Quote(string(step)) + "]", true
	case types.Int:
		return base + "[" + strconv.FormatInt(int64(step), 10) + "]", true
	default:
		return "", false
	}
}

// children returns the operands of e in the order of the text.
func children(e ast.Expr) []ast.Expr {
	switch e.Kind() {
	case ast.MapKind:
		var out []ast.Expr
		for _, entry := range e.AsMap().Entries() {
			out = append(out, entry.AsMapEntry().Key(), entry.AsMapEntry().Value())
		}
		return out
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		return []ast.Expr{c.IterRange(), c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()}
	default:
		return parts(e)
	}
}

const (
	shownText     = 120
	shownElements = 8
	shownDepth    = 3
)

// show writes a value as CEL would, shortened.
func show(v ref.Val) string { return showDepth(v, shownDepth) }

func showDepth(v ref.Val, depth int) string {
	switch v := v.(type) {
	case types.String:
		return strconv.Quote(shorten(string(v)))
	case types.Bytes:
		return "b" + strconv.Quote(shorten(string(v)))
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10) + "u"
	case types.Double:
		return showDouble(float64(v))
	case types.Timestamp:
		return fmt.Sprintf("timestamp(%q)", v.Format(time.RFC3339Nano))
	case types.Duration:
		return fmt.Sprintf("duration(%q)", v.String())
	case types.Null:
		return "null"
	case *types.Optional:
		if !v.HasValue() {
			return "optional.none()"
		}
		return "optional.of(" + showDepth(v.GetValue(), depth) + ")"
	case traits.Lister:
		return showList(v, depth)
	case traits.Mapper:
		return showMap(v, depth)
	case *types.Err:
		return "error: " + v.String()
	default:
		return fmt.Sprint(v.Value())
	}
}

// showDouble keeps a point in integral doubles, which tells them from integers.
func showDouble(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if strings.Trim(s, "-0123456789") == "" {
		s += ".0"
	}
	return s
}

func showList(l traits.Lister, depth int) string {
	n := listSize(l)
	if depth == 0 && n > 0 {
		return "[...]"
	}
	var b []string
	for i := range min(n, shownElements) {
		b = append(b, showDepth(l.Get(types.Int(i)), depth-1))
	}
	if n > shownElements {
		b = append(b, fmt.Sprintf("... %d in all", n))
	}
	return "[" + strings.Join(b, ", ") + "]"
}

func showMap(m traits.Mapper, depth int) string {
	var keys []ref.Val
	for it := m.Iterator(); it.HasNext() == types.True; {
		keys = append(keys, it.Next())
	}
	if depth == 0 && len(keys) > 0 {
		return "{...}"
	}
	slices.SortFunc(keys, func(a, b ref.Val) int { return strings.Compare(fmt.Sprint(a.Value()), fmt.Sprint(b.Value())) })
	var b []string
	for _, k := range keys[:min(len(keys), shownElements)] {
		b = append(b, showDepth(k, depth)+": "+showDepth(m.Get(k), depth-1))
	}
	if len(keys) > shownElements {
		b = append(b, fmt.Sprintf("... %d in all", len(keys)))
	}
	return "{" + strings.Join(b, ", ") + "}"
}

func shorten(s string) string {
	if r := []rune(s); len(r) > shownText {
		return string(r[:shownText]) + "..."
	}
	return s
}
