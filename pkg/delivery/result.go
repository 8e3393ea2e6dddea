package delivery

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace.dev/pkg/event"
)

// Result is what came of one attempt.
type Result struct {
	// Status is the status code of the answer; 0 if there was none.
	Status int
	// Err says why there is no usable answer; nil if Status says all. A caller that cannot store Reply sets it, which makes
	// the attempt one to be retried.
	Err error
	// Reply is the event that the subscriber answered with, to be admitted to the Broker like any other; nil if there is
	// none. Its hop limit is the one that the delivered event was stored with.
	Reply *event.Event
	// Ignored says why the body of a successful answer was not taken as a reply, and IgnoredErr what was wrong with it.
	Ignored    Ignored
	IgnoredErr error
	// RetryAfter is how long the subscriber asks to be left alone; 0 if it does not. Only 429 and 503 can ask.
	RetryAfter time.Duration
	// Body is the beginning of the body of an answer that is no 2xx, at most 1024 bytes.
	Body []byte
	// Duration is how long the attempt took, up to the end of the answer.
	Duration time.Duration
}

// Code is the status code that a dead letter reports: that of the answer, or 500 if there is no usable one.
func (r Result) Code() int {
	if r.Err != nil {
		return http.StatusInternalServerError
	}
	return r.Status
}

// Reason says why the attempt failed; ReasonNone if it did not.
func (r Result) Reason() Reason {
	switch {
	case r.Err != nil:
		return errorReason(r.Err)
	case r.Status/100 == 2:
		return ReasonNone
	default:
		return ReasonStatus
	}
}

func errorReason(err error) Reason {
	switch {
	case errors.Is(err, ErrAbandoned):
		return ReasonAbandoned
	case errors.Is(err, ErrTimeout):
		return ReasonTimeout
	case errors.Is(err, ErrURL):
		return ReasonURL
	case errors.Is(err, ErrDenied):
		return ReasonDenied
	case errors.Is(err, ErrUnsendable):
		return ReasonUnsendable
	case errors.Is(err, ErrReplyTooLarge):
		return ReasonReplyTooLarge
	default:
		return ReasonNetwork
	}
}

// Ignored says why the body of a successful answer is not a reply, from a set small enough for metric labels.
type Ignored uint8

// The reasons to ignore a body.
const (
	// IgnoredNothing says that there was nothing to ignore: no body, or a reply.
	IgnoredNothing Ignored = iota
	// IgnoredNotEvent says that the body does not claim to be a CloudEvent.
	IgnoredNotEvent
	// IgnoredInvalid says that the answer claims to be a CloudEvent and is not a valid one.
	IgnoredInvalid
	// IgnoredFormat says that the answer is in a CloudEvents format that is not supported, or a batch.
	IgnoredFormat
	// IgnoredStatus says that the answer is a CloudEvent with a status other than 200: only a 200 replies.
	IgnoredStatus
	// IgnoredUnwanted says that the answer is a CloudEvent and the request asked for no reply.
	IgnoredUnwanted
)

// String returns the reason in the form of a metric label; that of IgnoredNothing is empty.
func (i Ignored) String() string {
	names := [...]string{"", "not_event", "invalid", "format", "status", "unwanted"}
	if int(i) < len(names) {
		return names[i]
	}
	return "unknown"
}

// retryAfter is the wait that an answer asks for (RFC 9110, section 10.2.3), 0 if it asks for none. A value that is
// neither a number of seconds nor a date, or that lies in the past, asks for none.
func retryAfter(status int, h http.Header, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	return parseRetryAfter(h.Get("Retry-After"), now)
}

func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if strings.Trim(value, "0123456789") == "" {
		// Parsing fails only for a number too large, which is as long a wait as there is.
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n > int64(longest/time.Second) {
			return longest
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longest)
}
