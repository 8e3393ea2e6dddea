package adminapi

import (
	"cmp"
	"slices"
	"strings"

	"millrace.dev/pkg/stream"
)

// maxGroups bounds the groups with a cause of their own, and with it the memory of grouping. What comes after is counted
// in one more group a Trigger.
const maxGroups = 1000

// digitsOfName is how many digits a word may have and still be taken for a name, such as x509 or sha256.
const digitsOfName = 3

// generalize returns what causes of the same kind have in common. Words with more than three digits (ids, addresses,
// times) become a *, and white space becomes single spaces.
func generalize(cause string) string {
	var b strings.Builder
	b.Grow(len(cause))
	for i, field := range strings.Fields(cause) {
		if i > 0 {
			b.WriteByte(' ')
		}
		generalizeField(&b, field)
	}
	return b.String()
}

// generalizeField writes a field word by word; words are letters and digits, and marks within them such as those in
// 10.0.0.1:8080 or 2026-01-02T03:04:05Z.
func generalizeField(b *strings.Builder, field string) {
	for field != "" {
		word := field[:wordLength(field)]
		rest := field[len(word):]
		if countDigits(word) > digitsOfName {
			b.WriteByte('*')
		} else {
			b.WriteString(word)
		}
		gap := strings.IndexFunc(rest, func(r rune) bool { return isWordRune(r) })
		if gap < 0 {
			gap = len(rest)
		}
		b.WriteString(rest[:gap])
		field = rest[gap:]
	}
}

// wordLength is the length of the word that text begins with. A mark belongs to it if more of the word follows.
func wordLength(text string) int {
	end := 0
	for i, r := range text {
		switch {
		case isWordRune(r):
			end = i + len(string(r))
		case i == end && strings.ContainsRune("-._:+", r): // and see what follows
		default:
			return end
		}
	}
	return end
}

func isWordRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f
}

func countDigits(word string) (n int) {
	for _, c := range []byte(word) {
		if c >= '0' && c <= '9' {
			n++
		}
	}
	return n
}

type groupKey struct {
	triggerUID string
	code       int
	cause      string
	other      bool
}

// grouper counts parked events by Trigger and cause, in memory that does not grow with their number.
type grouper struct {
	groups map[groupKey]*Group
	events uint64
	// The generalized form of the last cause: equal ones tend to follow each other.
	last, lastGeneral string
}

func newGrouper() *grouper { return &grouper{groups: map[groupKey]*Group{}} }

func (g *grouper) add(p *stream.Parked) {
	g.events++
	key := groupKey{triggerUID: p.TriggerUID, code: p.Progress.Code, cause: g.generalize(p.Progress.Cause)}
	group := g.groups[key]
	if group == nil && len(g.groups) >= maxGroups {
		key = groupKey{triggerUID: p.TriggerUID, other: true}
		group = g.groups[key]
	}
	if group == nil {
		group = &Group{TriggerUID: key.triggerUID, Code: key.code, Cause: key.cause, Other: key.other, Oldest: p.At}
		g.groups[key] = group
	}
	group.Count++
	group.Bytes += uint64(p.Size)
	group.Newest, group.Last = p.At, p.Sequence
}

func (g *grouper) generalize(cause string) string {
	if cause != g.last {
		g.last, g.lastGeneral = cause, generalize(cause)
	}
	return g.lastGeneral
}

// result returns the groups, the largest first, with the names of the Triggers that exist.
func (g *grouper) result(b *Broker) *Groups {
	r := &Groups{Groups: make([]Group, 0, len(g.groups)), Events: g.events}
	for _, group := range g.groups {
		group.Trigger = b.Triggers[group.TriggerUID].Name
		r.Groups = append(r.Groups, *group)
	}
	slices.SortFunc(r.Groups, func(x, y Group) int {
		return cmp.Or(
			-cmp.Compare(x.Count, y.Count), cmp.Compare(x.Trigger, y.Trigger), cmp.Compare(x.TriggerUID, y.TriggerUID),
			cmp.Compare(x.Code, y.Code), cmp.Compare(x.Cause, y.Cause))
	})
	return r
}
