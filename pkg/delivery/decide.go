package delivery

import (
	"errors"
	"net/http"
	"time"
)

// The errors of an attempt that steer what happens next. They are matched with errors.Is; every other error is a failure
// of the network or the server and is retried.
var (
	// ErrTimeout says that the attempt's timeout ran out. It is retried.
	ErrTimeout = errors.New("the subscriber did not answer in time")
	// ErrURL says that the URL is not one that events can be sent to. It is not retried.
	ErrURL = errors.New("not a usable subscriber URL")
	// ErrDenied says that the subscriber's address is one that must not be dialed. It is not retried: it is a decision,
	// not a fault, and trying again would only give a prober more tries.
	ErrDenied = errors.New("dialing this address is not allowed")
	// ErrUnsendable says that the event has a header that HTTP cannot carry. It is not retried.
	ErrUnsendable = errors.New("the event cannot be written as HTTP headers")
	// ErrReplyTooLarge says that the subscriber took the event and replied with an event larger than can be stored. It is
	// not retried, as the next reply would be as large; nor is it taken for success, as the reply would be lost without
	// a trace.
	ErrReplyTooLarge = errors.New("the reply is larger than can be stored")
	// ErrAbandoned says that the caller's context ended the attempt. It says nothing about the subscriber and is no
	// attempt spent.
	ErrAbandoned = errors.New("the attempt was abandoned")
)

// Outcome is what the result of an attempt means.
type Outcome uint8

// The outcomes.
const (
	// Delivered says that the subscriber has the event.
	Delivered Outcome = iota
	// Retry says that another attempt may succeed.
	Retry
	// Reject says that another attempt would fail in the same way.
	Reject
	// Abandoned says that the caller ended the attempt and its result is not known.
	Abandoned
)

// String returns the outcome in the form of a metric label.
func (o Outcome) String() string {
	switch o {
	case Delivered:
		return "delivered"
	case Retry:
		return "retry"
	case Reject:
		return "reject"
	default:
		return "abandoned"
	}
}

// Classify says what an attempt's status code and error mean; an error counts before a status.
//
// As the Knative Eventing data plane specification has it, any 2xx is success, and 404, 408, 409, 429, every 5xx, network
// errors and timeouts are retried; any other 1xx, 3xx or 4xx is not. A code outside 100 to 599, which HTTP does not have, is
// taken for a broken server and retried.
func Classify(status int, err error) Outcome {
	switch {
	case errors.Is(err, ErrAbandoned):
		return Abandoned
	case errors.Is(err, ErrDenied), errors.Is(err, ErrURL), errors.Is(err, ErrUnsendable), errors.Is(err, ErrReplyTooLarge):
		return Reject
	case err != nil:
		return Retry
	}
	switch status {
	case http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return Retry
	}
	switch status / 100 {
	case 2:
		return Delivered
	case 1, 3, 4:
		return Reject
	default:
		return Retry
	}
}

// Reason says why an attempt failed, from a set small enough for metric labels.
type Reason uint8

// The reasons.
const (
	// ReasonNone is that of a successful attempt.
	ReasonNone Reason = iota
	// ReasonStatus is an answer that is no 2xx.
	ReasonStatus
	// ReasonNetwork is a failure to resolve, connect, write or read, or any other error of the attempt.
	ReasonNetwork
	// ReasonTimeout is ErrTimeout.
	ReasonTimeout
	// ReasonURL is ErrURL.
	ReasonURL
	// ReasonDenied is ErrDenied.
	ReasonDenied
	// ReasonUnsendable is ErrUnsendable.
	ReasonUnsendable
	// ReasonReplyTooLarge is ErrReplyTooLarge.
	ReasonReplyTooLarge
	// ReasonAbandoned is ErrAbandoned.
	ReasonAbandoned
)

// String returns the reason in the form of a metric label; that of ReasonNone is empty.
func (r Reason) String() string {
	names := [...]string{
		"", "status", "network", "timeout", "url", "denied", "unsendable", "reply_too_large", "abandoned",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Action is what to do with an event after an attempt.
type Action uint8

// The actions.
const (
	// Done settles the event: it is delivered. A reply, if there is one, is stored first.
	Done Action = iota
	// RetryIn tries again after Decision.Delay.
	RetryIn
	// GiveUp sends the event to the dead letter sink.
	GiveUp
	// Leave does nothing: the attempt was abandoned, and the store still has the event.
	Leave
)

// String returns the action in the form of a metric label.
func (a Action) String() string {
	switch a {
	case Done:
		return "done"
	case RetryIn:
		return "retry"
	case GiveUp:
		return "give_up"
	default:
		return "leave"
	}
}

// Decision is what follows from an attempt.
type Decision struct {
	Action Action
	// Delay is how long to wait before the next attempt; only for RetryIn.
	Delay time.Duration
	// Code is what a dead letter reports as knativeerrorcode; only for GiveUp.
	Code int
	// Reason says why the attempt failed; ReasonNone for Done.
	Reason Reason
	// Exhausted says that the attempt might have been repeated, had it not been the last that the policy allows; only
	// for GiveUp.
	Exhausted bool
}

// Decide says what to do after attempt number attempt, counted from 1, had the result r. An event that keeps failing
// retryably is tried exactly 1 + p.Retries times. jitter is as for [Policy.Delay].
//
// A Retry-After is honored up to p.RetryAfterMax, and never makes the wait shorter than the backoff.
func Decide(p Policy, attempt int, r Result, jitter float64) Decision {
	reason := r.Reason()
	switch outcome := Classify(r.Status, r.Err); {
	case outcome == Delivered:
		return Decision{Action: Done}
	case outcome == Abandoned:
		return Decision{Action: Leave, Reason: reason}
	case outcome == Reject:
		return Decision{Action: GiveUp, Code: r.Code(), Reason: reason}
	case attempt > p.Retries:
		return Decision{Action: GiveUp, Code: r.Code(), Reason: reason, Exhausted: true}
	}
	wait := max(p.Delay(attempt, jitter), min(r.RetryAfter, p.RetryAfterMax))
	return Decision{Action: RetryIn, Delay: wait, Reason: reason}
}
