package trigger

import (
	"cmp"
	"slices"
	"strings"
)

// affixes finds which of many prefixes, or suffixes, a value has. They are kept sorted, each with a link to the longest
// other one that is a prefix of it: all prefixes of a value lie on the chain of links from the last text that sorts
// before it. A lookup costs one binary search and the walk up that chain.
type affixes struct {
	reverse bool // texts are suffixes, and compared from their ends
	byText  map[string]int
	entries []affix
}

type affix struct {
	text     string
	parent   int // index of the longest shorter affix, or -1
	postings []posting
}

// add files a posting under a text. No lookup may be made before link.
func (a *affixes) add(text string, p posting) {
	i, ok := a.byText[text]
	if !ok {
		if a.byText == nil {
			a.byText = map[string]int{}
		}
		i = len(a.entries)
		a.byText[text] = i
		a.entries = append(a.entries, affix{text: text})
	}
	a.entries[i].postings = append(a.entries[i].postings, p)
}

// link sorts what was added and sets the links.
func (a *affixes) link() {
	a.byText = nil
	slices.SortFunc(a.entries, func(x, y affix) int { return a.compare(x.text, y.text) })
	last := -1
	for i := range a.entries {
		for last >= 0 && a.common(a.entries[last].text, a.entries[i].text) < len(a.entries[last].text) {
			last = a.entries[last].parent
		}
		a.entries[i].parent = last
		last = i
	}
}

// longest returns the index of the longest affix that value has, or -1. The others are its parent and so on.
func (a *affixes) longest(value string) int {
	lo, hi := 0, len(a.entries)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if a.compare(a.entries[mid].text, value) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	i := lo - 1
	if i < 0 {
		return -1
	}
	n := a.common(a.entries[i].text, value)
	for i >= 0 && len(a.entries[i].text) > n {
		i = a.entries[i].parent
	}
	return i
}

func (a *affixes) compare(x, y string) int {
	if !a.reverse {
		return strings.Compare(x, y)
	}
	n := a.common(x, y)
	if n == len(x) || n == len(y) {
		return cmp.Compare(len(x), len(y))
	}
	return cmp.Compare(x[len(x)-1-n], y[len(y)-1-n])
}

// common returns the length of the prefix, or suffix, that x and y share.
func (a *affixes) common(x, y string) int {
	n := min(len(x), len(y))
	for i := range n {
		if a.reverse && x[len(x)-1-i] != y[len(y)-1-i] || !a.reverse && x[i] != y[i] {
			return i
		}
	}
	return n
}
