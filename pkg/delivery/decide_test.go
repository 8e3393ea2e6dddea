package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClassifyEveryStatus(t *testing.T) {
	retried := map[int]bool{404: true, 408: true, 409: true, 429: true}
	for status := -1; status < 1100; status++ {
		want := Reject
		switch {
		case status >= 200 && status <= 299:
			want = Delivered
		case retried[status] || status >= 500 || status < 100:
			want = Retry
		}
		if got := Classify(status, nil); got != want {
			t.Errorf("Classify(%d) = %v, want %v", status, got, want)
		}
	}
}

func TestClassifyErrors(t *testing.T) {
	tests := []struct {
		err    error
		want   Outcome
		reason Reason
	}{
		{errors.New("connection refused"), Retry, ReasonNetwork},
		{io.ErrUnexpectedEOF, Retry, ReasonNetwork},
		{context.DeadlineExceeded, Retry, ReasonNetwork},
		{ErrTimeout, Retry, ReasonTimeout},
		{ErrURL, Reject, ReasonURL},
		{ErrDenied, Reject, ReasonDenied},
		{ErrUnsendable, Reject, ReasonUnsendable},
		{ErrReplyTooLarge, Reject, ReasonReplyTooLarge},
		{ErrAbandoned, Abandoned, ReasonAbandoned},
	}
	for _, tt := range tests {
		// An error counts before a status, whatever it is wrapped in.
		for _, status := range []int{0, 200, 400, 500} {
			r := Result{Status: status, Err: fmt.Errorf("attempt: %w", tt.err)}
			if got := Classify(r.Status, r.Err); got != tt.want {
				t.Errorf("Classify(%d, %v) = %v, want %v", status, tt.err, got, tt.want)
			}
			if got := r.Reason(); got != tt.reason {
				t.Errorf("Reason of %v = %v, want %v", tt.err, got, tt.reason)
			}
			if got := r.Code(); got != http.StatusInternalServerError {
				t.Errorf("Code of %v = %d, want 500", tt.err, got)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	policy := Policy{Retries: 2, BackoffDelay: time.Second, RetryAfterMax: 30 * time.Second}
	deaf := policy
	deaf.RetryAfterMax = 0
	tests := []struct {
		name    string
		policy  Policy
		attempt int
		result  Result
		want    Decision
	}{
		{"success", policy, 1, Result{Status: 202}, Decision{Action: Done}},
		{"success at the last attempt", policy, 3, Result{Status: 200}, Decision{Action: Done}},
		{
			"first failure", policy, 1,
			Result{Status: 503},
			Decision{Action: RetryIn, Delay: time.Second, Reason: ReasonStatus},
		},
		{
			"second failure", policy, 2,
			Result{Status: 404},
			Decision{Action: RetryIn, Delay: 2 * time.Second, Reason: ReasonStatus},
		},
		{
			"third and last failure", policy, 3,
			Result{Status: 503},
			Decision{Action: GiveUp, Code: 503, Reason: ReasonStatus, Exhausted: true},
		},
		{
			"more attempts than there may be", policy, 9,
			Result{Status: 503},
			Decision{Action: GiveUp, Code: 503, Reason: ReasonStatus, Exhausted: true},
		},
		{
			"no retries",
			Policy{},
			1,
			Result{Err: io.EOF},
			Decision{Action: GiveUp, Code: 500, Reason: ReasonNetwork, Exhausted: true},
		},
		{"not retryable", policy, 1, Result{Status: 400}, Decision{Action: GiveUp, Code: 400, Reason: ReasonStatus}},
		{"redirect", policy, 1, Result{Status: 307}, Decision{Action: GiveUp, Code: 307, Reason: ReasonStatus}},
		{"denied", policy, 1, Result{Err: ErrDenied}, Decision{Action: GiveUp, Code: 500, Reason: ReasonDenied}},
		{
			"reply that cannot be stored", policy, 1,
			Result{Status: 200, Err: errors.New("store is full")},
			Decision{Action: RetryIn, Delay: time.Second, Reason: ReasonNetwork},
		},
		{"abandoned", policy, 3, Result{Err: ErrAbandoned}, Decision{Action: Leave, Reason: ReasonAbandoned}},
		{
			"Retry-After", policy, 1,
			Result{Status: 429, RetryAfter: 20 * time.Second},
			Decision{Action: RetryIn, Delay: 20 * time.Second, Reason: ReasonStatus},
		},
		{
			"long Retry-After", policy, 1,
			Result{Status: 503, RetryAfter: time.Hour},
			Decision{Action: RetryIn, Delay: 30 * time.Second, Reason: ReasonStatus},
		},
		{
			"Retry-After shorter than the backoff", policy, 2,
			Result{Status: 503, RetryAfter: time.Second},
			Decision{Action: RetryIn, Delay: 2 * time.Second, Reason: ReasonStatus},
		},
		{
			"Retry-After is not asked for", deaf, 1,
			Result{Status: 503, RetryAfter: time.Minute},
			Decision{Action: RetryIn, Delay: time.Second, Reason: ReasonStatus},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Decide(tt.policy, tt.attempt, tt.result, 0.5); got != tt.want {
				t.Errorf("Decide = %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestAttemptsAreExact follows an event that always fails to its end.
func TestAttemptsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		p.Retries = rapid.IntRange(0, 50).Draw(t, "retries")
		status := rapid.SampledFrom([]int{404, 408, 409, 429, 500, 503, 599}).Draw(t, "status")
		attempts := 1
		for Decide(p, attempts, Result{Status: status}, 0.5).Action == RetryIn {
			attempts++
		}
		if attempts != 1+p.Retries {
			t.Fatalf("%d attempts with %d retries", attempts, p.Retries)
		}
	})
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	tests := map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"1":                              time.Second,
		" 120 ":                          2 * time.Minute,
		"007":                            7 * time.Second,
		"-1":                             0,
		"+1":                             0,
		"1.5":                            0,
		"1e3":                            0,
		"1s":                             0,
		"0x10":                           0,
		"soon":                           0,
		"1, 2":                           0,
		"\u0663":                         0,
		"315360000":                      longest,
		"315360001":                      longest,
		"99999999999999999999999":        longest,
		"Sun, 01 Mar 2026 12:00:30 GMT":  30 * time.Second,
		"Sunday, 01-Mar-26 12:00:30 GMT": 30 * time.Second,
		"Sun Mar  1 12:00:30 2026":       30 * time.Second,
		"Sun, 01 Mar 2026 12:00:00 GMT":  0,
		"Sun, 01 Mar 2026 11:59:59 GMT":  0,
		"Thu, 01 Jan 1970 00:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  longest,
		"2026-03-01T12:00:30Z":           0,
		"Sun, 01 Mar 2026 12:00:30":      0,
		"Sun, 32 Mar 2026 12:00:30 GMT":  0,
	}
	for value, want := range tests {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

func TestRetryAfterCountsFor429And503Only(t *testing.T) {
	h := http.Header{"Retry-After": {"5"}}
	for status := 100; status < 600; status++ {
		want := time.Duration(0)
		if status == 429 || status == 503 {
			want = 5 * time.Second
		}
		if got := retryAfter(status, h, time.Now()); got != want {
			t.Errorf("retryAfter(%d) = %v, want %v", status, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "5", "-5", "99999999999999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "Sun, 01"} {
		f.Add(s)
	}
	now := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, value string) {
		if got := parseRetryAfter(value, now); got < 0 || got > longest {
			t.Errorf("parseRetryAfter(%q) = %v", value, got)
		}
	})
}

func FuzzDecide(f *testing.F) {
	f.Add(10, int64(200*time.Millisecond), int64(5*time.Minute), int64(0), false, 3, 503, uint8(0), int64(0), 0.5)
	f.Add(0, int64(0), int64(0), int64(0), true, 1, 200, uint8(1), int64(math.MaxInt64), math.NaN())
	f.Add(math.MaxInt, int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MaxInt64), false, 1000, 429, uint8(0),
		int64(math.MaxInt64), math.Inf(1))
	f.Add(-1, int64(-1), int64(-1), int64(-1), true, -1, -1, uint8(9), int64(-1), -1.0)
	errs := []error{
		nil, io.EOF, ErrTimeout, ErrURL, ErrDenied, ErrUnsendable, ErrReplyTooLarge, ErrAbandoned,
	}
	f.Fuzz(func(t *testing.T, retries int, delay, most, retryAfterMax int64, linear bool, attempt, status int,
		which uint8, retryAfter int64, jitter float64,
	) {
		p := Policy{
			Retries: retries, BackoffDelay: time.Duration(delay), BackoffMax: time.Duration(most),
			RetryAfterMax: time.Duration(retryAfterMax),
		}
		if linear {
			p.Backoff = Linear
		}
		r := Result{Status: status, Err: errs[int(which)%len(errs)], RetryAfter: time.Duration(retryAfter)}
		d := Decide(p, attempt, r, jitter)
		if again := Decide(p, attempt, r, jitter); again != d {
			t.Fatalf("Decide is not a function: %+v and %+v", d, again)
		}
		outcome := Classify(r.Status, r.Err)
		switch d.Action {
		case Done:
			if outcome != Delivered || d.Reason != ReasonNone {
				t.Errorf("%+v for the outcome %v", d, outcome)
			}
		case RetryIn:
			if outcome != Retry || attempt > retries || d.Delay < 0 || d.Reason == ReasonNone {
				t.Errorf("%+v for the outcome %v of attempt %d", d, outcome, attempt)
			}
		case GiveUp:
			if d.Reason == ReasonNone || d.Exhausted != (outcome == Retry) || d.Exhausted && attempt <= retries {
				t.Errorf("%+v for the outcome %v of attempt %d", d, outcome, attempt)
			}
		case Leave:
			if outcome != Abandoned {
				t.Errorf("%+v for the outcome %v", d, outcome)
			}
		}
	})
}
