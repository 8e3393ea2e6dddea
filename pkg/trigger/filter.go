package trigger

import (
	"slices"
	"strings"
)

// Filter is the compiled filter of one Trigger. It is immutable and safe for concurrent use, each goroutine with an
// Input of its own.
type Filter struct {
	root node
	need conditions
}

func newFilter(root node) *Filter {
	return &Filter{root: root, need: root.conditions()}
}

// Match reports whether the event satisfies the filter. It evaluates this one filter alone; a [Table] gives the same
// answer for many at once.
func (f *Filter) Match(in *Input) bool { return f.root.match(in) }

// The dialects, as they are called in a Trigger and in an [Explanation].
const (
	dialectFilter        = "filter"
	dialectFilters       = "filters"
	dialectAll           = "all"
	dialectAny           = "any"
	dialectNot           = "not"
	dialectExact         = "exact"
	dialectPrefix        = "prefix"
	dialectSuffix        = "suffix"
	dialectAttributes    = "attributes"
	dialectSourceAndType = "sourceAndType"
	dialectCESQL         = "cesql"
	dialectCEL           = "cel"
)

// node is one predicate of a filter's tree.
type node interface {
	match(in *Input) bool
	// explain evaluates the node like match and tells how the result came about.
	explain(in *Input) Explanation
	// conditions returns what the event's attributes must satisfy for match to be true.
	conditions() conditions
	// cost ranks nodes: of several that must all hold, those of low cost are evaluated first.
	cost() int
}

// The costs of the leaves; that of a group is the sum of its children's.
const (
	costAttribute = 1
	costCEL       = 30
	costCESQL     = 100
	costData      = 1000
)

// label says where in the Trigger a node comes from.
type label struct {
	dialect string
	path    string
}

// allNode is true when all its children are, and so when it has none.
type allNode struct {
	label
	children []node // in the order of the Trigger
	ordered  []node // the same, cheapest first
}

func newAll(l label, children []node) node {
	return &allNode{label: l, children: children, ordered: byCost(children)}
}

func (n *allNode) match(in *Input) bool {
	for _, c := range n.ordered {
		if !c.match(in) {
			return false
		}
	}
	return true
}

func (n *allNode) cost() int { return totalCost(n.children) }

// anyNode is true when one of its children is.
type anyNode struct {
	label
	children []node
	ordered  []node
}

func newAny(l label, children []node) node {
	return &anyNode{label: l, children: children, ordered: byCost(children)}
}

func (n *anyNode) match(in *Input) bool {
	for _, c := range n.ordered {
		if c.match(in) {
			return true
		}
	}
	return false
}

func (n *anyNode) cost() int { return totalCost(n.children) }

// notNode is true when its child is false.
type notNode struct {
	label
	child node
}

func (n *notNode) match(in *Input) bool { return !n.child.match(in) }

func (n *notNode) cost() int { return n.child.cost() }

// operator compares an attribute's value with a constant.
type operator uint8

const (
	opEqual operator = iota
	opPrefix
	opSuffix
	opPresent // the attribute is there and not empty; the constant is not used
)

// attributeNode compares one attribute with a constant.
type attributeNode struct {
	label
	op    operator
	name  string
	value string
}

func (n *attributeNode) match(in *Input) bool {
	actual, ok := in.event.Get(n.name)
	return ok && n.holds(actual)
}

func (n *attributeNode) holds(actual string) bool {
	switch n.op {
	case opPrefix:
		return strings.HasPrefix(actual, n.value)
	case opSuffix:
		return strings.HasSuffix(actual, n.value)
	case opPresent:
		return actual != ""
	default:
		return actual == n.value
	}
}

func (n *attributeNode) cost() int { return costAttribute }

func byCost(nodes []node) []node {
	return slices.SortedStableFunc(slices.Values(nodes), func(a, b node) int { return a.cost() - b.cost() })
}

func totalCost(nodes []node) int {
	sum := 0
	for _, n := range nodes {
		sum += n.cost()
	}
	return sum
}
