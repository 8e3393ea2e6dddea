package adminapi

import (
	"encoding/json"
	"time"
)

// BrokerInfo is a Broker and how many events are parked for it.
type BrokerInfo struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Parked    uint64 `json:"parked"`
	Bytes     uint64 `json:"bytes"`
	// URL is where events for it are posted to; empty where the process has no ingress.
	URL string `json:"url,omitempty"`
}

// Item is a parked event without its data.
type Item struct {
	Sequence uint64    `json:"sequence"`
	Parked   time.Time `json:"parked"`
	// Trigger is namespace/name; empty if the Trigger exists no more.
	Trigger    string `json:"trigger,omitempty"`
	TriggerUID string `json:"triggerUID"`
	// Attempts is how many were made, FirstAttempt when the first of them was.
	Attempts     int        `json:"attempts"`
	FirstAttempt *time.Time `json:"firstAttempt,omitempty"`
	// Code is the HTTP status of the last attempt; 0 if there was no answer.
	Code int `json:"code"`
	// Cause is the body of the last answer, or the error if there was none, shortened.
	Cause       string `json:"cause,omitempty"`
	Destination string `json:"destination,omitempty"`
	// DeadLetter says that the event is in the form in which a dead letter sink would have got it.
	DeadLetter bool `json:"deadLetter,omitempty"`
	// ID, Type, Source and Subject are the event's, Size that of its data in bytes.
	ID      string `json:"id,omitempty"`
	Type    string `json:"type,omitempty"`
	Source  string `json:"source,omitempty"`
	Subject string `json:"subject,omitempty"`
	Size    int    `json:"size"`
	// Unreadable says why what is stored is no event.
	Unreadable string `json:"unreadable,omitempty"`
}

// Detail is a parked event.
type Detail struct {
	Item
	// Event is in the CloudEvents JSON format; absent if the event is unreadable.
	Event json.RawMessage `json:"event,omitempty"`
}

// Page is some of the parked events, oldest first.
type Page struct {
	Items []Item `json:"items"`
	// Next is the value of the parameter "after" for the next page; 0 if there is none.
	Next uint64 `json:"next,omitempty"`
}

// Group counts events parked for one Trigger for one cause.
type Group struct {
	// Trigger is namespace/name; empty if the Trigger exists no more.
	Trigger    string `json:"trigger,omitempty"`
	TriggerUID string `json:"triggerUID"`
	Code       int    `json:"code"`
	// Cause is what the causes have in common: words with four digits or more, such as ids and addresses, are a *.
	Cause string `json:"cause"`
	// Other says that the group is what is left when there are too many different causes.
	Other  bool      `json:"other,omitempty"`
	Count  uint64    `json:"count"`
	Bytes  uint64    `json:"bytes"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
	// Last is the sequence of the newest event.
	Last uint64 `json:"last"`
}

// Groups is the result of grouping, the largest group first.
type Groups struct {
	Groups []Group `json:"groups"`
	Events uint64  `json:"events"`
}

// Selection says which parked events are meant. Its conditions must all hold; a mutating request needs at least one, or
// All.
type Selection struct {
	// Trigger is namespace/name, or the UID of a Trigger that exists no more.
	Trigger string `json:"trigger,omitempty"`
	// Code is the HTTP status of the last attempt; 0 if there was no answer.
	Code *int `json:"code,omitempty"`
	// Cause is a part of the cause, as stored or as in a group; upper and lower case are the same.
	Cause string `json:"cause,omitempty"`
	// OlderThan is a duration such as 90m, 36h or 7d since the event was parked.
	OlderThan string `json:"olderThan,omitempty"`
	// Sequences are those of single events.
	Sequences []uint64 `json:"sequences,omitempty"`
	// All says that every event is meant. It does not go with a condition.
	All bool `json:"all,omitempty"`
	// Limit is the largest number of events to work on, oldest first; 0 is no limit.
	Limit int `json:"limit,omitempty"`
	// DryRun counts what would be done and does nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// RedriveRequest asks for events to be given back to their Triggers.
type RedriveRequest struct {
	Selection
	// Rate is how many events a second are redriven at most; 0 is no limit.
	Rate float64 `json:"rate,omitempty"`
}

// PurgeRequest asks for events to be removed.
type PurgeRequest struct {
	Selection
}

// RedriveResult counts what became of the selected events. Each is in exactly one of the counts below Selected.
type RedriveResult struct {
	// DryRun says that nothing was done: Redriven is what would be.
	DryRun   bool   `json:"dryRun,omitempty"`
	Selected uint64 `json:"selected"`
	// Redriven events are waiting for delivery and parked no more.
	Redriven uint64 `json:"redriven"`
	// NoTrigger events are kept: their Trigger exists no more. Missing are the UIDs of some of those Triggers.
	NoTrigger uint64   `json:"noTrigger"`
	Missing   []string `json:"missing,omitempty"`
	// Unreadable events are kept: they are no CloudEvents. TooLarge ones are kept: the retry stream does not take them.
	Unreadable uint64 `json:"unreadable"`
	TooLarge   uint64 `json:"tooLarge"`
	// Gone events were redriven or purged by somebody else meanwhile, or became too old.
	Gone uint64 `json:"gone"`
	// Failed events are kept, or may have been stored for delivery and are parked still: the store failed.
	Failed uint64 `json:"failed"`
	// Waiting of the redriven events go to Triggers that are not ready; they are delivered when these are.
	Waiting uint64 `json:"waiting"`
}

// PurgeResult counts what became of the selected events. Each is in exactly one of the counts below Selected.
type PurgeResult struct {
	// DryRun says that nothing was done: Purged is what would be.
	DryRun   bool   `json:"dryRun,omitempty"`
	Selected uint64 `json:"selected"`
	Purged   uint64 `json:"purged"`
	// Gone events were removed by somebody else meanwhile, or became too old.
	Gone uint64 `json:"gone"`
	// Failed events may be parked still: the store failed.
	Failed uint64 `json:"failed"`
}

// State is how far an operation is.
type State string

// The states of an operation. A stream of lines without one of the last two was cut off.
const (
	Running State = "running"
	// Done says that all was looked at.
	Done State = "done"
	// Stopped says that the operation ended early, for the reason in Problem.
	Stopped State = "stopped"
)

// Line is one line of the answer of an operation that takes a while.
type Line[T any] struct {
	State State `json:"state"`
	// Examined of Total events were looked at. Total is what there was at the beginning.
	Examined uint64 `json:"examined"`
	Total    uint64 `json:"total"`
	// Result is what came of it so far; for groups it is on the last line only.
	Result  *T       `json:"result,omitempty"`
	Problem *Problem `json:"problem,omitempty"`
}
