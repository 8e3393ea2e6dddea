package trigger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

const (
	// maxCompounds bounds the combinations of attributes that every event looks up. Single attributes need no bound, as an
	// event looks up its own.
	maxCompounds = 16
	// maxCrowd is how many filters may share a place on one attribute before a combination of attributes is tried. To evaluate
	// so many costs about as much as another lookup.
	maxCrowd = 8
	// maxKeys bounds the keys of one filter under a combination, which are the product of its values.
	maxKeys = 64
)

// planner decides where each filter is filed: where the fewest other filters are. It counts all filters first, so
// that the decision suits the table: of many filters that share a type each is filed under its source, if the sources
// differ, and the other way round.
type planner struct {
	crowds    map[place]int
	compounds []tuple // names, most wanted first
	numbers   map[tuple]int
	together  []map[tuple]int // crowds by key, for each of compounds
}

// place is where filters that share a condition on one attribute meet.
type place struct {
	name, value string
	op          operator
}

// choice is where a filter is filed.
type choice struct {
	condition int      // number of the condition, or -1
	values    []string // under which values of the condition
	compound  int      // number of the combination, or -1
	keys      []tuple  // under which keys of the combination
	covers    int      // how many conditions the place stands for
}

func newPlanner(filters []*Filter) *planner {
	p := &planner{crowds: map[place]int{}, numbers: map[tuple]int{}}
	for _, f := range filters {
		if f != nil {
			p.count(f)
		}
	}
	p.pickCompounds(filters)
	for _, f := range filters {
		if f != nil {
			p.countTogether(f)
		}
	}
	return p
}

func (p *planner) count(f *Filter) {
	for _, c := range f.need.all {
		for _, v := range distinct(c) {
			p.crowds[place{c.name, v, c.op}]++
		}
	}
}

// pickCompounds picks the combinations that the most filters want which no single attribute tells apart.
func (p *planner) pickCompounds(filters []*Filter) {
	votes := map[tuple]int{}
	for _, f := range filters {
		if f == nil {
			continue
		}
		if names, ok := p.wants(f); ok {
			votes[names]++
		}
	}
	p.compounds = slices.SortedFunc(maps.Keys(votes), func(a, b tuple) int {
		return cmp.Or(cmp.Compare(votes[b], votes[a]), slices.Compare(a[:], b[:]))
	})
	p.compounds = p.compounds[:min(len(p.compounds), maxCompounds)]
	for i, names := range p.compounds {
		p.numbers[names] = i
		p.together = append(p.together, map[tuple]int{})
	}
}

// wants returns the combination of attributes that would tell the filter best from others, if it needs one.
func (p *planner) wants(f *Filter) (names tuple, ok bool) {
	if _, crowd := p.single(f); crowd <= maxCrowd {
		return names, false
	}
	equal := p.equalities(f)
	if len(equal) < 2 {
		return names, false
	}
	for i, c := range equal {
		names[i] = f.need.all[c].name
	}
	return names, true
}

// equalities returns the numbers of the filter's most selective conditions of equality, by name, at most maxCompound and
// such that the product of their values is bounded.
func (p *planner) equalities(f *Filter) []int {
	var found []int
	for i, c := range f.need.all {
		if c.op == opEqual {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b int) int { return cmp.Compare(p.crowd(f.need.all[a]), p.crowd(f.need.all[b])) })
	keys := 1
	found = slices.DeleteFunc(found, func(i int) bool {
		n := keys * max(len(f.need.all[i].values), 1)
		if n > maxKeys {
			return true
		}
		keys = n
		return false
	})
	found = found[:min(len(found), maxCompound)]
	slices.SortFunc(found, func(a, b int) int { return strings.Compare(f.need.all[a].name, f.need.all[b].name) })
	return found
}

func (p *planner) countTogether(f *Filter) {
	if number, keys, _ := p.compound(f); number >= 0 {
		for _, key := range keys {
			p.together[number][key]++
		}
	}
}

// compound returns the number of the combination that suits the filter and its keys there, or -1.
func (p *planner) compound(f *Filter) (number int, keys []tuple, covers int) {
	names, ok := p.wants(f)
	if !ok {
		return -1, nil, 0
	}
	number, ok = p.numbers[names]
	if !ok {
		return -1, nil, 0
	}
	equal := p.equalities(f)
	keys = []tuple{{}}
	for i, c := range equal {
		keys = product(keys, i, distinct(f.need.all[c]))
	}
	return number, keys, len(equal)
}

// product returns each of the keys with each of the values at position i.
func product(keys []tuple, i int, values []string) []tuple {
	var all []tuple
	for _, key := range keys {
		for _, v := range values {
			key[i] = v
			all = append(all, key)
		}
	}
	return all
}

// single returns the number of the condition under which the filter meets the fewest others, and how many these are
// with itself; -1 if it has no condition. Equality wins over the other operators if they are on a par.
func (p *planner) single(f *Filter) (number, crowd int) {
	number = -1
	for i, c := range f.need.all {
		n := p.crowd(c)
		if number < 0 || n < crowd || n == crowd && c.op < f.need.all[number].op {
			number, crowd = i, n
		}
	}
	return number, crowd
}

// crowd returns how many filters share the condition, at the value of which the most do.
func (p *planner) crowd(c condition) int {
	most := 0
	for _, v := range c.values {
		most = max(most, p.crowds[place{c.name, v, c.op}])
	}
	return most
}

// choose returns where the filter is to be filed.
func (p *planner) choose(f *Filter) choice {
	condition, crowd := p.single(f)
	if condition < 0 {
		return choice{condition: -1, compound: -1}
	}
	if number, keys, covers := p.compound(f); number >= 0 && p.most(number, keys) < crowd {
		return choice{condition: -1, compound: number, keys: keys, covers: covers}
	}
	return choice{condition: condition, values: distinct(f.need.all[condition]), compound: -1, covers: 1}
}

func (p *planner) most(number int, keys []tuple) int {
	most := 0
	for _, key := range keys {
		most = max(most, p.together[number][key])
	}
	return most
}

// distinct returns the values of the condition of which an event can have only one: without repetitions, and without
// affixes that another of them implies.
func distinct(c condition) []string {
	if len(c.values) < 2 {
		return c.values
	}
	values := slices.Compact(slices.Sorted(slices.Values(c.values)))
	implies := strings.HasPrefix
	switch c.op {
	case opPrefix:
	case opSuffix:
		implies = strings.HasSuffix
	default:
		return values
	}
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool {
		return slices.ContainsFunc(values, func(shorter string) bool { return shorter != v && implies(v, shorter) })
	})
}
