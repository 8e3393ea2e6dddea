// Package stream keeps events in NATS JetStream: names, the message codec, publishing, consuming and administration.
// It is the only package that imports nats.go.
package stream

import (
	"strconv"
	"strings"
	"time"

	"millrace.dev/pkg/event"
)

// Names are the JetStream names that belong to one Broker. They are derived from its namespace, name and UID only, so
// every process arrives at the same ones, and no two Brokers share any: namespaces and names hold no underscore, and the
// UID tells a Broker from a deleted one of the same name.
type Names struct {
	// Namespace, Name and UID are the Broker's.
	Namespace, Name, UID string
	// Events is the stream of accepted events, EventSubject the one subject in it.
	Events, EventSubject string
	// Retries is the stream of deliveries waiting for another attempt; see [Names.BacklogSubject] and
	// [Names.DelayPrefix] for its subjects.
	Retries, RetryPrefix string
	// Parked is the stream of deliveries that were given up without a dead letter sink; each Trigger has the subject
	// ParkedPrefix + its UID there.
	Parked, ParkedPrefix string
	// Archive is the stream of copies of accepted events, where a Broker has one, and ArchiveSubject the one subject in it.
	Archive, ArchiveSubject string
}

// NewNames derives the names of the Broker namespace/name with the given UID.
func NewNames(namespace, name, uid string) *Names {
	token := strings.ReplaceAll(name, ".", "_")
	short := uid
	if len(short) > 8 {
		short = short[:8]
	}
	base := "millrace_" + namespace + "_" + token + "_" + short
	subject := namespace + "." + token + "." + short
	return &Names{
		Namespace: namespace, Name: name, UID: uid,
		Events: base, EventSubject: "millrace.events." + subject,
		Retries: base + "_retries", RetryPrefix: "millrace.retries." + subject + ".",
		Parked: base + "_parked", ParkedPrefix: "millrace.parked." + subject + ".",
		Archive: base + "_archive", ArchiveSubject: "millrace.archive." + subject,
	}
}

// BacklogPrefix followed by a Trigger's UID is the subject of the deliveries that wait for that Trigger's subscriber.
func (n *Names) BacklogPrefix() string { return n.RetryPrefix + "backlog." }

// DelayPrefix followed by a Trigger's UID is the subject of the deliveries that wait for a time to pass. Those that wait
// about equally long share a class, so that within a class they fall due nearly in order.
func (n *Names) DelayPrefix(class int) string {
	return n.RetryPrefix + "delay." + strconv.Itoa(class) + "."
}

// DelayClasses is the number of classes of delay.
const DelayClasses = 7

// DelayClass returns the class of a delay: 0 up to 0.25 s, and four times as much in each class after it.
func DelayClass(delay time.Duration) int {
	limit := 250 * time.Millisecond
	for class := range DelayClasses - 1 {
		if delay <= limit {
			return class
		}
		limit *= 4
	}
	return DelayClasses - 1
}

// Message is an event to be stored.
type Message struct {
	Event *event.Event
	// ID, if not empty, makes the store drop the message when it has stored one with the same ID within the stream's
	// duplicate window.
	ID string
}
