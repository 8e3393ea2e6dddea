package event

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The extensions that a Broker keeps in every event it stores.
const (
	// ArrivalTime is when the Broker first saw the event, an RFC 3339 timestamp in UTC.
	ArrivalTime = "knativearrivaltime"
	// HopLimit is how many more times the event may enter a Broker. Subscribers never see it.
	HopLimit = "knativebrokerttl"
)

// DefaultHopLimit is the hop limit of an event that comes without one.
const DefaultHopLimit = 255

// DefaultMaxAttributeBytes is what the attributes of an event that enters a Broker may take, in bytes, as
// [Event.AttributeBytes] counts them.
const DefaultMaxAttributeBytes = 64 << 10

// ErrHopLimit says that an event was not admitted because it has been through too many Brokers: most likely a subscriber
// answers an event with one that its own Trigger matches.
var ErrHopLimit = errors.New("hop limit reached")

// Admit gives e, which must be valid, the attributes of an event that enters a Broker: knativearrivaltime if it has none,
// and a knativebrokerttl of [DefaultHopLimit], or one less than it came with. Every way into a Broker leads through it:
// HTTP requests, replies of subscribers, and sources.
//
// The error wraps an [*Error], and [ErrHopLimit] if the hop limit is used up; e is then unchanged.
func Admit(e *Event, now time.Time) error {
	hops, err := nextHopLimit(e)
	if err != nil {
		return err
	}
	e.Set(HopLimit, strconv.Itoa(hops), Integer)
	if e.Lookup(ArrivalTime) == nil {
		e.Set(ArrivalTime, now.UTC().Format(time.RFC3339Nano), String)
	}
	return nil
}

func nextHopLimit(e *Event) (int, error) {
	text, ok := e.Get(HopLimit)
	if !ok {
		return DefaultHopLimit, nil
	}
	hops, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil:
		return 0, invalid(HopLimit, "is not a whole number", "leave it out: the broker sets it")
	case hops <= 1:
		return 0, fmt.Errorf("%w: %w", ErrHopLimit,
			invalid(HopLimit, "is used up: the event went through too many brokers", "look for a subscriber whose reply matches its own trigger"))
	}
	return int(hops) - 1, nil
}

// Limits bounds the size of an event, in bytes. A limit of 0 is none.
type Limits struct {
	// Data bounds the payload.
	Data int
	// Attributes bounds what [Event.AttributeBytes] counts.
	Attributes int
}

// SizeError says that an event is larger than [Limits] allow. Sizes are in bytes.
type SizeError struct {
	// Part names what is too large: "data" or "attributes".
	Part string
	// Size is the part's size, Limit what is allowed.
	Size, Limit int
}

// Error names the part, its size and the limit.
func (e *SizeError) Error() string {
	return fmt.Sprintf("the event's %s take %d bytes, more than the limit of %d", e.Part, e.Size, e.Limit)
}

// CheckSize returns a [*SizeError] if e is larger than l allows.
func (e *Event) CheckSize(l Limits) error {
	if l.Data > 0 && len(e.Data) > l.Data {
		return &SizeError{Part: "data", Size: len(e.Data), Limit: l.Data}
	}
	if n := e.AttributeBytes(); l.Attributes > 0 && n > l.Attributes {
		return &SizeError{Part: "attributes", Size: n, Limit: l.Attributes}
	}
	return nil
}
