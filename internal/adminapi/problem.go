package adminapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"millrace.dev/pkg/stream"
)

// Problem says why a request failed (RFC 9457, with a member of our own).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Hint says what to do about it; it may be empty.
	Hint string `json:"hint,omitempty"`
}

// Error is the detail and the hint.
func (p *Problem) Error() string {
	if p.Hint == "" {
		return p.Detail
	}
	return p.Detail + "; " + p.Hint
}

func problemf(status int, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

func (p *Problem) hint(text string) *Problem {
	p.Hint = text
	return p
}

// problemOf turns an error of the store into a Problem.
func problemOf(err error) *Problem {
	var known *Problem
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, stream.ErrNotParked):
		return problemf(http.StatusNotFound, "%v", err).
			hint("it was redriven, purged or has become too old, or never was; `millrace dlq ls --events` lists what there is")
	case errors.Is(err, stream.ErrFull):
		return problemf(http.StatusServiceUnavailable, "%v", err).
			hint("deliveries that wait for another attempt fill it; run this again when they are done: what was not done is still parked")
	case errors.Is(err, errStopping):
		return problemf(http.StatusServiceUnavailable, "%v", err)
	default:
		return problemf(http.StatusServiceUnavailable, "%v", err).hint("run it again when NATS is reachable: what was not done is still parked")
	}
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	writeValue(w, p)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	writeValue(w, v)
}

func writeValue(w http.ResponseWriter, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client is gone if this fails
}
