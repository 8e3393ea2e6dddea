package trigger

import (
	"slices"

	"millrace.dev/pkg/event"
)

// posting is the place of a filter in an index: its number times two, plus one if the filter must be evaluated because
// the place does not say all.
type posting uint32

func newPosting(id int, evaluate bool) posting {
	p := posting(id) << 1
	if evaluate {
		p |= 1
	}
	return p
}

func (p posting) id() uint32     { return uint32(p >> 1) }
func (p posting) evaluate() bool { return p&1 != 0 }

// index finds the filters that match an event. Every filter is filed in one way (see planner) and there under values of
// which an event can have only one, so it is found at most once.
type index struct {
	filters    []*Filter
	attributes map[string]*attributeIndex
	compounds  []*compound
	slots      int       // the number of attributes that compounds look at
	always     []posting // filters without a usable condition
	stats      Stats
}

// attributeIndex holds the filters filed under one attribute.
type attributeIndex struct {
	slot     int // where compounds look for the value, or -1
	equal    map[string][]posting
	prefixes affixes
	suffixes affixes
}

// maxCompound is the number of attributes that can be looked up together.
const maxCompound = 3

// tuple holds attribute names or values, in the order of the names; what is not used is empty.
type tuple [maxCompound]string

// compound holds the filters filed under several attributes together.
type compound struct {
	slots []int
	equal map[tuple][]posting
}

// slot is the value that an event has for an attribute.
type slot struct {
	value   string
	present bool
}

func newIndex(filters []*Filter) *index {
	ix := &index{filters: filters, attributes: map[string]*attributeIndex{}}
	p := newPlanner(filters)
	for _, names := range p.compounds {
		ix.addCompound(names)
	}
	ix.stats.Entries = len(filters)
	for id, f := range filters {
		if f != nil {
			ix.file(id, f, p.choose(f))
		}
	}
	for _, a := range ix.attributes {
		a.prefixes.link()
		a.suffixes.link()
	}
	return ix
}

func (ix *index) attribute(name string) *attributeIndex {
	a := ix.attributes[name]
	if a == nil {
		a = &attributeIndex{slot: -1, equal: map[string][]posting{}}
		a.suffixes.reverse = true
		ix.attributes[name] = a
	}
	return a
}

func (ix *index) addCompound(names tuple) {
	c := &compound{equal: map[tuple][]posting{}}
	for _, name := range names.used() {
		a := ix.attribute(name)
		if a.slot < 0 {
			a.slot = ix.slots
			ix.slots++
		}
		c.slots = append(c.slots, a.slot)
	}
	ix.compounds = append(ix.compounds, c)
}

// file puts the filter where the choice says.
func (ix *index) file(id int, f *Filter, c choice) {
	p := newPosting(id, !f.need.exact || len(f.need.all) != c.covers)
	switch {
	case c.compound >= 0:
		equal := ix.compounds[c.compound].equal
		for _, key := range c.keys {
			equal[key] = append(equal[key], p)
		}
	case c.condition >= 0:
		ix.attribute(f.need.all[c.condition].name).add(f.need.all[c.condition].op, c.values, p)
	default:
		ix.always = append(ix.always, p)
		if p.evaluate() {
			ix.stats.Residual++
		} else {
			ix.stats.Unfiltered++
		}
		return
	}
	ix.stats.Indexed++
}

func (a *attributeIndex) add(op operator, values []string, p posting) {
	for _, v := range values {
		switch op {
		case opPrefix:
			a.prefixes.add(v, p)
		case opSuffix:
			a.suffixes.add(v, p)
		default:
			a.equal[v] = append(a.equal[v], p)
		}
	}
}

// match appends the numbers of all filters that match to hits, each once and in no order.
func (ix *index) match(in *Input, hits []uint32) []uint32 {
	slots := in.clearSlots(ix.slots)
	for i := range in.event.Attributes {
		at := &in.event.Attributes[i]
		if a := ix.attributes[at.Name]; a != nil {
			if a.slot >= 0 {
				slots[a.slot] = slot{at.Value, true}
			}
			hits = ix.matchAttribute(in, a, at, hits)
		}
	}
	for _, c := range ix.compounds {
		if key, ok := c.key(slots); ok {
			hits = ix.verify(in, c.equal[key], hits)
		}
	}
	return ix.verify(in, ix.always, hits)
}

func (ix *index) matchAttribute(in *Input, a *attributeIndex, at *event.Attribute, hits []uint32) []uint32 {
	if len(a.equal) > 0 {
		hits = ix.verify(in, a.equal[at.Value], hits)
	}
	for i := a.prefixes.longest(at.Value); i >= 0; i = a.prefixes.entries[i].parent {
		hits = ix.verify(in, a.prefixes.entries[i].postings, hits)
	}
	for i := a.suffixes.longest(at.Value); i >= 0; i = a.suffixes.entries[i].parent {
		hits = ix.verify(in, a.suffixes.entries[i].postings, hits)
	}
	return hits
}

// verify appends those of the postings that match.
func (ix *index) verify(in *Input, postings []posting, hits []uint32) []uint32 {
	for _, p := range postings {
		if !p.evaluate() || ix.filters[p.id()].root.match(in) {
			hits = append(hits, p.id())
		}
	}
	return hits
}

// key returns what the event has for the attributes of c, if it has all of them.
func (c *compound) key(slots []slot) (key tuple, ok bool) {
	for i, s := range c.slots {
		if !slots[s].present {
			return key, false
		}
		key[i] = slots[s].value
	}
	return key, true
}

// clearSlots returns n empty slots.
func (in *Input) clearSlots(n int) []slot {
	in.slots = slices.Grow(in.slots[:0], n)[:n]
	clear(in.slots)
	return in.slots
}

// used returns the part of a tuple of names that is in use.
func (t tuple) used() []string {
	n := slices.Index(t[:], "")
	if n < 0 {
		n = len(t)
	}
	return t[:n]
}
