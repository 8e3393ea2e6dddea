// Package sender posts CloudEvents to an HTTP endpoint and tells how that went.
package sender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// Options say how events are posted.
type Options struct {
	// URL is where events go.
	URL string
	// Client makes the requests; nil means http.DefaultClient. Timeouts and connection limits are its business.
	Client *http.Client
	// Structured sends the event as one JSON document; otherwise it is sent in binary mode.
	Structured bool
	// UserAgent is sent along unless empty.
	UserAgent string
	// Retries is how often an event is sent again after the first attempt, when the answer was 429 or 503 or no
	// connection could be made. After any other failure the event may have been accepted, or never will be.
	Retries int
	// RetryAfterMax bounds how long an answer can make the sender wait; 0 means [DefaultRetryAfterMax].
	RetryAfterMax time.Duration
}

// DefaultRetryAfterMax is the longest wait between two attempts unless Options say otherwise.
const DefaultRetryAfterMax = 30 * time.Second

// The wait before the n-th retry, unless the answer has a Retry-After, is firstBackoff × 2^(n-1) up to maxBackoff.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 5 * time.Second
)

// maxAnswer is how much of an answer's body is read.
const maxAnswer = 64 << 10

// Result is the fate of one event.
type Result struct {
	// Status is that of the last answer, 0 if there was none.
	Status int
	// Detail says why the event was refused: what the answer says, or the error of the connection.
	Detail string
	// Attempts is how many requests were made.
	Attempts int
	// Latency is how long the last request took until the answer was read.
	Latency time.Duration
}

// Accepted says whether the event was accepted.
func (r Result) Accepted() bool { return r.Status >= 200 && r.Status < 300 }

// Sender posts events. It is safe for concurrent use.
type Sender struct {
	opts Options
}

// New returns a Sender.
func New(opts Options) *Sender {
	if opts.Client == nil {
		opts.Client = http.DefaultClient
	}
	if opts.RetryAfterMax == 0 {
		opts.RetryAfterMax = DefaultRetryAfterMax
	}
	return &Sender{opts: opts}
}

// Request returns the request that carries the event.
func (s *Sender) Request(ctx context.Context, e *event.Event) (*http.Request, error) {
	body := e.Data
	if s.opts.Structured {
		body = e.AppendJSON(nil)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for _, h := range e.Headers {
		req.Header.Add(h.Name, h.Value)
	}
	if s.opts.UserAgent != "" {
		req.Header.Set("User-Agent", s.opts.UserAgent)
	}
	if s.opts.Structured {
		req.Header.Set("Content-Type", event.ContentTypeJSON)
	} else {
		e.WriteHeader(req.Header)
	}
	return req, nil
}

// Send posts the event, again if need be, and returns its fate. An end of ctx ends it early.
func (s *Sender) Send(ctx context.Context, e *event.Event) Result {
	for n := 1; ; n++ {
		result, again := s.attempt(ctx, e)
		result.Attempts = n
		if !again.worthwhile || n > s.opts.Retries {
			return result
		}
		wait := min(again.wait(n), s.opts.RetryAfterMax)
		select {
		case <-ctx.Done():
			return result
		case <-time.After(wait):
		}
	}
}

// retry says whether an attempt may be repeated.
type retry struct {
	worthwhile bool
	// after is what the answer asked for; negative if it did not.
	after time.Duration
}

// wait returns how long to wait after the n-th attempt.
func (r retry) wait(n int) time.Duration {
	if r.after >= 0 {
		return r.after
	}
	return min(firstBackoff<<min(n-1, 10), maxBackoff)
}

func (s *Sender) attempt(ctx context.Context, e *event.Event) (Result, retry) {
	req, err := s.Request(ctx, e)
	if err != nil {
		return Result{Detail: err.Error()}, retry{}
	}
	start := time.Now()
	resp, err := s.opts.Client.Do(req)
	if err != nil {
		return Result{Detail: err.Error(), Latency: time.Since(start)}, retry{worthwhile: neverSent(err), after: -1}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // A broken explanation does not change the status.
	result := Result{Status: resp.StatusCode, Latency: time.Since(start)}
	if !result.Accepted() {
		result.Detail = explain(resp.Header.Get("Content-Type"), body)
	}
	return result, retry{
		worthwhile: resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable,
		after:      parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// neverSent says whether the request failed before any of it could be sent.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// parseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3); the result is negative without a valid one.
func parseRetryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if t, err := http.ParseTime(text); err == nil {
		return max(0, t.Sub(now))
	}
	return -1
}

// problem is what an RFC 9457 body says, with the extension members of our ingress.
type problem struct {
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Attribute string `json:"attribute"`
	Hint      string `json:"hint"`
}

// explain returns the gist of an answer's body in one line.
func explain(contentType string, body []byte) string {
	var p problem
	if event.IsJSON(contentType) && json.Unmarshal(body, &p) == nil && p.Title+p.Detail != "" {
		return terminal.Safe(p.String())
	}
	const longest = 200
	text := []rune(strings.Join(strings.Fields(terminal.Safe(string(body))), " "))
	if len(text) > longest {
		return string(text[:longest]) + "…"
	}
	return string(text)
}

func (p problem) String() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if p.Attribute != "" && !strings.Contains(text, p.Attribute) {
		text = p.Attribute + ": " + text
	}
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}
