// Package observe is the seam between what happens to events and those who watch it: traces, logs, a journal. The ingress
// and the dispatcher tell a [Recorder] of each arrival, match, attempt and fate, with facts that they have at hand anyway, and
// know nothing of what becomes of them. It also has the [Histogram] that latencies are counted in on the way of an event.
package observe

import (
	"time"

	"millrace.dev/pkg/event"
)

// Recorder is told what happens to events. Its methods are called on the way of every event, from many goroutines at a time:
// they return at once, do no I/O, and keep no slice that they are handed. Events are only to be read, and may be kept; but the Data
// of one that arrives is not to be touched: its memory is used for another request already.
type Recorder interface {
	// Arrived is called by the ingress for each event that it answered for, after the answer was decided.
	Arrived(Arrival)
	// Matched is called by the filter once it has matched a stored event, before any attempt. A message that the store hands
	// out again is matched again.
	Matched(Match)
	// Attempted is called after each attempt at a subscriber or dead letter sink, and before what follows from it.
	Attempted(Attempt)
	// Settled is called when a delivery has reached its fate, or waits in the store for another attempt.
	Settled(Settlement)
	// Replied is called for each reply of a subscriber that was stored or dropped, before Attempted is for what it answers.
	Replied(Reply)
}

// Broker is a Broker to a Recorder. The same pointer stands for the same Broker for as long as it is served.
type Broker struct {
	// Namespace, Name and UID are the object's; Key is namespace/name.
	Namespace, Name, UID, Key string
}

// NewBroker returns the Broker with the given names.
func NewBroker(namespace, name, uid string) *Broker {
	return &Broker{Namespace: namespace, Name: name, UID: uid, Key: namespace + "/" + name}
}

// Trigger is a Trigger to a Recorder. A changed Trigger may have a new pointer; its UID stays.
type Trigger struct {
	// Broker is whose events it selects.
	Broker *Broker
	// Namespace, Name and UID are the object's; Key is namespace/name.
	Namespace, Name, UID, Key string
}

// Arrival is an event that a producer has handed in.
type Arrival struct {
	// Broker is the one it was for; nil if there is no such Broker.
	Broker *Broker
	// Event is nil if the request held none that could be read.
	Event *event.Event
	// From is the network address of who sent it.
	From string
	// At is when the request came, Took how long it took until the answer was decided.
	At   time.Time
	Took time.Duration
	// Refused says why it was not stored, in the form of a metric label; empty if it is stored.
	Refused string
}

// Match says which Triggers select a stored event.
type Match struct {
	Broker *Broker
	Event  *event.Event
	// Sequence is its number in the Broker's stream of accepted events, Stored when it was written there.
	Sequence uint64
	Stored   time.Time
	// At is when it was matched.
	At time.Time
	// Again says that the store handed the event out before, to whoever did not settle it.
	Again bool
	// Triggers are those that matched, perhaps none. The slice is only lent.
	Triggers []*Trigger
	// Errors is how many filter expressions failed, and so did not match.
	Errors int
}

// Attempt is one request made to deliver an event.
type Attempt struct {
	Trigger *Trigger
	Event   *event.Event
	// Origin names the stored message: e and its sequence in the stream of accepted events, or r and that in the retry stream.
	Origin string
	// Again says that the store handed that message out before, to whoever did not settle it.
	Again bool
	// DeadLetter says that it was made at the dead letter sink.
	DeadLetter bool
	// Number counts the attempts at this address, from 1.
	Number int
	// At is when it began, Took how long it took.
	At   time.Time
	Took time.Duration
	// Destination is the URL without a password.
	Destination string
	// Status is the HTTP status of the answer, 0 if there was none.
	Status int
	// Reason says why it failed, in the form of a metric label; empty if it did not.
	Reason string
	// Err says more about it; it may be nil.
	Err error
	// Answer is the beginning of the body of an answer that is no success.
	Answer string
	// Action is what follows: done, retry, give_up or leave. Delay is the pause before the next attempt.
	Action string
	Delay  time.Duration
}

// Fate is what became of a delivery.
type Fate uint8

