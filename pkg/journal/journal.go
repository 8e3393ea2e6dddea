// Package journal keeps what was decided about events: when each arrived and from whom, which Triggers it matched, what came
// of every attempt to deliver it, and where it ended.
//
// A process hands [Record] values to a [Writer], which never makes it wait. The Writer gathers them by shard of the event's
// id, and stores them as compact blocks. A [Reader] finds the records of an event in the blocks of its one shard. What a
// Writer could not keep is counted, and told by a record of its own, so that a reader knows that the journal has a gap.
package journal

import (
	"context"
	"strconv"
	"time"

	"millrace.dev/pkg/event"
)

// Shards is how many parts the journal has. An event's records are all in the one that [Shard] names.
const Shards = 32

// gapSubject is where gaps are told, beside the shards.
const gapSubject = "gap"

// Shard is the shard that holds the records of events with the given id.
func Shard(id string) int {
	h := uint32(2166136261) // FNV-1a, without making bytes of the string
	for _, b := range []byte(cut(id)) {
		h = (h ^ uint32(b)) * 16777619
	}
	return int(h % Shards)
}

// cut is as much of a text as is kept.
func cut(s string) string { return s[:min(len(s), maxText)] }

// Kind is what a Record tells of.
type Kind uint8

// The kinds. Their numbers are stored: new ones go to the end.
const (
	// Received says that the ingress stored the event: Peer, and Duration, which is how long that took.
	Received Kind = iota + 1
	// Matched says that the filter read the event: Triggers that matched it, Attributes, Sequence, and Due, which is when the
	// event was stored. Peer is the process that made this record and the next two. Cause is the id of the trace that the event is of, if any.
	Matched
	// Attempted says what came of one attempt to deliver the event to Trigger's subscriber or, with DeadLetter, to its dead
	// letter sink: Attempt, Status, Reason, Cause, Duration, and Fate.
	Attempted
	// Settled says where the event went for Trigger without an attempt: Fate.
	Settled
	// Replied says that Trigger's subscriber answered with the event and it was stored, or dropped if Fate is Dropped.
	// Cause is the id of the event that was answered, Peer its source.
	Replied
	// Gap says that Sequence records since Due, of any event, were not kept by the process that Peer names. If Reason is
	// [OfRefusals], they are all of the kind Refused.
	Gap
	// Refused says that the ingress did not store the event: Peer, Reason.
	Refused
	// Answered is the other side of Replied: Trigger's subscriber answered the event with the one whose id is Cause and whose
	// source is Peer.
	Answered
)

// OfRefusals is the Reason of a Gap that only refusals fell into.
const OfRefusals = "refusals"

// Fate is what became of an event for one Trigger.
type Fate uint8

// The fates. Their numbers are stored: new ones go to the end.
const (
	// None is no fate yet.
	None Fate = iota
	// Delivered says that the subscriber has the event.
	Delivered
	// Retrying says that it waits until Due for another attempt.
	Retrying
	// Waiting says that it waits in the backlog for the subscriber to take it.
	Waiting
	// DeadLettered says that the dead letter sink has it.
	DeadLettered
	// Parked says that it was given up and is kept in the parking stream.
	Parked
	// GivenUp says that the subscriber was given up, and the event goes on to the dead letter sink or the parking stream.
	GivenUp
	// Expired says that it waited longer for the subscriber than the Trigger allows; it goes on like one given up.
	Expired
	// Dropped says that a reply had passed too many hops and was not stored.
	Dropped
)

var fates = [...]string{"", "delivered", "retrying", "waiting", "dead_lettered", "parked", "given_up", "expired", "dropped"}

// String is the fate as programs read it.
func (f Fate) String() string { return nameOf(fates[:], int(f)) }

var kinds = [...]string{"", "received", "matched", "attempted", "settled", "replied", "gap", "refused", "answered"}

// String is the kind as programs read it.
func (k Kind) String() string { return nameOf(kinds[:], int(k)) }

// nameOf names numbers of a later version, too.
func nameOf(names []string, n int) string {
	if n < len(names) {
		return names[n]
	}
	return "unknown(" + strconv.Itoa(n) + ")"
}

// Record is one decision about an event. Which fields it has depends on its Kind.
type Record struct {
	Kind Kind
	Fate Fate
	// DeadLetter says that it is about the way to the dead letter sink.
	DeadLetter bool
	// Again says that the store had handed the event out before, to whoever did not settle it.
	Again bool
	Time  time.Time
	// Broker is namespace/name.
	Broker string
	// ID, Source and Type are the event's.
	ID, Source, Type string
	// Sequence is that of the stored message: of the event stream or, with Retrying, Waiting and Parked, of the stream in
	// which it waits; 0 if it is not known.
	Sequence uint64
	// Peer is the address that the event came from, or what the Kind says.
	Peer string
	// Trigger is namespace/name; Triggers are those that matched.
	Trigger  string
	Triggers []string
	// Attempt counts from 1. Status is the answer's, 0 if there was none.
	Attempt, Status int
	// Reason is why the attempt failed, in one word; Cause is its error or the beginning of the answer.
	Reason, Cause string
	Duration      time.Duration
	// Due is when the next attempt may be made.
	Due time.Time
	// Attributes are all those of the event, in a record that was read after its id, source and type. They are not to be changed
	// any more. Cut says that some were too long to be kept.
	Attributes []event.Attribute
	Cut        bool
}

// Store keeps blocks.
type Store interface {
	// StoreJournal keeps blocks, each under its subject, and returns those that it could not be told of as kept.
	StoreJournal(ctx context.Context, blocks []Block) (failed []Block)
	// ReadJournal calls each for the stored blocks of a subject, the oldest first, until each returns false.
	ReadJournal(ctx context.Context, subject string, each func(stored time.Time, data []byte) bool) error
	// FollowJournal calls each for the blocks that are stored from now on until ctx ends.
	FollowJournal(ctx context.Context, each func(data []byte)) error
}

// Block is a number of records as stored.
type Block struct {
	Subject string
	// ID is the same when the block is stored again, and that of no other.
	ID   string
	Data []byte
	// Records is how many it holds or, if it tells of a gap, how many are missing.
	Records int
}
