package trigger

import "slices"

// condition is a comparison of one attribute that must come out true, with at least one of the values, for a filter to
// match. An opEqual, opPrefix or opSuffix condition has values; one of opPrefix with the value "" asks for presence only.
type condition struct {
	name   string
	op     operator
	values []string
}

// conditions are what all must hold for a filter to match.
type conditions struct {
	all []condition
	// exact says that the filter matches whenever the conditions hold, so that it need not be evaluated.
	exact bool
}

func (n *attributeNode) conditions() conditions {
	if n.op == opPresent {
		return conditions{all: []condition{{n.name, opPrefix, []string{""}}}}
	}
	return conditions{all: []condition{{n.name, n.op, []string{n.value}}}, exact: true}
}

func (n *notNode) conditions() conditions { return conditions{} }

func (n *sqlNode) conditions() conditions { return conditions{all: n.equalities} }

func (n *allNode) conditions() conditions {
	sum := conditions{exact: true}
	for _, c := range n.children {
		sub := c.conditions()
		sum.exact = sum.exact && sub.exact
		for _, cond := range sub.all {
			sum.add(cond)
		}
	}
	return sum
}

// add adds a condition; two of equality on the same attribute become one.
func (s *conditions) add(c condition) {
	if c.op == opEqual {
		for i := range s.all {
			if have := &s.all[i]; have.op == opEqual && have.name == c.name {
				have.values = intersection(have.values, c.values)
				return
			}
		}
	}
	s.all = append(s.all, c)
}

func (n *anyNode) conditions() conditions {
	sum := n.children[0].conditions()
	// A child with several conditions says more than the union, of one attribute, can repeat.
	sum.exact = sum.exact && len(sum.all) == 1
	for _, c := range n.children[1:] {
		sum = union(sum, c.conditions())
	}
	return sum
}

// union returns what holds if one of a and b does: for each attribute that both compare in the same way, that it has a
// value of either.
func union(a, b conditions) conditions {
	var u conditions
	for _, x := range a.all {
		for _, y := range b.all {
			if c, ok := either(x, y); ok && !u.has(c.name, c.op) {
				u.all = append(u.all, c)
			}
		}
	}
	u.exact = a.exact && b.exact && len(a.all) == 1 && len(b.all) == 1 && len(u.all) == 1 && a.all[0].op == b.all[0].op
	return u
}

// has reports whether there is a condition on the attribute by the operator already. A union keeps one of each, so that
// it cannot grow as the product of what it is made of.
func (s *conditions) has(name string, op operator) bool {
	return slices.ContainsFunc(s.all, func(c condition) bool { return c.name == name && c.op == op })
}

// either returns the condition that holds if x or y does. What equals a value has it for a prefix and suffix too.
func either(x, y condition) (condition, bool) {
	if x.name != y.name || x.op != y.op && x.op != opEqual && y.op != opEqual {
		return condition{}, false
	}
	op := x.op
	if op == opEqual {
		op = y.op
	}
	return condition{x.name, op, unionOf(x.values, y.values)}, true
}

func unionOf(a, b []string) []string {
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}

func intersection(a, b []string) []string {
	both := []string{}
	for _, v := range a {
		if slices.Contains(b, v) && !slices.Contains(both, v) {
			both = append(both, v)
		}
	}
	return both
}
