// Package source is what event sources have in common: what a source is, where its events can go, and what becomes of an
// event that cannot be delivered.
//
// A source reads messages from some system, makes an event of each, and hands them to an [Outlet], which sends them to a
// [Sink], tries again, and gives up only in favor of a dead letter sink. When the Outlet says that a message is settled, the
// source may tell its system so. So nothing is lost: what was not settled is read again.
package source

import (
	"context"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

// Source is one source object at work.
type Source interface {
	// Run works until ctx ends, then takes no more messages, finishes what is under way within a bounded time, tells its
	// system what is settled, and returns. It does not end because something is away: it waits for it.
	Run(ctx context.Context)
	// Status says how the source is. It is safe to call at any time.
	Status() Status
}

// Message is an event on its way to a sink.
type Message struct {
	// Event belongs to the sink until the message is settled.
	Event *event.Event
	// Key tells the message from all others of the source, and is the same each time that it is read.
	Key string

	admitted bool
	span     observe.Span // nil if its trace is not recorded
}

// Status says how a source is.
type Status struct {
	// Ready says that the source receives what its system has. If it is false, Reason says why, in a word for programs, and
	// Message what to do about it.
	Ready           bool
	Reason, Message string
	// Assigned is the number of partitions, or whatever the system divides its messages into, that this process has.
	Assigned int
	// Lag is the number of messages in these that are not settled, as far as known.
	Lag int64
	// Oldest is how long ago the oldest message was received that is not settled; 0 if all are.
	Oldest time.Duration
	// Held is how many bytes of messages are held that are not settled.
	Held int64
	// Outlet is what became of the messages.
	Outlet OutletStats
}

// The reasons for which a source is not ready, shared by all kinds of sources.
const (
	// ReasonConnecting is that of a source that has not reached its system yet, nor failed to.
	ReasonConnecting = "Connecting"
	// ReasonUnreachable says that no server answers.
	ReasonUnreachable = "Unreachable"
	// ReasonAuthenticationFailed says that the servers do not take the credentials.
	ReasonAuthenticationFailed = "AuthenticationFailed"
	// ReasonNotAuthorized says that the user may not do what the source needs.
	ReasonNotAuthorized = "NotAuthorized"
	// ReasonTLSFailed says that no trusted connection can be made.
	ReasonTLSFailed = "TLSFailed"
	// ReasonStopped says that the source does not run any more.
	ReasonStopped = "Stopped"
)
