package trigger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
)

// The bounds on a Trigger's filters.
const (
	// MaxDepth is how deep all, any and not may nest; an element of spec.filters itself has depth 1.
	MaxDepth = 16
	// MaxNodes is how many filters and comparisons one Trigger may have in all.
	MaxNodes = 1024
	// MaxExpression is the length of the longest CESQL or CEL expression, in bytes.
	MaxExpression = 4096
)

// Compiler compiles the filters of Triggers. It is safe for concurrent use and worth sharing: making one sets up the
// CEL environment.
type Compiler struct {
	env *cel.Env
}

// NewCompiler returns a Compiler. An error means that the CEL environment could not be set up and is a defect of the
// program, not of its input.
func NewCompiler() (*Compiler, error) {
	env, err := cel.NewEnv()
	if err != nil {
		return nil, fmt.Errorf("set up filter compiler: %w", err)
	}
	return &Compiler{env: env}, nil
}

// Compile returns the filter of the Trigger: spec.filters if it is not empty, else spec.filter, and in either case also
// the expression of the millrace.dev/cel-filter annotation. A Trigger without any of these matches every event.
//
// If the filters are not valid, the Filter is nil and every error names the offending field and says in its Detail what
// was expected. Only filters are looked at.
func (c *Compiler) Compile(t *eventingv1.Trigger) (*Filter, field.ErrorList) {
	run := &compilation{env: c.env}
	root := run.trigger(t)
	if len(run.errs) > 0 {
		return nil, run.errs
	}
	return newFilter(root), nil
}

// compilation is the state of compiling one Trigger. Its methods return nodes; where there is an error they return
// whatever is convenient, as the tree is then not used.
type compilation struct {
	env   *cel.Env
	nodes int
	errs  field.ErrorList
}

func (c *compilation) fail(err *field.Error) { c.errs = append(c.errs, err) }

func (c *compilation) trigger(t *eventingv1.Trigger) node {
	spec := field.NewPath("spec")
	var root node
	if len(t.Spec.Filters) > 0 {
		root = c.list(dialectFilters, spec.Child("filters"), t.Spec.Filters)
	} else {
		root = c.filter(spec.Child("filter"), t.Spec.Filter)
	}
	expr, ok := t.Annotations[eventingv1.CELFilterAnnotation]
	if !ok {
		return root
	}
	path := field.NewPath("metadata", "annotations").Key(eventingv1.CELFilterAnnotation)
	return newAll(label{dialectAll, ""}, []node{root, c.cel(path, expr)})
}

// filter compiles spec.filter.
func (c *compilation) filter(path *field.Path, f *eventingv1.TriggerFilter) node {
	if f == nil {
		f = &eventingv1.TriggerFilter{}
	}
	if len(f.Attributes) > 0 && f.SourceAndType != nil {
		c.fail(field.Forbidden(path.Child("sourceAndType"),
			"may not be given together with attributes; write source and type as two of the attributes"))
	}
	var parts []node
	if len(f.Attributes) > 0 {
		parts = append(parts, c.attributes(path, f.Attributes))
	}
	if f.SourceAndType != nil {
		parts = append(parts, c.sourceAndType(path, f.SourceAndType))
	}
	if f.CEL != "" {
		parts = append(parts, c.cel(path.Child("cel"), f.CEL))
	}
	return join(label{dialectFilter, path.String()}, parts)
}

// list compiles the elements of spec.filters.
func (c *compilation) list(dialect string, path *field.Path, filters []eventingv1.Filter) node {
	return join(label{dialect, path.String()}, c.elements(path, filters, 1))
}

func (c *compilation) elements(path *field.Path, filters []eventingv1.Filter, depth int) []node {
	nodes := make([]node, 0, min(len(filters), MaxNodes))
	for i := range filters {
		if c.nodes > MaxNodes {
			break // reported when the bound was crossed
		}
		nodes = append(nodes, c.element(path.Index(i), &filters[i], depth))
	}
	return nodes
}

// element compiles one filter expression of spec.filters, all, any or not.
func (c *compilation) element(path *field.Path, f *eventingv1.Filter, depth int) node {
	if !c.count(path) {
		return nothing()
	}
	if depth > MaxDepth {
		c.fail(field.Forbidden(path, fmt.Sprintf("nests deeper than %d; flatten the filters or write one cel expression",
			MaxDepth)))
		return nothing()
	}
	dialects, parts := c.dialects(path, f, depth)
	switch {
	case f.Fault != "":
		c.fail(field.Invalid(path, field.OmitValueType{}, "is no filter: "+f.Fault))
	case len(dialects) == 0:
		c.fail(field.Required(path, "set one of all, any, not, exact, prefix, suffix, cesql, cel, "+
			"attributes or sourceAndType, or remove the element; to receive every event leave out filters altogether"))
	case len(dialects) > 1:
		c.fail(field.Forbidden(path, fmt.Sprintf("sets %s; an element may set only one: make each an element of its own",
			strings.Join(dialects, " and "))))
	}
	return join(label{dialectAll, path.String()}, parts)
}

