package broker

import (
	"net/http"
	"sync/atomic"
)

// Reason is why a request was refused. Its string names the metric label and ends the URL of the problem type.
type Reason uint8

// The reasons. Which HTTP status each means is fixed.
const (
	// InvalidEvent: the request holds no valid CloudEvent. 400.
	InvalidEvent Reason = iota
	// HopLimit: the event went through too many Brokers. 400.
	HopLimit
	// BadPath: the path is not /namespace/broker. 400.
	BadPath
	// BadBody: the body could not be read to its end. 400.
	BadBody
	// UnknownBroker: there is no such Broker. 404.
	UnknownBroker
	// MethodNotAllowed: the method is not POST, HEAD or OPTIONS. 405.
	MethodNotAllowed
	// SlowBody: the body did not arrive within the server's read timeout. 408.
	SlowBody
	// TooLarge: an event, its attributes, a batch or its number of events exceed their limit. 413.
	TooLarge
	// UnsupportedMedia: the content is compressed, or an event format other than JSON. 415.
	UnsupportedMedia
	// Overload: too many requests or bytes are being served. 429.
	Overload
	// StoreBusy: too many events wait for the store. 429.
	StoreBusy
	// StoreFull: the Broker's store has reached its limit. 503.
	StoreFull
	// StoreUnavailable: the store is unreachable, or did not confirm in time. 503.
	StoreUnavailable
	// ClientGone: the client went away before the store had confirmed. 503, which nobody sees.
	ClientGone
	// NotLoaded: the ingress has just started and does not know the Brokers yet. 503.
	NotLoaded

	reasonCount
)

// reasonInfo describes a Reason.
type reasonInfo struct {
	status       int
	label, title string
}

// info returns what is fixed about r.
func (r Reason) info() reasonInfo {
	switch r {
	case InvalidEvent:
		return reasonInfo{http.StatusBadRequest, "invalid-event", "The request is not a valid CloudEvent"}
	case HopLimit:
		return reasonInfo{http.StatusBadRequest, "hop-limit", "The event went in circles"}
	case BadPath:
		return reasonInfo{http.StatusBadRequest, "bad-path", "The path does not name a broker"}
	case BadBody:
		return reasonInfo{http.StatusBadRequest, "bad-body", "The body could not be read"}
	case UnknownBroker:
		return reasonInfo{http.StatusNotFound, "unknown-broker", "There is no such broker"}
	case MethodNotAllowed:
		return reasonInfo{http.StatusMethodNotAllowed, "method-not-allowed", "Events are sent with POST"}
	case SlowBody:
		return reasonInfo{http.StatusRequestTimeout, "slow-body", "The body took too long to arrive"}
	case TooLarge:
		return reasonInfo{http.StatusRequestEntityTooLarge, "too-large", "The event is too large"}
	case UnsupportedMedia:
		return reasonInfo{http.StatusUnsupportedMediaType, "unsupported-media", "The encoding is not supported"}
	case Overload:
		return reasonInfo{http.StatusTooManyRequests, "overload", "The broker is busy"}
	case StoreBusy:
		return reasonInfo{http.StatusTooManyRequests, "store-busy", "The store is busy"}
	case StoreFull:
		return reasonInfo{http.StatusServiceUnavailable, "store-full", "The broker's store is full"}
	case StoreUnavailable:
		return reasonInfo{http.StatusServiceUnavailable, "store-unavailable", "The store is not available"}
	case ClientGone:
		return reasonInfo{http.StatusServiceUnavailable, "client-gone", "The client went away"}
	default:
		return reasonInfo{http.StatusServiceUnavailable, "not-loaded", "The broker is starting"}
	}
}

// String returns the reason as a metric label, such as "invalid-event".
func (r Reason) String() string { return r.info().label }

// Status returns the HTTP status that the reason means.
func (r Reason) Status() int { return r.info().status }

// Stats are counts since the handler was made, and what it is doing now.
type Stats struct {
	// AcceptedRequests were answered 202; AcceptedEvents and AcceptedBytes are the events in them and their data.
	AcceptedRequests, AcceptedEvents, AcceptedBytes uint64
	// Refused counts the refused requests; every Reason is there.
	Refused map[Reason]uint64
	// InFlightRequests are being served, InFlightBytes is the size of their bodies.
	InFlightRequests, InFlightBytes int64
}

// counters are the live form of Stats.
type counters struct {
	requests, events, bytes atomic.Uint64
	refused                 [reasonCount]atomic.Uint64
}

func (c *counters) accepted(events, bytes int) {
	c.requests.Add(1)
	c.events.Add(uint64(events))
	c.bytes.Add(uint64(bytes))
}

// Stats returns the counts. They are read one by one, so they may be a request apart.
func (h *Handler) Stats() Stats {
	s := Stats{
		AcceptedRequests: h.counters.requests.Load(),
		AcceptedEvents:   h.counters.events.Load(),
		AcceptedBytes:    h.counters.bytes.Load(),
		Refused:          make(map[Reason]uint64, reasonCount),
		InFlightRequests: h.inFlight.requests.Load(),
		InFlightBytes:    h.inFlight.bytes.Load(),
	}
	for r := range reasonCount {
		s.Refused[r] = h.counters.refused[r].Load()
	}
	return s
}
