package stream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"millrace.dev/pkg/event"
)

// The header names of a stored message. Attributes are mapped as the CloudEvents NATS protocol binding says for binary
// mode: ce- and the attribute's name, the value percent-encoded as in the HTTP binding, the data untouched. Everything
// else is Millrace's own and ignored by other readers.
const (
	attributePrefix = "ce-"
	passOnPrefix    = "Millrace-Header-"
	kindsHeader     = "Millrace-Kinds"

	attemptHeader = "Millrace-Attempt"
	phaseHeader   = "Millrace-Phase"
	deadLetter    = "dead-letter"
	dueHeader     = "Millrace-Due"
	firstHeader   = "Millrace-First-Attempt"
	sinceHeader   = "Millrace-Waiting-Since"
	causeHeader   = "Millrace-Cause"
	codeHeader    = "Millrace-Code"
	targetHeader  = "Millrace-Destination"
)

// MaxHeaderBytes bounds what [HeaderBytes] counts. JetStream takes 64 KiB of headers; the rest is for what a delivery's
// progress adds, so that every event that can be stored can also be stored for a retry.
const MaxHeaderBytes = 60 << 10

// HeaderBytes is the size of the headers in which an event's attributes, percent-encoded, and the headers passed on with it
// are stored.
func HeaderBytes(e *event.Event) int {
	const frame, line = len("NATS/1.0\r\n\r\n"), len(": \r\n")
	n := frame
	for i := range e.Attributes {
		a := &e.Attributes[i]
		n += len(attributePrefix) + len(a.Name) + a.WireLen() + line
		if a.Kind != event.String {
			n += len(a.Name) + len(",=i")
		}
	}
	for i := range e.Headers {
		n += len(passOnPrefix) + len(e.Headers[i].Name) + len(e.Headers[i].Value) + line
	}
	return n + len(kindsHeader) + line
}

// ErrCorrupt says that a stored message does not hold a CloudEvent.
var ErrCorrupt = errors.New("stored message is not a CloudEvent")

// encode maps an event to a NATS message without data copied.
func encode(subject string, e *event.Event) *nats.Msg {
	header := make(nats.Header, len(e.Attributes)+len(e.Headers)+2)
	values := make([]string, len(e.Attributes)) // one allocation backs all single-value slices
	var kinds []byte
	for i := range e.Attributes {
		a := &e.Attributes[i]
		values[i] = a.WireValue()
		header[attributePrefix+a.Name] = values[i : i+1 : i+1]
		kinds = appendKind(kinds, a)
	}
	if len(kinds) > 0 {
		header[kindsHeader] = []string{string(kinds)}
	}
	for _, h := range e.Headers {
		header[passOnPrefix+h.Name] = append(header[passOnPrefix+h.Name], h.Value)
	}
	return &nats.Msg{Subject: subject, Header: header, Data: e.Data}
}

// appendKind records the type of an attribute that is no string, as "name=i" or "name=b" separated by commas.
func appendKind(dst []byte, a *event.Attribute) []byte {
	var letter byte
	switch a.Kind {
	case event.String:
		return dst
	case event.Integer:
		letter = 'i'
	case event.Boolean:
		letter = 'b'
	}
	if len(dst) > 0 {
		dst = append(dst, ',')
	}
	return append(append(dst, a.Name...), '=', letter)
}

// decode is the inverse of encode. It never panics, whatever another NATS client has written into the stream.
func decode(header nats.Header, data []byte) (*event.Event, error) {
	e := &event.Event{Attributes: make([]event.Attribute, 0, len(header))}
	if len(data) > 0 {
		e.Data = data
	}
	for name, values := range header {
		if len(values) == 0 {
			continue
		}
		switch {
		case hasPrefixFold(name, attributePrefix):
			a, err := event.AttributeFromWire(strings.ToLower(name[len(attributePrefix):]), values[0])
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			e.Attributes = append(e.Attributes, a)
		case strings.HasPrefix(name, passOnPrefix):
			for _, v := range values {
				e.Headers = append(e.Headers, event.Header{Name: name[len(passOnPrefix):], Value: v})
			}
		}
	}
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	e.Sort() // the header is a map: without this the order would differ each time
	restoreKinds(e, header.Get(kindsHeader))
	return e, nil
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func restoreKinds(e *event.Event, kinds string) {
	for kinds != "" {
		var item string
		item, kinds, _ = strings.Cut(kinds, ",")
		name, letter, _ := strings.Cut(item, "=")
		a := e.Lookup(name)
		if a == nil {
			continue
		}
		switch letter {
		case "i":
			a.Kind = event.Integer
		case "b":
			a.Kind = event.Boolean
		}
	}
}

// Progress is how far the delivery of an event to one Trigger has come. It travels with the event through the retry
// stream and into the parking stream, so that no process needs to remember it.
type Progress struct {
	// DeadLetter says that the subscriber was given up and the event is on its way to the dead letter sink.
	DeadLetter bool
	// Attempt is how many attempts have been spent, at the subscriber or, for a dead letter, at its sink.
	Attempt int
	// Due is when the next attempt may be made, to the millisecond.
	Due time.Time
	// First is when the first attempt was made; zero if none was.
	First time.Time
	// Since is when the delivery first had to wait in the store, to the millisecond; zero if it never had to.
	Since time.Time
	// Code is the HTTP status of the last attempt, 0 if there was no answer.
	Code int
	// Cause says in a few words why the last attempt failed.
	Cause string
	// Destination is the URL of the last attempt.
	Destination string
}

const maxCauseBytes = 512

// setProgress writes p into a message's header.
func setProgress(header nats.Header, p Progress) {
	header[attemptHeader] = []string{strconv.Itoa(p.Attempt)}
	if p.DeadLetter {
		header[phaseHeader] = []string{deadLetter}
	}
	setTime(header, dueHeader, p.Due)
	setTime(header, firstHeader, p.First)
	setTime(header, sinceHeader, p.Since)
	if p.Code != 0 {
		header[codeHeader] = []string{strconv.Itoa(p.Code)}
	}
	setText(header, causeHeader, p.Cause)
	setText(header, targetHeader, p.Destination)
}

func setTime(header nats.Header, name string, t time.Time) {
	if !t.IsZero() {
		header[name] = []string{strconv.FormatInt(t.UnixMilli(), 10)}
	}
}

// setText stores free text, which must not break the header block.
func setText(header nats.Header, name, text string) {
	if text == "" {
		return
	}
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	header[name] = []string{clean[:min(len(clean), maxCauseBytes)]}
}

// progressOf reads what setProgress wrote; what is missing or unreadable is zero.
func progressOf(header nats.Header) Progress {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(header.Get(name), 10, 64)
		return n
	}
	moment := func(name string) time.Time {
		if n := number(name); n > 0 {
			return time.UnixMilli(n)
		}
		return time.Time{}
	}
	return Progress{
		DeadLetter:  header.Get(phaseHeader) == deadLetter,
		Attempt:     int(max(0, number(attemptHeader))),
		Due:         moment(dueHeader),
		First:       moment(firstHeader),
		Since:       moment(sinceHeader),
		Code:        int(number(codeHeader)),
		Cause:       header.Get(causeHeader),
		Destination: header.Get(targetHeader),
	}
}
