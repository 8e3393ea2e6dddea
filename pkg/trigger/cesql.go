package trigger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/antlr/antlr4/runtime/Go/antlr"
	cesql "github.com/cloudevents/sdk-go/sql/v2"
	"github.com/cloudevents/sdk-go/sql/v2/gen"
	"github.com/cloudevents/sdk-go/sql/v2/parser"
	"github.com/cloudevents/sdk-go/sql/v2/runtime"
	sdk "github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"millrace.dev/pkg/event"
)

// sqlNode is an expression in CloudEvents SQL v1.
type sqlNode struct {
	label
	source     string
	expr       cesql.Expression
	equalities []condition
	names      []string // the attributes that the expression mentions
}

func newSQLNode(l label, source string) (*sqlNode, error) {
	n := &sqlNode{label: l, source: source}
	if err := n.parse(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *sqlNode) match(in *Input) bool {
	ok, err := n.evalBool(in)
	if err != nil {
		in.errs.CESQL++
	}
	return ok
}

func (n *sqlNode) cost() int { return costCESQL }

var errNotBoolean = errors.New("the result is not a boolean")

func (n *sqlNode) evalBool(in *Input) (bool, error) {
	v, err := n.eval(in)
	if err != nil {
		return false, err
	}
	ok, isBool := v.(bool)
	if !isBool {
		return false, fmt.Errorf("%w but %v", errNotBoolean, v)
	}
	return ok, nil
}

// eval evaluates the expression. The evaluator panics on some arguments, such as a negative length of SUBSTRING; that
// is an evaluation error like any other.
func (n *sqlNode) eval(in *Input) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("evaluate cesql: %v", r)
		}
	}()
	return n.expr.Evaluate(sdk.Event{Context: &in.sql})
}

// sqlContext shows an event to the CESQL evaluator. It reads straight from the event, so that no value is reformatted on
// the way: URIs keep their spelling and any specversion is what it is.
type sqlContext struct {
	// EventContextV1 has the rest of a large interface, which evaluation does not use.
	*sdk.EventContextV1

	event      *event.Event
	extensions map[string]any
}

func (c *sqlContext) reset(e *event.Event) {
	c.event, c.extensions = e, nil
}

// GetSpecVersion implements the reading half of the SDK's EventContext, as the methods below do.
func (c *sqlContext) GetSpecVersion() string { return c.event.Value(event.SpecVersion) }

// GetID returns the id.
func (c *sqlContext) GetID() string { return c.event.Value(event.ID) }

// GetSource returns the source.
func (c *sqlContext) GetSource() string { return c.event.Value(event.Source) }

// GetType returns the type.
func (c *sqlContext) GetType() string { return c.event.Value(event.Type) }

// GetSubject returns the subject, empty if there is none.
func (c *sqlContext) GetSubject() string { return c.event.Value(event.Subject) }

// GetDataContentType returns the content type of the data, empty if there is none.
func (c *sqlContext) GetDataContentType() string { return c.event.Value(event.DataContentType) }

// GetDataSchema returns the schema of the data, empty if there is none.
func (c *sqlContext) GetDataSchema() string { return c.event.Value(event.DataSchema) }

// GetTime returns the time, zero if there is none or it is no timestamp.
func (c *sqlContext) GetTime() time.Time {
	t, err := types.ParseTime(c.event.Value(event.Time))
	if err != nil {
		return time.Time{}
	}
	return t
}

// GetExtensions returns all attributes under their name, typed. The evaluator looks here only for those that are not
// context attributes.
func (c *sqlContext) GetExtensions() map[string]any {
	if c.extensions == nil {
		c.extensions = make(map[string]any, len(c.event.Attributes))
		for i := range c.event.Attributes {
			a := &c.event.Attributes[i]
			c.extensions[a.Name] = sqlValue(a)
		}
	}
	return c.extensions
}

// sqlValue returns the value of an attribute as CESQL types it. A number out of the range of CloudEvents integers, or
// not in its canonical form, stays text.
func sqlValue(a *event.Attribute) any {
	switch a.Kind {
	case event.Integer:
		if n, err := strconv.ParseInt(a.Value, 10, 32); err == nil && strconv.FormatInt(n, 10) == a.Value {
			return int32(n)
		}
	case event.Boolean:
		if a.Value == "true" || a.Value == "false" {
			return a.Value == "true"
		}
	case event.String:
	}
	return a.Value
}

