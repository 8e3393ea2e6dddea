package trigger

import "slices"

// Entry is a filter and what it stands for, such as the lane of its Trigger.
type Entry[T any] struct {
	// Filter decides. An entry without one matches nothing.
	Filter *Filter
	// Target is what Match returns.
	Target T
}

// Table finds the filters that match an event among many. It is immutable and safe for concurrent use, each goroutine
// with an Input of its own. To change one, build another; 100,000 entries take a fraction of a second.
//
// Every filter is filed once, under what it asks of attributes: equality on one or several, a prefix or a suffix. An event
// looks up its own attributes and thereby finds the filters that can match. A filter whose demands are not covered by the place
// it was found in is then evaluated. Filters that ask nothing of attributes are evaluated for every event, see [Stats].
type Table[T any] struct {
	index   *index
	targets []T
}

// NewTable returns a Table of the entries.
func NewTable[T any](entries []Entry[T]) *Table[T] {
	filters := make([]*Filter, len(entries))
	targets := make([]T, len(entries))
	for i, e := range entries {
		filters[i], targets[i] = e.Filter, e.Target
	}
	return &Table[T]{index: newIndex(filters), targets: targets}
}

// Match appends the targets of all entries whose filter matches the event to dst and returns it: each once, in the
// order of the entries. If only attributes have to be looked at and dst has room, it allocates nothing.
func (t *Table[T]) Match(in *Input, dst []T) []T {
	in.hits = t.index.match(in, in.hits[:0])
	if !slices.IsSorted(in.hits) {
		slices.Sort(in.hits)
	}
	for _, id := range in.hits {
		dst = append(dst, t.targets[id])
	}
	return dst
}

// Stats says how the entries of a Table are filed.
type Stats struct {
	// Entries is the number of entries.
	Entries int
	// Indexed is how many of them are found by the attributes of an event.
	Indexed int
	// Unfiltered is how many match every event.
	Unfiltered int
	// Residual is how many are evaluated for every event, because they ask for no attribute that a table can look up.
	Residual int
}

// Stats returns how the entries are filed.
func (t *Table[T]) Stats() Stats { return t.index.stats }
