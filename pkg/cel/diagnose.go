package cel

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"

	"millrace.dev/pkg/event"
)

// diagnose turns the first of the evaluator's complaints into an error that says what to write instead.
func (e *Env) diagnose(expr string, issues *cel.Issues) *CompileError {
	if strings.TrimSpace(expr) == "" {
		return &CompileError{Expr: expr, Message: "the expression is empty", Hint: "for all events, leave the filter out"}
	}
	first := issues.Errors()[0]
	out := &CompileError{Expr: expr, Message: strings.TrimPrefix(first.Message, "Syntax error: ")}
	if line, column := first.Location.Line(), first.Location.Column(); line > 0 && column >= 0 {
		out.Line, out.Column = line, column+1
	}
	for _, r := range rules() {
		if m := r.pattern.FindStringSubmatch(first.Message); m != nil {
			message, hint := r.explain(e, out, m)
			if message != "" {
				out.Message = message
			}
			out.Hint = hint
			break
		}
	}
	return out
}

// rule recognizes a complaint; explain returns a better message (or "") and a hint (or "").
type rule struct {
	pattern *regexp.Regexp
	explain func(e *Env, at *CompileError, match []string) (message, hint string)
}

func rules() []rule {
	return []rule{
		{regexp.MustCompile(`undeclared reference to '([^']+)'`), explainUndeclared},
		{regexp.MustCompile(`token recognition error at: '(.*)'`), explainToken},
		{regexp.MustCompile(`(?:extraneous|mismatched) input '<EOF>'`), func(*Env, *CompileError, []string) (string, string) {
			return "the expression ends too early", "an operand or a closing bracket is missing"
		}},
		{regexp.MustCompile(`missing '([^']*)' at '<EOF>'`), func(_ *Env, _ *CompileError, m []string) (string, string) {
			return fmt.Sprintf("a %q is missing at the end", m[1]), ""
		}},
		{regexp.MustCompile(`(?:extraneous|mismatched) input '([^']*)'`), explainInput},
		{regexp.MustCompile(`no viable alternative at input '(.*)'`), explainInput},
		{regexp.MustCompile(`no matching overload for '([^']+)' applied to '(.*)'`), explainOverload},
		{regexp.MustCompile(`invalid (\S+) argument`), explainConstant},
		{regexp.MustCompile(`(?i)recursion|nesting depth`), func(*Env, *CompileError, []string) (string, string) {
			return fmt.Sprintf("the expression is nested deeper than %d", MaxParserDepth), "leave out brackets that are not needed"
		}},
		{regexp.MustCompile(`comprehension exceeds nesting limit`), func(*Env, *CompileError, []string) (string, string) {
			return fmt.Sprintf("more than %d loops (all, exists, map, filter, ...) stand in each other", MaxComprehensionNesting), "flatten the condition"
		}},
		{regexp.MustCompile(`node count`), func(*Env, *CompileError, []string) (string, string) {
			return fmt.Sprintf("the expression has more than %d operations", MaxNodes), "split it into several elements of filters"
		}},
	}
}

func explainUndeclared(e *Env, at *CompileError, m []string) (message, hint string) {
	name := m[1]
	if isCall(at, name) {
		return fmt.Sprintf("there is no function %q", name), e.functionHint(name)
	}
	return fmt.Sprintf("there is no variable %q", name), variableHint(name)
}

// isCall tells a function from a variable: the evaluator reports a call where its bracket opens.
func isCall(at *CompileError, name string) bool {
	lines := strings.Split(at.Expr, "\n")
	if at.Line < 1 || at.Line > len(lines) {
		return false
	}
	rest := []rune(lines[at.Line-1])
	rest = rest[min(at.Column-1, len(rest)):]
	return !strings.HasPrefix(string(rest), name)
}

func variableHint(name string) string {
	bare := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(name), "ce_"), "ce")
	switch {
	case slices.Contains(coreAttributes(), strings.ToLower(name)):
		return "attributes are under ce: did you mean ce." + strings.ToLower(name) + "?"
	case bare != strings.ToLower(name) && slices.Contains(coreAttributes(), bare):
		return "did you mean ce." + bare + "?"
	case name == "now":
		return "a filter sees no clock: compare ce.time with a fixed timestamp(\"...\")"
	case strings.EqualFold(name, "event") || strings.EqualFold(name, "ce") || strings.EqualFold(name, "cloudevent"):
		return "attributes are under ce, the JSON body under data"
	case strings.EqualFold(name, "data") || strings.EqualFold(name, "body") || strings.EqualFold(name, "payload"):
		return "the JSON body is under data"
	default:
		return fmt.Sprintf("attributes are under ce, the JSON body under data: did you mean ce.%s or data.%s?", strings.ToLower(name), name)
	}
}