// The fates. Of these [Retried], [Overflowed] and [Expired] are not final.
const (
	// Delivered: the subscriber has accepted the event.
	Delivered Fate = iota
	// DeadLettered: the dead letter sink has.
	DeadLettered
	// Parked: it was given up, and is kept in the parking stream.
	Parked
	// Retried: it waits in the store for another attempt.
	Retried
	// Overflowed: it waits in the backlog for a place, no attempt was spent.
	Overflowed
	// Expired: it waited longer for the subscriber than the Trigger allows, and goes on to the dead letter sink or the parking stream.
	Expired
)

// String returns the fate in the form of a metric label.
func (f Fate) String() string {
	switch f {
	case Delivered:
		return "delivered"
	case DeadLettered:
		return "dead_lettered"
	case Parked:
		return "parked"
	case Retried:
		return "retried"
	case Overflowed:
		return "overflowed"
	default:
		return "expired"
	}
}

// Settlement is the end of a delivery, or of its stay in a process.
type Settlement struct {
	Trigger *Trigger
	Event   *event.Event
	// Origin is as in [Attempt].
	Origin string
	Fate   Fate
	// Attempts were made at the subscriber, or at the sink of a dead letter.
	Attempts int
	// At is when it was settled, Due when the next attempt may be made, if there will be one.
	At, Due time.Time
	// Sequence is that of the message that it waits as, in the retry or the parking stream; 0 if it does not.
	Sequence uint64
}

// Reply is an event that a subscriber answered with.
type Reply struct {
	Trigger *Trigger
	// Event is the reply, To the event that it answers.
	Event, To *event.Event
	// At is when it was stored or dropped.
	At time.Time
	// Dropped says that it had passed too many hops and was not stored.
	Dropped bool
}

// All returns a Recorder that tells each of the given ones in turn, leaving out those that are nil; nil if none is left.
func All(recorders ...Recorder) Recorder {
	var some several
	for _, r := range recorders {
		if r != nil {
			some = append(some, r)
		}
	}
	switch len(some) {
	case 0:
		return nil
	case 1:
		return some[0]
	default:
		return some
	}
}

type several []Recorder

// Arrived implements [Recorder].
func (s several) Arrived(a Arrival) {
	for _, r := range s {
		r.Arrived(a)
	}
}

// Matched implements [Recorder].
func (s several) Matched(m Match) {
	for _, r := range s {
		r.Matched(m)
	}
}

// Attempted implements [Recorder].
func (s several) Attempted(a Attempt) {
	for _, r := range s {
		r.Attempted(a)
	}
}

// Settled implements [Recorder].
func (s several) Settled(f Settlement) {
	for _, r := range s {
		r.Settled(f)
	}
}

// Replied implements [Recorder].
func (s several) Replied(x Reply) {
	for _, r := range s {
		r.Replied(x)
	}
}

// Step is a part of an event's way that a span is made for.
type Step uint8

// The steps.
const (
	// Arrive: a producer hands the event in. Only this step and Read begin a trace where there is none.
	Arrive Step = iota
	// Store: the event is written to the Broker's stream.
	Store
	// Select: a stored event is matched with the Triggers.
	Select
	// Deliver: one attempt at a subscriber or dead letter sink.
	Deliver
	// Read: a source has read the event from its system, until it is in the Broker's stream.
	Read
)

// Tracer makes spans, for the few events whose trace is recorded.
type Tracer interface {
	// Begin begins a span for a step of e, as a child of the one that e carries in its traceparent header or, failing that, the
	// traceparent attribute. It returns nil if that trace is not recorded. t is nil where no Trigger is concerned.
	Begin(s Step, at time.Time, b *Broker, t *Trigger, e *event.Event) Span
}

// Span is one step of a recorded trace.
type Span interface {
	// Tie has e carry the span, so that later steps are its children. Nobody else may use e yet.
	Tie(e *event.Event)
	// Headers carry the span in a request.
	Headers() []event.Header
	// End ends the span. status is that of HTTP, 0 if there is none; reason says what went wrong, empty if nothing did.
	End(status int, reason string)
}
