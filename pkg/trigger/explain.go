package trigger

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
)

// Explanation tells how a filter, or a part of one, came out for an event. It is made for people: the texts are not
// stable, but the same filter and event always give the same ones.
type Explanation struct {
	// Dialect is what the filter is written in, such as exact or cel.
	Dialect string `json:"dialect"`
	// Path is the field of the Trigger, such as spec.filters[0].all[1].exact[type].
	Path string `json:"path,omitempty"`
	// Expr is the filter in words, such as exact type = "gift.sent", or the source text of an expression.
	Expr string `json:"expr"`
	// Matched is the outcome.
	Matched bool `json:"matched"`
	// Actual is what the event has instead or as well: a value, absent, or several of the form name = value.
	Actual string `json:"actual,omitempty"`
	// Error says why an expression could not be evaluated. It then did not match.
	Error string `json:"error,omitempty"`
	// Hint says what the author of the filter, or of the event, may have got wrong.
	Hint string `json:"hint,omitempty"`
	// Children are the parts, in the order of the Trigger.
	Children []Explanation `json:"children,omitempty"`
}

// Explain evaluates the whole filter and tells how it came out. Matched is the result of Match. Unlike Match it does not
// stop at the first part that decides, and leaves the counts of the Input alone.
func (f *Filter) Explain(in *Input) Explanation { return f.root.explain(in) }

// Failures returns the parts to blame for a filter that did not match: the innermost that did not match themselves,
// through all and any down to a comparison, an expression, or a not. It is empty if the filter matched.
func (e Explanation) Failures() []Explanation {
	if e.Matched {
		return nil
	}
	var blamed []Explanation
	for _, c := range e.Children {
		blamed = append(blamed, c.Failures()...)
	}
	if len(blamed) == 0 {
		return []Explanation{e}
	}
	return blamed
}

// String returns the explanation as an indented tree, one part a line.
func (e Explanation) String() string {
	var b strings.Builder
	e.write(&b, 0)
	return b.String()
}

func (e Explanation) write(b *strings.Builder, depth int) {
	mark := "no "
	if e.Matched {
		mark = "yes"
	}
	fmt.Fprintf(b, "%s%s %s", strings.Repeat("  ", depth), mark, e.Expr)
	for _, part := range []struct{ name, text string }{{"actual", e.Actual}, {"error", e.Error}, {"hint", e.Hint}} {
		if part.text != "" {
			fmt.Fprintf(b, "; %s: %s", part.name, part.text)
		}
	}
	b.WriteByte('\n')
	for _, c := range e.Children {
		c.write(b, depth+1)
	}
}

func (l label) explanation(expr string, matched bool) Explanation {
	return Explanation{Dialect: l.dialect, Path: l.path, Expr: expr, Matched: matched}
}

func (n *allNode) explain(in *Input) Explanation {
	e := n.explanation(n.text(), true)
	for _, c := range n.children {
		sub := c.explain(in)
		e.Matched = e.Matched && sub.Matched
		e.Children = append(e.Children, sub)
	}
	return e
}

func (n *allNode) text() string {
	switch {
	case len(n.children) == 0:
		return "every event"
	case n.dialect == dialectAll, n.dialect == dialectFilters, n.dialect == dialectFilter:
		return fmt.Sprintf("all of %d", len(n.children))
	default:
		return fmt.Sprintf("%s: all of %d", n.dialect, len(n.children))
	}
}

func (n *anyNode) explain(in *Input) Explanation {
	e := n.explanation(fmt.Sprintf("any of %d", len(n.children)), false)
	for _, c := range n.children {
		sub := c.explain(in)
		e.Matched = e.Matched || sub.Matched
		e.Children = append(e.Children, sub)
	}
	return e
}

func (n *notNode) explain(in *Input) Explanation {
	sub := n.child.explain(in)
	e := n.explanation("not "+sub.Expr, !sub.Matched)
	e.Children = []Explanation{sub}
	if sub.Matched {
		e.Actual = sub.Actual
	} else if sub.Error != "" {
		e.Hint = "this is true only because the negated expression could not be evaluated"
	}
	return e
}

func (n *attributeNode) explain(in *Input) Explanation {
	e := n.explanation(n.text(), n.match(in))
	e.Actual = actual(in.event, n.name)
	if !e.Matched {
		e.Hint = n.hint(in.event)
	}
	return e
}

func (n *attributeNode) text() string {
	switch n.op {
	case opPrefix:
		return fmt.Sprintf("%s %s starts with %q", n.dialect, n.name, n.value)
	case opSuffix:
		return fmt.Sprintf("%s %s ends with %q", n.dialect, n.name, n.value)
	case opPresent:
		return fmt.Sprintf("%s %s is not empty", n.dialect, n.name)
	default:
		return fmt.Sprintf("%s %s = %q", n.dialect, n.name, n.value)
	}
}

// actual returns the value of an attribute: strings in quotes, so that they differ from numbers and from absence.
func actual(e *event.Event, name string) string {
	a := e.Lookup(name)
	switch {
	case a == nil:
		return "absent"
	case a.Kind == event.String:
		return strconv.Quote(a.Value)
	default:
		return a.Value
	}
}

func (n *sqlNode) explain(in *Input) Explanation {
	ok, err := n.evalBool(in)
	e := n.explanation(n.source, ok)
	var values []string
	for _, name := range n.names {
		values = append(values, name+" = "+actual(in.event, name))
	}
	e.Actual = strings.Join(values, ", ")
	if err != nil {
		e.Error = err.Error()
	}
	if !ok {
		e.Hint = n.hint(in.event)
	}
	return e
}

// explain asks the program itself how its parts came out, but takes the outcome from an evaluation as Match does it.
func (n *celNode) explain(in *Input) Explanation {
	ok, err := n.program.Eval(in.cel)
	e := n.fromCEL(in, n.program.Explain(in.cel))
	e.Expr, e.Matched, e.Error = n.source, ok, ""
	if err != nil {
		e.Error = err.Error()
	}
	if !ok && n.program.UsesData() {
		if hint := dataHint(in); hint != "" {
			e.Hint = hint
		}
	}
	return e
}

func (n *celNode) fromCEL(in *Input, c cel.Explanation) Explanation {
	e := n.explanation(c.Expr, c.Result == "true")
	if c.Result != "true" && c.Result != "false" {
		e.Error = c.Result
	}
	var values []string
	for _, v := range c.Values {
		value := v.Value
		if strings.HasPrefix(value, "no such key") {
			value = "absent"
		}
		values = append(values, v.Expr+" = "+value)
	}
	e.Actual = strings.Join(values, ", ")
	for _, sub := range c.Children {
		e.Children = append(e.Children, n.fromCEL(in, sub))
	}
	if len(e.Children) == 1 && e.Children[0].Matched { // a negation
		e.Actual = e.Children[0].Actual
	}
	if !e.Matched && len(c.Children) == 0 {
		e.Hint = celHint(in, c)
	}
	return e
}

// UsesData reports whether the outcome may depend on the event's data, not on its attributes alone.
func (f *Filter) UsesData() bool { return usesData(f.root) }

func usesData(n node) bool {
	switch n := n.(type) {
	case *allNode:
		return slices.ContainsFunc(n.children, usesData)
	case *anyNode:
		return slices.ContainsFunc(n.children, usesData)
	case *notNode:
		return usesData(n.child)
	case *celNode:
		return n.program.UsesData()
	default:
		return false
	}
}