func (e *Env) functionHint(name string) string {
	best, distance := "", 1+max(1, len(name)/4)
	for _, f := range e.functions {
		if strings.EqualFold(f, name) {
			return "did you mean " + f + "?"
		}
		if d := levenshtein.Distance(f, name, nil); d < distance {
			best, distance = f, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "the functions are listed in the documentation of CEL filters"
}

// functionNames lists what people call: no operators and no internal names. Macros are not declared as functions.
func functionNames(env *cel.Env) []string {
	names := []string{"has", "all", "exists", "existsOne", "map", "filter", "transformList", "transformMap", "cel.bind", "sortBy", "optMap"}
	for name := range env.Functions() {
		if !strings.ContainsAny(name, "_@!-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func explainToken(_ *Env, _ *CompileError, m []string) (message, hint string) {
	token := strings.TrimSpace(m[1])
	message = fmt.Sprintf("%q is not CEL", token)
	switch {
	case strings.HasPrefix(token, "="):
		return `"=" is not CEL`, "to compare, write =="
	case strings.HasPrefix(token, "&"):
		return `"&" is not CEL`, "write && for and"
	case strings.HasPrefix(token, "|"):
		return `"|" is not CEL`, "write || for or"
	case strings.HasPrefix(token, `"`), strings.HasPrefix(token, "'"):
		return "the text has no closing quote", "close it on the same line"
	case strings.ContainsAny(token, "\u201c\u201d\u2018\u2019"):
		return message, `use straight quotes: "`
	case strings.HasPrefix(token, "~"):
		return message, `for a regular expression write ce.subject.matches("...")`
	}
	return message, ""
}

func explainInput(_ *Env, at *CompileError, m []string) (message, hint string) {
	token := m[1]
	switch strings.ToLower(token) {
	case "and":
		return fmt.Sprintf("%q is not CEL", token), "write && for and"
	case "or":
		return fmt.Sprintf("%q is not CEL", token), "write || for or"
	case "not":
		return fmt.Sprintf("%q is not CEL", token), "write ! for not"
	case "like", "exists", "is":
		return fmt.Sprintf("%q does not fit here", token), "this looks like CESQL: use the dialect cesql, or functions such as startsWith"
	case ">", "=":
		if strings.Contains(at.Expr, "<>") {
			return `"<>" is not CEL`, "write !="
		}
		return fmt.Sprintf("%q does not fit here", token), "comparisons are ==, !=, <, <=, >, >="
	}
	if strings.Contains(at.Expr, "===") {
		return `"===" is not CEL`, "to compare, write =="
	}
	return fmt.Sprintf("%.40q does not fit here", token), "an operator such as && or == may be missing before it"
}

func explainOverload(_ *Env, _ *CompileError, m []string) (message, hint string) {
	fn, operands := m[1], m[2]
	if symbol, ok := operators.FindReverse(fn); ok && symbol != "" {
		fn = symbol
	}
	message = fmt.Sprintf("%s does not take %s", fn, operands)
	switch {
	case strings.Contains(operands, "type("):
		return message, "type is a function of CEL: did you mean ce.type?"
	case strings.Contains(operands, "map(string, dyn)"):
		return message, `ce holds all attributes: name one, as in ce.type or ce["partitionkey"]`
	case fn == "==" || fn == "!=":
		return message, "compare values of the same type"
	}
	return message, ""
}

func explainConstant(_ *Env, _ *CompileError, m []string) (message, hint string) {
	switch m[1] {
	case "timestamp":
		return "the timestamp is not valid", `write it as RFC 3339: "2026-01-31T12:00:00Z"`
	case "duration":
		return "the duration is not valid", `write it as in "1h30m" or "2.5s"`
	}
	return "", ""
}

// lint finds what the evaluator lets pass but what can never be meant.
func lint(expr string, a *ast.AST) error {
	var found *CompileError
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if found == nil {
			found = lintNode(expr, a, e)
		}
	}))
	if found == nil {
		return nil
	}
	return found
}

func lintNode(expr string, a *ast.AST, e ast.Expr) *CompileError {
	switch e.Kind() {
	case ast.SelectKind:
		if sel := e.AsSelect(); isCE(sel.Operand()) {
			return lintName(expr, a, e, sel.FieldName())
		}
	case ast.ComprehensionKind:
		return lintLoop(expr, a, e)
	case ast.CallKind:
		return lintCall(expr, a, e)
	default:
	}
	return nil
}

func lintCall(expr string, a *ast.AST, e ast.Expr) *CompileError {
	call := e.AsCall()
	args := call.Args()
	switch call.FunctionName() {
	case operators.Index, operators.OptIndex, operators.OptSelect:
		if name, ok := stringLiteral(args[1]); ok && isCE(args[0]) {
			return lintName(expr, a, e, name)
		}
	case overloads.Matches:
		return lintPattern(expr, a, args[len(args)-1])
	case operators.In:
		if name, ok := stringLiteral(args[0]); ok && isCE(args[1]) {
			return lintName(expr, a, e, name)
		}
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		if err := lintComparison(expr, a, args[0], args[1]); err != nil {
			return err
		}
		return lintComparison(expr, a, args[1], args[0])
	}
	return nil
}

// lintName refuses names that no attribute can have (CloudEvents 1.0, section 3.1).
func lintName(expr string, a *ast.AST, e ast.Expr, name string) *CompileError {
	if name == "data" {
		return errorAt(expr, a, e.ID(), "ce has no attribute \"data\"", "the JSON body is the variable data")
	}
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == "" {
		return nil
	}
	hint := "names are lower-case letters and digits"
	if plain := plainName(name); plain != "" {
		hint += ": did you mean ce." + plain + "?"
	}
	return errorAt(expr, a, e.ID(), fmt.Sprintf("no attribute can have the name %.60q", name), hint)
}

func lintPattern(expr string, a *ast.AST, e ast.Expr) *CompileError {
	pattern, ok := stringLiteral(e)
	if !ok {
		return nil
	}
	if _, err := regexSize(pattern); err != nil {
		return errorAt(expr, a, e.ID(), err.Error(), "patterns are RE2: without look-ahead and back-references")
	}
	return nil
}

func plainName(name string) string {
	name = strings.TrimPrefix(strings.ToLower(name), "ce-")
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, name)
}