// sqlError is a CESQL expression that does not compile.
type sqlError struct {
	line, column int // from 1
	message      string
}

func (e *sqlError) Error() string {
	if e.line == 0 {
		return e.message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.line, e.column, e.message)
}

// The bounds on a CESQL expression, beside its length. Its evaluation has no deadline, so they keep it short even on
// attributes of 64 KiB.
const (
	maxSQLNesting   = 64  // brackets within each other
	maxSQLPattern   = 512 // bytes of all LIKE patterns; matching takes time in proportion to pattern times value
	maxSQLArguments = 128 // arguments of all function calls; each may copy an attribute
)

// parse compiles the expression. It is parsed twice: the library's own entry point keeps neither the position of an error
// nor the errors of the lexer, which it prints to standard error instead.
func (n *sqlNode) parse() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &sqlError{message: fmt.Sprintf("cannot parse: %v", r)}
		}
	}()
	if err := checkSQLNesting(n.source); err != nil {
		return err
	}
	tree, err := parseSQLTree(n.source)
	if err != nil {
		return err
	}
	if err := new(sqlBudget).check(tree); err != nil {
		return err
	}
	n.expr, err = parser.Parse(n.source)
	if err != nil {
		return &sqlError{message: err.Error()}
	}
	n.equalities = sqlEqualities(tree.Expression())
	n.names = slices.Compact(slices.Sorted(slices.Values(sqlNames(tree))))
	return nil
}

// sqlNames returns the attributes that the expression mentions.
func sqlNames(tree antlr.Tree) []string {
	if n, ok := tree.(*gen.IdentifierContext); ok {
		return []string{strings.ToLower(n.GetText())}
	}
	var names []string
	for _, child := range tree.GetChildren() {
		names = append(names, sqlNames(child)...)
	}
	return names
}

// checkSQLNesting keeps from the parser what it would need very long for.
func checkSQLNesting(source string) error {
	depth := 0
	for i := range len(source) {
		switch source[i] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth > maxSQLNesting {
			return &sqlError{line: 1, column: i + 1, message: fmt.Sprintf("brackets nest deeper than %d", maxSQLNesting)}
		}
	}
	return nil
}

func parseSQLTree(source string) (*gen.CesqlContext, error) {
	listener := &sqlListener{DefaultErrorListener: antlr.NewDefaultErrorListener()}
	lexer := gen.NewCESQLParserLexer(parser.NewCaseChangingStream(antlr.NewInputStream(source), true))
	lexer.RemoveErrorListeners()
	lexer.AddErrorListener(listener)
	p := gen.NewCESQLParserParser(antlr.NewCommonTokenStream(lexer, antlr.TokenDefaultChannel))
	p.RemoveErrorListeners()
	p.AddErrorListener(listener)
	tree := p.Cesql().(*gen.CesqlContext)
	if listener.first != nil {
		return nil, listener.first
	}
	return tree, nil
}

// sqlListener keeps the first error of the lexer and the parser.
type sqlListener struct {
	*antlr.DefaultErrorListener

	first *sqlError
}

// SyntaxError implements antlr.ErrorListener.
func (l *sqlListener) SyntaxError(_ antlr.Recognizer, symbol any, line, column int, msg string,
	_ antlr.RecognitionException,
) {
	if l.first != nil {
		return
	}
	if token, ok := symbol.(antlr.Token); ok {
		msg = fmt.Sprintf("unexpected %q", token.GetText())
		if token.GetTokenType() == antlr.TokenEOF {
			msg = "the expression ends too early"
		}
		msg += operatorHint(token.GetText())
	} else if at := strings.Index(msg, "'"); at >= 0 {
		text := strings.Trim(msg[at:], "'")
		msg = fmt.Sprintf("unexpected %q%s", text, operatorHint(text))
	}
	l.first = &sqlError{line: line, column: column + 1, message: msg}
}

