// Package event is Millrace's model of a CloudEvent and its HTTP and JSON encodings.
//
// An [Event] keeps every attribute twice where that matters: as the value the CloudEvents specification says it has,
// which filters see, and as the header text it arrived in, which a binary-mode delivery repeats to the letter. Nothing
// is parsed that need not be: times stay text, and data stays the bytes that came.
package event

import "slices"

// Kind is the CloudEvents type of an attribute's value as far as it is known. HTTP headers carry only text, so an
// attribute that came in a header has kind [String] even if its sender thinks of it as a number.
type Kind uint8

// The kinds of attribute values. CloudEvents also has Binary, URI, URI-reference and Timestamp; the JSON format writes
// all of them as strings, and so does this package.
const (
	String Kind = iota
	Integer
	Boolean
)

// The names of the context attributes that CloudEvents 1.0 defines.
const (
	SpecVersion     = "specversion"
	ID              = "id"
	Source          = "source"
	Type            = "type"
	DataContentType = "datacontenttype"
	DataSchema      = "dataschema"
	Subject         = "subject"
	Time            = "time"
)

// Attribute is one context attribute or extension of an event.
type Attribute struct {
	// Name is lower-case letters and digits.
	Name string
	// Value is the canonical string form of the value (CloudEvents 1.0, section 3): for an Integer its decimal digits,
	// for a Boolean true or false.
	Value string
	// Kind is the type of the value as sent.
	Kind Kind
	// Wire is the header text the value came in, if it came in a header and differs from the text that Value would be
	// encoded to; else empty. See WireValue.
	Wire string
}

// Header is an HTTP header that travels with an event without being an attribute, such as traceparent. Its name is
// in the canonical form of net/http.
type Header struct {
	Name, Value string
}

// Event is one CloudEvent. The zero value is an event without attributes. An Event is not safe for concurrent
// modification; once handed on, it is not changed any more.
type Event struct {
	// Attributes holds each attribute once.
	Attributes []Attribute
	// Headers are passed on to subscribers (contract: traceparent, tracestate, x-request-id, knative-*, x-b3-*).
	Headers []Header
	// Data is the payload; nil when the event has none.
	Data []byte
}

// Get returns the canonical string form of the named attribute and whether the event has it.
func (e *Event) Get(name string) (string, bool) {
	for i := range e.Attributes {
		if e.Attributes[i].Name == name {
			return e.Attributes[i].Value, true
		}
	}
	return "", false
}

// Lookup returns the named attribute, or nil.
func (e *Event) Lookup(name string) *Attribute {
	for i := range e.Attributes {
		if e.Attributes[i].Name == name {
			return &e.Attributes[i]
		}
	}
	return nil
}

// Value returns the canonical string form of the named attribute, or "" if the event lacks it.
func (e *Event) Value(name string) string {
	v, _ := e.Get(name)
	return v
}

// Set gives the named attribute a value, in place if the event has it already.
func (e *Event) Set(name, value string, kind Kind) {
	if a := e.Lookup(name); a != nil {
		a.Value, a.Kind, a.Wire = value, kind, ""
		return
	}
	e.Attributes = append(e.Attributes, Attribute{Name: name, Value: value, Kind: kind})
}

// Remove drops the named attribute and reports whether it was there.
func (e *Event) Remove(name string) bool {
	n := len(e.Attributes)
	e.Attributes = slices.DeleteFunc(e.Attributes, func(a Attribute) bool { return a.Name == name })
	return len(e.Attributes) < n
}

// Clone returns a copy that shares only Data with e.
func (e *Event) Clone() *Event {
	return &Event{
		Attributes: slices.Clone(e.Attributes),
		Headers:    slices.Clone(e.Headers),
		Data:       e.Data,
	}
}