// lintLoop keeps loop variables from hiding ce and data, which the rest of this package relies on.
func lintLoop(expr string, a *ast.AST, e ast.Expr) *CompileError {
	c := e.AsComprehension()
	for _, name := range []string{c.IterVar(), c.IterVar2(), c.AccuVar()} {
		if name == "ce" || name == "data" {
			return errorAt(expr, a, e.ID(), fmt.Sprintf("a macro's variable must not hide %s", name), "give it another name")
		}
	}
	return nil
}

// lintComparison refuses to compare an attribute with a literal of a type that the attribute never has.
func lintComparison(expr string, a *ast.AST, attr, literal ast.Expr) *CompileError {
	name, ok := attributeName(attr)
	if !ok || literal.Kind() != ast.LiteralKind {
		return nil
	}
	want := wellKnown(name)
	switch value := literal.AsLiteral().(type) {
	case types.String:
		if want == types.TimestampType {
			return errorAt(expr, a, attr.ID(), fmt.Sprintf("ce.%s is a timestamp, not a string", name),
				fmt.Sprintf("write timestamp(%q)", string(value)))
		}
		if want == types.IntType {
			return errorAt(expr, a, attr.ID(), fmt.Sprintf("ce.%s is an integer, not a string", name), "leave out the quotes")
		}
	case types.Int, types.Uint, types.Double:
		if want == types.StringType && slices.Contains(coreAttributes(), name) {
			return errorAt(expr, a, attr.ID(), fmt.Sprintf("ce.%s is a string, not a number", name), "put the value in quotes")
		}
	}
	return nil
}

func coreAttributes() []string {
	return []string{
		event.ID, event.Source, event.Type, event.SpecVersion,
		event.Subject, event.Time, event.DataContentType, event.DataSchema,
	}
}

// errorAt places an error at the node of that id.
func errorAt(expr string, a *ast.AST, id int64, message, hint string) *CompileError {
	out := &CompileError{Expr: expr, Message: message, Hint: hint}
	if loc := a.SourceInfo().GetStartLocation(id); loc.Line() > 0 {
		out.Line, out.Column = loc.Line(), loc.Column()+1
	}
	return out
}

// quoted is the source text of a part of an expression, for messages.
func quoted(e ast.Expr, info *ast.SourceInfo) string {
	text, err := cel.ExprToString(e, info)
	if err != nil {
		return "the expression"
	}
	if r := []rune(text); len(r) > 80 {
		text = string(r[:80]) + "..."
	}
	return strconv.Quote(text)
}

func costText(cost uint64) string {
	if cost > math.MaxInt64 {
		return "an unlimited number of"
	}
	return strconv.FormatUint(cost, 10)
}
