package sender

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

func newEvent(id string) *event.Event {
	e := &event.Event{}
	for _, a := range [][2]string{{event.SpecVersion, "1.0"}, {event.ID, id}, {event.Source, "/s"}, {event.Type, "t"}} {
		e.Set(a[0], a[1], event.String)
	}
	return e
}

// script answers requests in turn, the last answer over and over, and notes when they came.
type script struct {
	answers []answer
	start   time.Time
	at      []time.Duration
}

type answer struct {
	status     int
	retryAfter string
	err        error
}

func (s *script) RoundTrip(*http.Request) (*http.Response, error) {
	s.at = append(s.at, time.Since(s.start))
	a := s.answers[min(len(s.at), len(s.answers))-1]
	if a.err != nil {
		return nil, a.err
	}
	resp := &http.Response{StatusCode: a.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
	if a.retryAfter != "" {
		resp.Header.Set("Retry-After", a.retryAfter)
	}
	return resp, nil
}

func TestRetries(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	const s, ms = time.Second, time.Millisecond
	for _, test := range []struct {
		name    string
		opts    Options
		answers []answer
		want    []time.Duration // when requests are made
		status  int
	}{
		{"accepted", Options{Retries: 3}, []answer{{status: 202}}, []time.Duration{0}, 202},
		{"refused for good", Options{Retries: 3}, []answer{{status: 400}}, []time.Duration{0}, 400},
		{"other server error", Options{Retries: 3}, []answer{{status: 500}}, []time.Duration{0}, 500},
		{"backoff", Options{Retries: 3}, []answer{{status: 503}}, []time.Duration{0, 200 * ms, 600 * ms, 1400 * ms}, 503},
		{
			"backoff is capped",
			Options{Retries: 7},
			[]answer{{status: 503}},
			[]time.Duration{0, 200 * ms, 600 * ms, 1400 * ms, 3 * s, 6200 * ms, 11200 * ms, 16200 * ms},
			503,
		},
		{"no retries", Options{}, []answer{{status: 503}}, []time.Duration{0}, 503},
		{"Retry-After", Options{Retries: 3}, []answer{{status: 429, retryAfter: "7"}, {status: 202}}, []time.Duration{0, 7 * s}, 202},
		{"Retry-After 0", Options{Retries: 3}, []answer{{status: 503, retryAfter: "0"}, {status: 202}}, []time.Duration{0, 0}, 202},
		{"Retry-After is capped", Options{Retries: 1}, []answer{{status: 503, retryAfter: "86400"}}, []time.Duration{0, 30 * s}, 503},
		{"cap of one's own", Options{Retries: 1, RetryAfterMax: s}, []answer{{status: 503, retryAfter: "9"}}, []time.Duration{0, s}, 503},
		{"nobody listens", Options{Retries: 2}, []answer{{err: refused}, {status: 202}}, []time.Duration{0, 200 * ms}, 202},
		{"connection breaks", Options{Retries: 2}, []answer{{err: io.ErrUnexpectedEOF}}, []time.Duration{0}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &script{answers: test.answers, start: time.Now()}
				test.opts.URL, test.opts.Client = "http://test", &http.Client{Transport: server}
				got := New(test.opts).Send(t.Context(), newEvent("a"))
				if diff := cmp.Diff(test.want, server.at); diff != "" {
					t.Errorf("requests at (-want +got):\n%s", diff)
				}
				if got.Status != test.status || got.Attempts != len(test.want) {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

func TestSendEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		server := &script{answers: []answer{{status: 503, retryAfter: "20"}}, start: time.Now()}
		got := New(Options{URL: "http://test", Retries: 9, Client: &http.Client{Transport: server}}).Send(ctx, newEvent("a"))
		if got.Status != 503 || got.Attempts != 1 || time.Since(server.start) != time.Second {
			t.Errorf("got %+v after %v", got, time.Since(server.start))
		}
	})
}

func TestNobodyListens(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	got := New(Options{URL: server.URL}).Send(t.Context(), newEvent("a"))
	if got.Accepted() || got.Status != 0 || !strings.Contains(got.Detail, "connection refused") {
		t.Errorf("got %+v", got)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 14, 20, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              -1,
		"5":                             5 * time.Second,
		"0":                             0,
		"-5":                            -1,
		"1.5":                           -1,
		"soon":                          -1,
		"99999999999999":                -1,
		"Sat, 14 Mar 2026 20:01:00 GMT": time.Minute,
		"Sat, 14 Mar 2026 19:00:00 GMT": 0,
	} {
		if got := parseRetryAfter(text, now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct{ contentType, body, want string }{
		{"application/problem+json", `{"title":"T","detail":"D","attribute":"a","hint":"H"}`, "a: D (H)"},
		{"application/problem+json", `{"title":"T"}`, "T"},
		{"application/problem+json", `{"detail":"type is missing","attribute":"type"}`, "type is missing"},
		{"application/problem+json", `{"detail":"x\u001b[2J"}`, `x\x1b[2J`},
		{"application/json", `{"error":"x"}`, `{"error":"x"}`},
		{"text/plain", " two\n lines ", "two lines"},
		{"", "", ""},
		{"", strings.Repeat("é", 201), strings.Repeat("é", 200) + "…"},
	} {
		if got := explain(test.contentType, []byte(test.body)); got != test.want {
			t.Errorf("%s: got %q, want %q", test.body, got, test.want)
		}
	}
}

func TestRequest(t *testing.T) {
	e := newEvent("a")
	e.Set(event.DataContentType, "text/plain", event.String)
	e.Data = []byte("hello")
	e.Headers = []event.Header{{Name: "Traceparent", Value: "00-1"}}
	for _, structured := range []bool{false, true} {
		req, err := New(Options{URL: "http://test", Structured: structured, UserAgent: "test/1"}).Request(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.DecodeBinary(req.Header, body)
		if structured {
			got, err = event.DecodeJSON(body)
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(got.AppendJSON(nil)) != string(e.AppendJSON(nil)) {
			t.Errorf("structured %t: sent as %s", structured, got.AppendJSON(nil))
		}
		if req.Header.Get("Traceparent") != "00-1" || req.Header.Get("User-Agent") != "test/1" {
			t.Errorf("structured %t: headers %v", structured, req.Header)
		}
	}
}

func TestSummary(t *testing.T) {
	for _, test := range []struct {
		name    string
		results []Result
		invalid int
		want    string
	}{
		{"nothing", nil, 0, "0 accepted\n"},
		{
			"one",
			[]Result{{Status: 202, Attempts: 1, Latency: 2 * time.Millisecond}},
			0,
			"1 accepted, latency p50 2ms p99 2ms\n",
		},
		{"several", []Result{
			{Status: 202, Attempts: 1, Latency: time.Millisecond},
			{Status: 202, Attempts: 3, Latency: time.Millisecond},
			{Status: 200, Attempts: 1, Latency: 3 * time.Millisecond},
			{Status: 503, Attempts: 4, Latency: time.Millisecond},
			{Status: 400, Detail: "first", Attempts: 1, Latency: time.Millisecond},
			{Status: 400, Detail: "second", Attempts: 1, Latency: time.Millisecond},
			{Detail: "connection refused", Attempts: 1},
		}, 2, "3 accepted, 2 events/s, latency p50 1ms p99 3ms, 5 sent again\n" +
			"1 refused: no answer: connection refused\n" +
			"2 refused: 400 Bad Request: first\n" +
			"1 refused: 503 Service Unavailable\n" +
			"2 not sent: see above\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := NewSummary()
			for _, r := range test.results {
				s.Add(r)
			}
			for range test.invalid {
				s.AddInvalid()
			}
			if diff := cmp.Diff(test.want, s.Report(2*time.Second)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestSummaryCountsAll checks that each result is counted once, as accepted or not.
func TestSummaryCountsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		statuses := rapid.SliceOf(rapid.SampledFrom([]int{0, 200, 202, 204, 302, 400, 429, 503})).Draw(t, "statuses")
		s := NewSummary()
		for _, status := range statuses {
			latency := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "latency"))
			s.Add(Result{Status: status, Attempts: 1, Latency: latency})
		}
		accepted, failed := s.Counts()
		ok := slices.DeleteFunc(slices.Clone(statuses), func(status int) bool { return status < 200 || status > 299 })
		if accepted != len(ok) || accepted+failed != len(statuses) {
			t.Fatalf("%d accepted and %d failed of %v", accepted, failed, statuses)
		}
	})
}
