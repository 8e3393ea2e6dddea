// Package broker is the ingress: the HTTP handler at which producers hand in their events.
//
// A request is matched to a Broker in an immutable [Table], its body is read within bounds, decoded, admitted (see
// [event.Admit]) and published. It is answered 202 only when the [Store] has confirmed every event in it. Any other
// outcome is a [Reason], counted, with a problem document (RFC 9457) that says what to change or when to try again. Two
// promises hold for every request: no 2xx without all its events stored, and no 5xx but 503, which is safe to retry.
package broker

import (
	"context"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// Store is where admitted events are kept. pkg/stream's Publisher is one.
type Store interface {
	// Publish stores all messages or none, and returns nil only after the store has confirmed them. It returns within
	// seconds even if the store does not answer. It must not use
	// the messages' data after it has returned nil: the memory is used for the next request. Its errors match
	// stream.ErrFull, ErrBusy, ErrTooLarge or ErrUnavailable; any other counts as the last.
	Publish(ctx context.Context, to *stream.Names, msgs ...stream.Message) error
}

// Broker is what the ingress knows about one Broker.
type Broker struct {
	// Names say where its events are stored, and its namespace and name make up its path.
	Names *stream.Names
	// Deduplicate makes the store drop an event whose source and id it has seen within its duplicate window.
	Deduplicate bool
	// MaxEventBytes bounds the data of one event; 0 means the handler's default.
	MaxEventBytes int
}

// Table is an immutable set of Brokers.
type Table struct {
	brokers map[key]*Broker
}

type key struct{ namespace, name string }

// NewTable returns the set of the given Brokers, which must not be changed any more. Of two with the same namespace and
// name the last counts.
func NewTable(brokers []*Broker) *Table {
	t := &Table{brokers: make(map[key]*Broker, len(brokers))}
	for _, b := range brokers {
		t.brokers[key{b.Names.Namespace, b.Names.Name}] = b
	}
	return t
}

// Lookup returns the Broker of the given namespace and name, or nil.
func (t *Table) Lookup(namespace, name string) *Broker {
	return t.brokers[key{namespace, name}]
}

// Len returns the number of Brokers.
func (t *Table) Len() int { return len(t.brokers) }

// message returns e as it is to be stored for b.
func (b *Broker) message(e *event.Event) stream.Message {
	m := stream.Message{Event: e}
	if b.Deduplicate {
		m.ID = dedupID(e.Value(event.Source), e.Value(event.ID))
	}
	return m
}
