package journal

import (
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

// The Writer is a Recorder of what happens to events.
var _ observe.Recorder = (*Writer)(nil)

const (
	// refusalRate bounds the refusals that are recorded, in bytes a second, of which a usual one takes a hundred: whoever sends
	// what is refused must not push out what is known of events. More than refusalBurst at once are counted and told of as a gap.
	refusalRate  = 4 << 10
	refusalBurst = 256 << 10
	// refusalBytes stands for what a refusal takes beside its texts.
	refusalBytes = 32
)

// Arrived records that an event was stored, or why it was refused. A request without a readable event has no id to find it by.
func (w *Writer) Arrived(a observe.Arrival) {
	if a.Event == nil || a.Broker == nil {
		return
	}
	r := recordOf(Received, a.Broker, a.Event, a.At)
	r.Peer, r.Duration = a.From, a.Took
	if a.Refused != "" {
		r.Kind, r.Reason = Refused, a.Refused
		size := refusalBytes + len(cut(r.ID)) + len(cut(r.Source)) + len(cut(r.Type)) + len(r.Peer)
		if r.ID == "" {
			return
		}
		if !w.refusals.AllowN(time.Now(), size) {
			w.omitted.Add(1)
			return
		}
	}
	w.Record(&r)
}

// Matched records which Triggers an event goes to.
func (w *Writer) Matched(m observe.Match) {
	r := recordOf(Matched, m.Broker, m.Event, m.At)
	r.Sequence, r.Due, r.Attributes, r.Peer, r.Again = m.Sequence, m.Stored, m.Event.Attributes, w.opts.Name, m.Again
	r.Cause, _ = observe.TraceID(m.Event)
	var few [8]string // which need no memory of their own
	r.Triggers = few[:0]
	for _, t := range m.Triggers {
		r.Triggers = append(r.Triggers, t.Key)
	}
	w.Record(&r)
}

// Attempted records what came of an attempt.
func (w *Writer) Attempted(a observe.Attempt) {
	r := recordOf(Attempted, a.Trigger.Broker, a.Event, a.At.Add(a.Took))
	r.Trigger, r.DeadLetter, r.Attempt, r.Status, r.Reason, r.Duration = a.Trigger.Key, a.DeadLetter, a.Number, a.Status, a.Reason, a.Took
	r.Peer, r.Again = w.opts.Name, a.Again
	if r.Cause = a.Answer; a.Err != nil {
		r.Cause = a.Err.Error()
	}
	switch {
	case a.Action == "done" && a.DeadLetter:
		r.Fate = DeadLettered
	case a.Action == "done":
		r.Fate = Delivered
	case a.Action == "give_up":
		r.Fate = GivenUp
	}
	w.Record(&r)
}

// Settled records where a delivery waits or ended, unless its last attempt says so already.
func (w *Writer) Settled(s observe.Settlement) {
	var fate Fate
	switch s.Fate {
	case observe.Delivered, observe.DeadLettered:
		return
	case observe.Retried:
		fate = Retrying
	case observe.Overflowed:
		fate = Waiting
	case observe.Parked:
		fate = Parked
	case observe.Expired:
		fate = Expired
	}
	r := recordOf(Settled, s.Trigger.Broker, s.Event, s.At)
	r.Fate, r.Trigger, r.Attempt, r.Due, r.Sequence, r.Peer = fate, s.Trigger.Key, s.Attempts, s.Due, s.Sequence, w.opts.Name
	w.Record(&r)
}

// Replied records a reply twice, so that each of the two events names the other.
func (w *Writer) Replied(x observe.Reply) {
	reply, to := recordOf(Replied, x.Trigger.Broker, x.Event, x.At), recordOf(Answered, x.Trigger.Broker, x.To, x.At)
	reply.Trigger, reply.Cause, reply.Peer = x.Trigger.Key, to.ID, to.Source
	to.Trigger, to.Cause, to.Peer = x.Trigger.Key, reply.ID, reply.Source
	if x.Dropped {
		reply.Fate, to.Fate = Dropped, Dropped
	}
	w.Record(&reply)
	w.Record(&to)
}

func recordOf(kind Kind, b *observe.Broker, e *event.Event, at time.Time) Record {
	r := Record{Kind: kind, Time: at, Broker: b.Key}
	for i := range e.Attributes {
		switch a := &e.Attributes[i]; a.Name {
		case event.ID:
			r.ID = a.Value
		case event.Source:
			r.Source = a.Value
		case event.Type:
			r.Type = a.Value
		}
	}
	return r
}