// dialects compiles what an element sets and returns the names and nodes of that.
func (c *compilation) dialects(path *field.Path, f *eventingv1.Filter, depth int) (names []string, parts []node) {
	add := func(dialect string, set bool, compile func(label) node) {
		if set {
			names = append(names, dialect)
			parts = append(parts, compile(label{dialect, path.Child(dialect).String()}))
		}
	}
	add(dialectAll, len(f.All) > 0, func(l label) node {
		return newAll(l, c.elements(path.Child(l.dialect), f.All, depth+1))
	})
	add(dialectAny, len(f.Any) > 0, func(l label) node {
		return newAny(l, c.elements(path.Child(l.dialect), f.Any, depth+1))
	})
	add(dialectNot, f.Not != nil, func(l label) node {
		return &notNode{l, c.element(path.Child(l.dialect), f.Not, depth+1)}
	})
	add(dialectExact, len(f.Exact) > 0, func(l label) node { return c.comparisons(l, path, f.Exact, opEqual) })
	add(dialectPrefix, len(f.Prefix) > 0, func(l label) node { return c.comparisons(l, path, f.Prefix, opPrefix) })
	add(dialectSuffix, len(f.Suffix) > 0, func(l label) node { return c.comparisons(l, path, f.Suffix, opSuffix) })
	add(dialectAttributes, len(f.Attributes) > 0, func(label) node { return c.attributes(path, f.Attributes) })
	add(dialectSourceAndType, f.SourceAndType != nil, func(label) node { return c.sourceAndType(path, f.SourceAndType) })
	add(dialectCESQL, f.CESQL != "", func(l label) node { return c.cesql(path.Child(l.dialect), f.CESQL) })
	add(dialectCEL, f.CEL != "", func(l label) node { return c.cel(path.Child(l.dialect), f.CEL) })
	return names, parts
}

// count takes account of one more node and reports whether there may be that many.
func (c *compilation) count(path *field.Path) bool {
	c.nodes++
	if c.nodes == MaxNodes+1 {
		c.fail(field.Forbidden(path, fmt.Sprintf("the Trigger has more than %d filters; split it into several Triggers "+
			"or write one cel expression, such as ce.type in [\"a\", \"b\"]", MaxNodes)))
	}
	return c.nodes <= MaxNodes
}

// comparisons compiles the map of the exact, prefix or suffix dialect.
func (c *compilation) comparisons(l label, path *field.Path, values map[string]string, op operator) node {
	var parts []node
	for _, name := range slices.Sorted(maps.Keys(values)) {
		at := path.Child(l.dialect).Key(name)
		if !c.count(at) {
			break
		}
		c.checkName(at, name)
		if values[name] == "" {
			c.fail(field.Required(at, "write a value; to ask that the attribute be there, write attributes: {"+name+`: ""}`))
			continue
		}
		parts = append(parts, &attributeNode{label{l.dialect, at.String()}, op, name, values[name]})
	}
	return join(l, parts)
}

// attributes compiles the map of the attributes dialect, in which an empty value asks for presence.
func (c *compilation) attributes(path *field.Path, values map[string]string) node {
	l := label{dialectAttributes, path.Child(dialectAttributes).String()}
	var parts []node
	for _, name := range slices.Sorted(maps.Keys(values)) {
		at := path.Child(l.dialect).Key(name)
		if !c.count(at) {
			break
		}
		c.checkName(at, name)
		op := opEqual
		if values[name] == "" {
			op = opPresent
		}
		parts = append(parts, &attributeNode{label{l.dialect, at.String()}, op, name, values[name]})
	}
	return join(l, parts)
}

func (c *compilation) sourceAndType(path *field.Path, st *eventingv1.SourceAndType) node {
	path = path.Child(dialectSourceAndType)
	var parts []node
	for _, want := range []struct{ name, value string }{{event.Source, st.Source}, {event.Type, st.Type}} {
		if want.value != "" {
			l := label{dialectSourceAndType, path.Child(want.name).String()}
			parts = append(parts, &attributeNode{l, opEqual, want.name, want.value})
		}
	}
	return join(label{dialectSourceAndType, path.String()}, parts)
}

func (c *compilation) cesql(path *field.Path, expr string) node {
	if len(expr) > MaxExpression {
		c.fail(field.TooLong(path, expr, MaxExpression))
		return nothing()
	}
	n, err := newSQLNode(label{dialectCESQL, path.String()}, expr)
	if err != nil {
		c.fail(field.Invalid(path, expr, err.Error()))
		return nothing()
	}
	return n
}

func (c *compilation) cel(path *field.Path, expr string) node {
	if len(expr) > MaxExpression {
		c.fail(field.TooLong(path, expr, MaxExpression))
		return nothing()
	}
	program, err := c.env.Compile(expr)
	if err != nil {
		c.fail(field.Invalid(path, expr, err.Error()))
		return nothing()
	}
	return &celNode{label{dialectCEL, path.String()}, expr, program}
}

// checkName records an error if name cannot be that of an attribute (CloudEvents 1.0, section 3).
func (c *compilation) checkName(path *field.Path, name string) {
	if name == "data" {
		c.fail(field.Invalid(path, name, "data is no attribute; to filter on the body use cel, such as data.amount > 100"))
		return
	}
	if isName(name) {
		return
	}
	detail := "attribute names are lower-case letters and digits"
	if hint := nameHint(name); hint != "" {
		detail += "; " + hint
	}
	c.fail(field.Invalid(path, name, detail))
}

func isName(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// nameHint says what the author of an attribute name that is none may have meant.
func nameHint(name string) string {
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "data.") || strings.HasPrefix(lower, "data[") {
		return "to filter on the body use cel, such as " + lower + ` == "x"`
	}
	for _, prefix := range []string{"ce-", "ce_", "ce."} {
		lower = strings.TrimPrefix(lower, prefix)
	}
	lower = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, lower)
	if lower == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", lower)
}

// nothing stands for a part that did not compile.
func nothing() node { return newAll(label{}, nil) }

// join makes one node of those that must all be true.
func join(l label, parts []node) node {
	if len(parts) == 1 {
		return parts[0]
	}
	return newAll(l, parts)
}
