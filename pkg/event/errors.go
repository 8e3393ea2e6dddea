package event

import (
	"strconv"
	"strings"
)

// An [Error] repeats little of what a sender wrote: a name up to maxName bytes, or up to maxQuoted if each of them may
// take four to escape.
const (
	maxName   = 128
	maxQuoted = 32
)

// Error says why something is not a CloudEvent, in terms its sender can act on. Every error of this package's decoders,
// of [Event.Validate] and of [Admit] is or wraps one.
type Error struct {
	// Index is the position in a batch, from 0, or -1 when the event was not part of one.
	Index int
	// Attribute is the attribute or JSON member at fault; empty when the whole event is. A name that is itself at fault
	// is shortened and escaped.
	Attribute string
	// Detail says what is wrong.
	Detail string
	// Hint says what to write instead; may be empty.
	Hint string
}

// Error returns index, attribute, detail and hint in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Index >= 0 {
		b.WriteString("event " + strconv.Itoa(e.Index) + ": ")
	}
	if e.Attribute != "" {
		b.WriteString(e.Attribute + ": ")
	}
	b.WriteString(e.Detail)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// invalid returns the Error for an event outside a batch.
func invalid(attribute, detail, hint string) *Error {
	return &Error{Index: -1, Attribute: attribute[:min(len(attribute), maxName)], Detail: detail, Hint: hint}
}

// quoteName makes an attribute name that broke the rules fit to be shown.
func quoteName(name string) string {
	q := strconv.QuoteToASCII(name[:min(len(name), maxQuoted)])
	return q[1 : len(q)-1]
}