// operatorHint says what CESQL has instead of an operator of other languages.
func operatorHint(text string) string {
	hints := []struct{ prefix, hint string }{
		{"=", "CESQL compares with a single ="},
		{"&", "CESQL writes AND"},
		{"|", "CESQL writes OR"},
		{"!", "CESQL writes NOT, and != between values"},
		{".", "CESQL sees attributes only, under their plain name; for the body use cel and data"},
		{"[", "CESQL writes sets in round brackets: type IN ('a', 'b')"},
		{"'", "the string is not closed"},
		{"\"", "the string is not closed"},
	}
	for _, h := range hints {
		if strings.HasPrefix(text, h.prefix) {
			return "; " + h.hint
		}
	}
	return ""
}

// sqlBudget sums up what evaluation may cost.
type sqlBudget struct {
	pattern   int
	arguments int
}

// check finds what parses but can never be evaluated, or not in a short time.
func (b *sqlBudget) check(tree antlr.Tree) error {
	switch n := tree.(type) {
	case *gen.FunctionInvocationExpressionContext:
		name := strings.ToUpper(n.FunctionIdentifier().GetText())
		args := len(n.FunctionParameterList().(*gen.FunctionParameterListContext).AllExpression())
		if runtime.ResolveFunction(name, args) == nil {
			return sqlErrorAt(n.GetStart(), fmt.Sprintf("there is no function %s with %d arguments", name, args))
		}
		if b.arguments += args; b.arguments > maxSQLArguments {
			return sqlErrorAt(n.GetStart(), fmt.Sprintf("functions have more than %d arguments in all", maxSQLArguments))
		}
	case *gen.LikeExpressionContext:
		if b.pattern += len(n.StringLiteral().GetText()); b.pattern > maxSQLPattern {
			return sqlErrorAt(n.StringLiteral().GetStart(),
				fmt.Sprintf("the patterns of LIKE are longer than %d bytes in all", maxSQLPattern))
		}
	}
	for _, child := range tree.GetChildren() {
		if err := b.check(child); err != nil {
			return err
		}
	}
	return nil
}

func sqlErrorAt(t antlr.Token, message string) error {
	return &sqlError{line: t.GetLine(), column: t.GetColumn() + 1, message: message}
}

// sqlEqualities returns the comparisons of an attribute with constants that hold whenever the expression is true.
func sqlEqualities(tree antlr.Tree) []condition {
	switch n := tree.(type) {
	case *gen.SubExpressionContext:
		return sqlEqualities(n.Expression())
	case *gen.BinaryLogicExpressionContext:
		if n.AND() != nil {
			return append(sqlEqualities(n.Expression(0)), sqlEqualities(n.Expression(1))...)
		}
	case *gen.BinaryComparisonExpressionContext:
		// The left side is cast to the type of the right, so that only this order compares canonical strings.
		name, isName := sqlIdentifier(n.Expression(0))
		value, isString := sqlString(n.Expression(1))
		if n.EQUAL() != nil && isName && isString && name != event.Time {
			return []condition{{name, opEqual, []string{value}}}
		}
	case *gen.InExpressionContext:
		return sqlMembership(n)
	}
	return nil
}

// sqlMembership returns the condition of name IN ('a', 'b'), if it is one. Members are cast to the type of the
// attribute, so this goes only for attributes that are always strings.
func sqlMembership(n *gen.InExpressionContext) []condition {
	name, ok := sqlIdentifier(n.Expression())
	switch name {
	case event.Type, event.Source, event.Subject, event.ID:
	default:
		ok = false
	}
	if !ok || n.NOT() != nil {
		return nil
	}
	var values []string
	for _, member := range n.SetExpression().(*gen.SetExpressionContext).AllExpression() {
		value, isString := sqlString(member)
		if !isString {
			return nil
		}
		values = append(values, value)
	}
	return []condition{{name, opEqual, values}}
}

func sqlIdentifier(tree antlr.Tree) (string, bool) {
	if n, ok := sqlAtom(tree).(*gen.IdentifierAtomContext); ok {
		return strings.ToLower(n.GetText()), true
	}
	return "", false
}

func sqlString(tree antlr.Tree) (string, bool) {
	n, ok := sqlAtom(tree).(*gen.StringAtomContext)
	if !ok {
		return "", false
	}
	text := n.GetText()
	if strings.Contains(text, `\`) {
		return "", false // leave escapes to the evaluator
	}
	return text[1 : len(text)-1], true
}

func sqlAtom(tree antlr.Tree) antlr.Tree {
	if n, ok := tree.(*gen.AtomExpressionContext); ok {
		return n.Atom()
	}
	return nil
}
