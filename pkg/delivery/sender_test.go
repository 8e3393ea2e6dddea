package delivery

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

func mustURL(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// testEvent is an event as the store has it.
func testEvent() *event.Event {
	e := &event.Event{
		Headers: []event.Header{{Name: "Traceparent", Value: "00-aa-bb-01"}, {Name: "X-Request-Id", Value: "r1"}},
		Data:    []byte(`{"total": 12}`),
	}
	for _, a := range [][2]string{
		{event.SpecVersion, "1.0"},
		{event.ID, "1"},
		{event.Source, "/shop"},
		{event.Type, "order.created"},
		{event.Time, "2026-03-01T12:00:00.123456789Z"},
		{event.DataContentType, "application/json"},
		{event.ArrivalTime, "2026-03-01T12:00:01Z"},
		{"region", "eu"},
	} {
		e.Set(a[0], a[1], event.String)
	}
	e.Set(event.HopLimit, "254", event.Integer)
	return e
}

// subscriber starts a server and returns a Sender that may reach it and a request for it.
func subscriber(t testing.TB, h http.HandlerFunc) (*Sender, *Request) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s := NewSender(Options{AllowLoopback: true, Version: "1.2.3"})
	t.Cleanup(s.Close)
	return s, &Request{
		URL: mustURL(t, server.URL+"/path?query=1"), Event: testEvent(), Namespace: "shop", Timeout: 5 * time.Second,
	}
}

// received is a request as a subscriber saw it.
type received struct {
	method, uri, body string
	length            int64
	encoding          []string
	header            http.Header
}

func record(to *received, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*to = received{r.Method, r.RequestURI, string(body), r.ContentLength, r.TransferEncoding, r.Header}
		w.WriteHeader(status)
	}
}

func TestSendBinary(t *testing.T) {
	var got received
	s, r := subscriber(t, record(&got, http.StatusAccepted))
	before := testEvent()
	result := s.Send(t.Context(), r)
	if result.Err != nil || result.Status != http.StatusAccepted || result.Duration <= 0 || result.Ignored != 0 {
		t.Errorf("result %+v", result)
	}
	want := received{
		method: "POST", uri: "/path?query=1", body: `{"total": 12}`, length: 13,
		header: http.Header{
			"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/shop"}, "Ce-Type": {"order.created"},
			"Ce-Time": {"2026-03-01T12:00:00.123456789Z"}, "Content-Type": {"application/json"},
			"Ce-Knativearrivaltime": {"2026-03-01T12:00:01Z"}, "Ce-Region": {"eu"},
			"Traceparent": {"00-aa-bb-01"}, "X-Request-Id": {"r1"},
			"Prefer": {"reply"}, "Kn-Namespace": {"shop"}, "User-Agent": {"millrace/1.2.3"}, "Content-Length": {"13"},
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(received{})); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, r.Event); diff != "" {
		t.Errorf("the event was changed (-want +got):\n%s", diff)
	}
}

func TestSendStructured(t *testing.T) {
	var got received
	s, r := subscriber(t, record(&got, http.StatusOK))
	r.Format = Structured
	before := testEvent()
	if result := s.Send(t.Context(), r); result.Err != nil {
		t.Fatal(result.Err)
	}
	e, err := event.DecodeJSON([]byte(got.body))
	if err != nil {
		t.Fatal(err)
	}
	if e.Value(event.ID) != "1" || e.Value("region") != "eu" || e.Lookup(event.HopLimit) != nil {
		t.Errorf("body %s", got.body)
	}
	if ct := got.header.Get("Content-Type"); ct != event.ContentTypeJSON {
		t.Errorf("Content-Type %q", ct)
	}
	for name := range got.header {
		if strings.HasPrefix(name, "Ce-") {
			t.Errorf("header %s in structured mode", name)
		}
	}
	if got.header.Get("Traceparent") == "" || got.header.Get("Kn-Namespace") != "shop" {
		t.Errorf("headers %v", got.header)
	}
	if got.length != int64(len(got.body)) || len(got.encoding) > 0 {
		t.Errorf("Content-Length %d, Transfer-Encoding %v", got.length, got.encoding)
	}
	if diff := cmp.Diff(before, r.Event); diff != "" {
		t.Errorf("the event was changed (-want +got):\n%s", diff)
	}
}

func TestSendWithoutData(t *testing.T) {
	var got received
	s, r := subscriber(t, record(&got, http.StatusOK))
	r.Event.Data = nil
	if result := s.Send(t.Context(), r); result.Err != nil {
		t.Fatal(result.Err)
	}
	if got.header.Get("Content-Length") != "0" || len(got.encoding) > 0 {
		t.Errorf("Content-Length %q, Transfer-Encoding %v", got.header.Get("Content-Length"), got.encoding)
	}
}

func TestRequestHeaders(t *testing.T) {
	var got received
	s, r := subscriber(t, record(&got, http.StatusOK))
	r.URL.User = url.UserPassword("me", "secret")
	r.NoReply = true
	r.Headers = []event.Header{{Name: "traceparent", Value: "00-cc-dd-01"}}
	if result := s.Send(t.Context(), r); result.Err != nil {
		t.Fatal(result.Err)
	}
	for name, want := range map[string]string{
		"Prefer": "", "Traceparent": "00-cc-dd-01", "Authorization": "Basic bWU6c2VjcmV0",
	} {
		if v := strings.Join(got.header[name], ","); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

// TestHostileHeaders gives an event headers that would end the header, speak for the connection, or pose as an
// attribute. The request has to be the one it would be without them.
func TestHostileHeaders(t *testing.T) {
	var clean received
	s, r := subscriber(t, record(&clean, http.StatusOK))
	r.Event.Headers = nil
	s.Send(t.Context(), r)

	values := []string{
		"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "\r\n\r\nGET / HTTP/1.1", "a\x00b", "a\x0bb", "a\x7fb", "a\x1bb",
		"a\r\n\tfold", "\x01",
	}
	names := []string{
		"", " ", "X Y", "X:Y", "X\r\nY", "X\nY", "X\x00Y", "Xé", "X(", "X/Y", "X\tY", ":authority", "X-Ok\r",
	}
	reserved := []string{
		"Host", "host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "TE",
		"Trailer", "Expect", "Proxy-Authorization", "Proxy-Connection", "Authorization", "Cookie", "Content-Type",
		"Content-Encoding", "User-Agent", "Prefer", "Kn-Namespace", "Ce-Id", "ce-id", "CE-SOURCE", "ce-evil",
		"Ce-Knativebrokerttl", "Idempotency-Key", "X-Idempotency-Key",
	}
	var hostile []event.Header
	for _, v := range values {
		hostile = append(hostile, event.Header{Name: "Knative-X", Value: v}, event.Header{Name: "X-B3-Traceid", Value: v})
	}
	for _, n := range names {
		hostile = append(hostile, event.Header{Name: n, Value: "evil"})
	}
	for _, n := range reserved {
		hostile = append(hostile, event.Header{Name: n, Value: "chunked"}, event.Header{Name: n, Value: "7"})
	}
	t.Logf("%d headers", len(hostile))
	for _, h := range hostile {
		t.Run(fmt.Sprintf("%q=%q", h.Name, h.Value), func(t *testing.T) {
			var got received
			s, r := subscriber(t, record(&got, http.StatusOK))
			r.Event.Headers = []event.Header{h}
			if result := s.Send(t.Context(), r); result.Err != nil {
				t.Fatalf("the event is lost: %v", result.Err)
			}
			if diff := cmp.Diff(clean, got, cmp.AllowUnexported(received{})); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHostileAttributes(t *testing.T) {
	// In memory an attribute may be anything: the store is written by other programs, too.
	tests := []event.Attribute{
		{Name: "x", Value: "a\r\nX-Evil: 1", Wire: "a\r\nX-Evil: 1"},
		{Name: "x", Value: "a", Wire: "a\nb"},
		{Name: "x", Value: "a", Wire: "a\x00b"},
		{Name: "x\r\ny", Value: "a"},
		{Name: "x y", Value: "a"},
		{Name: "x:y", Value: "a"},
		{Name: "", Value: "a\r\n", Wire: "a\r\n"},
		{Name: event.DataContentType, Value: "text/plain\r\nX-Evil: 1"},
	}
	var visits atomic.Int64
	s, r := subscriber(t, func(_ http.ResponseWriter, r *http.Request) {
		visits.Add(1)
		if r.Header.Get("X-Evil") != "" {
			t.Error("a header was injected")
		}
	})
	for _, a := range tests {
		r.Event = testEvent()
		r.Event.Remove(a.Name)
		r.Event.Attributes = append(r.Event.Attributes, a)
		if result := s.Send(t.Context(), r); !errors.Is(result.Err, ErrUnsendable) {
			t.Errorf("%+q: %+v, want ErrUnsendable", a, result)
		}
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("%d requests arrived", n)
	}
	// A value alone is encoded, and so can be anything.
	r.Event = testEvent()
	r.Event.Set("x", "a\r\nX-Evil: 1", event.String)
	if result := s.Send(t.Context(), r); result.Err != nil || visits.Load() != 1 {
		t.Errorf("result %+v, %d visits", result, visits.Load())
	}
}

func TestReplies(t *testing.T) {
	binary := http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"2"}, "Ce-Source": {"/sub"}, "Ce-Type": {"order.priced"},
		"Content-Type": {"text/plain"}, "Ce-Knativebrokerttl": {"9999"}, "Traceparent": {"00-ee-ff-01"},
	}
	without := func(name string) http.Header {
		h := maps.Clone(binary)
		delete(h, name)
		return h
	}
	structured := http.Header{"Content-Type": {"application/cloudevents+json; charset=utf-8"}}
	const document = `{"specversion":"1.0","id":"2","source":"/sub","type":"order.priced"}`
	tests := []struct {
		name    string
		status  int
		header  http.Header
		body    string
		noReply bool
		reply   bool
		data    string
		ignored Ignored
	}{
		{name: "binary", status: 200, header: binary, body: "hello", reply: true, data: "hello"},
		{name: "binary without data", status: 200, header: binary, reply: true},
		{name: "structured", status: 200, header: structured, body: document, reply: true},
		{name: "nothing", status: 200},
		{name: "no content", status: 204},
		{name: "structured, but empty", status: 200, header: structured},
		{name: "text", status: 200, header: http.Header{"Content-Type": {"text/plain"}}, body: "ok", ignored: IgnoredNotEvent},
		{name: "JSON", status: 200, header: http.Header{"Content-Type": {"application/json"}}, body: document, ignored: IgnoredNotEvent},
		{name: "body without a type", status: 200, body: "ok", ignored: IgnoredNotEvent},
		{name: "text with another 2xx", status: 202, body: "ok", ignored: IgnoredNotEvent},
		{name: "binary, id missing", status: 200, header: without("Ce-Id"), body: "x", ignored: IgnoredInvalid},
		{name: "binary, specversion missing", status: 200, header: without("Ce-Specversion"), body: "x", ignored: IgnoredNotEvent},
		{name: "structured, not JSON", status: 200, header: structured, body: "ok", ignored: IgnoredInvalid},
		{name: "structured, not an event", status: 200, header: structured, body: "{}", ignored: IgnoredInvalid},
		{
			name: "batch", status: 200, header: http.Header{"Content-Type": {"application/cloudevents-batch+json"}},
			body: "[" + document + "]", ignored: IgnoredFormat,
		},
		{
			name: "XML", status: 200, header: http.Header{"Content-Type": {"application/cloudevents+xml"}}, body: "<event/>",
			ignored: IgnoredFormat,
		},
		{name: "binary with 202", status: 202, header: binary, body: "hello", ignored: IgnoredStatus},
		{name: "structured with 201", status: 201, header: structured, body: document, ignored: IgnoredStatus},
		{name: "unwanted", status: 200, header: binary, body: "hello", noReply: true, ignored: IgnoredUnwanted},
		{name: "nothing, unwanted", status: 200, noReply: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r := subscriber(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				maps.Copy(w.Header(), tt.header)
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			r.NoReply = tt.noReply
			got := s.Send(t.Context(), r)
			if got.Err != nil || got.Status != tt.status || got.Ignored != tt.ignored {
				t.Errorf("status %d, ignored %q, error %v; want %d, %q", got.Status, got.Ignored, got.Err, tt.status, tt.ignored)
			}
			if (got.IgnoredErr != nil) != (tt.ignored == IgnoredInvalid) {
				t.Errorf("IgnoredErr = %v", got.IgnoredErr)
			}
			if !tt.reply {
				if got.Reply != nil {
					t.Errorf("reply %+v", got.Reply)
				}
				return
			}
			if got.Reply == nil {
				t.Fatal("no reply")
			}
			if got.Reply.Value(event.ID) != "2" || string(got.Reply.Data) != tt.data {
				t.Errorf("reply %+v", got.Reply)
			}
			if limit := got.Reply.Lookup(event.HopLimit); limit == nil || limit.Value != "254" || limit.Kind != event.Integer {
				t.Errorf("hop limit %+v, want that of the request", limit)
			}
		})
	}
}

func TestReplyKeepsItsTrace(t *testing.T) {
	s, r := subscriber(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", event.ContentTypeJSON)
		w.Header().Set("Traceparent", "00-ee-ff-01")
		_, _ = io.WriteString(w, `{"specversion":"1.0","id":"2","source":"/sub","type":"t"}`)
	})
	r.Event.Remove(event.HopLimit)
	got := s.Send(t.Context(), r)
	if got.Reply == nil {
		t.Fatalf("no reply: %+v", got)
	}
	if diff := cmp.Diff([]event.Header{{Name: "Traceparent", Value: "00-ee-ff-01"}}, got.Reply.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got.Reply.Lookup(event.HopLimit) != nil {
		t.Error("a hop limit out of nowhere")
	}
}

func TestReplySize(t *testing.T) {
	const limit = 4096
	respond := func(data, extension int, chunked bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range map[string]string{
				"Ce-Specversion": "1.0", "Ce-Id": "2", "Ce-Source": "/sub", "Ce-Type": "t", "Content-Type": "text/plain",
			} {
				w.Header().Set(name, value)
			}
			if extension > 0 {
				w.Header().Set("Ce-Big", strings.Repeat("x", extension))
			}
			if chunked {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = w.Write(make([]byte, data))
		}
	}
	tests := []struct {
		name      string
		data, ext int
		chunked   bool
		tooLarge  bool
	}{
		{"at the limit", limit, 0, false, false},
		{"at the limit, chunked", limit, 0, true, false},
		{"over the limit", limit + 1, 0, false, true},
		{"over the limit, chunked", limit + 1, 0, true, true},
		{"endless", 64 << 20, 0, true, true},
		{"large attributes", 1, 60 << 10, false, false},
		{"attributes over the limit", 1, 65 << 10, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r := subscriber(t, respond(tt.data, tt.ext, tt.chunked))
			s.maxReply = limit
			got := s.Send(t.Context(), r)
			if errors.Is(got.Err, ErrReplyTooLarge) != tt.tooLarge || (got.Reply == nil) != tt.tooLarge {
				t.Errorf("error %v, reply %t", got.Err, got.Reply != nil)
			}
			if d := Decide(DefaultPolicy(), 1, got, 0); tt.tooLarge && (d.Action != GiveUp || d.Code != 500) {
				t.Errorf("decision %+v", d)
			}
		})
	}
}

func TestResponseHeaderIsBounded(t *testing.T) {
	s, r := subscriber(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 1000 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	})
	if got := s.Send(t.Context(), r); got.Err == nil || Classify(got.Status, got.Err) != Retry {
		t.Errorf("result %+v, want an error to retry", got)
	}
}

func TestErrorBody(t *testing.T) {
	for _, size := range []int{0, 1, 1023, 1024, 1025, 100 << 10, 10 << 20} {
		s, r := subscriber(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		})
		got := s.Send(t.Context(), r)
		if got.Err != nil || got.Status != 503 || got.RetryAfter != 7*time.Second {
			t.Errorf("%d bytes: %+v", size, got)
		}
		if want := bytes.Repeat([]byte("x"), min(size, 1024)); !bytes.Equal(got.Body, want) {
			t.Errorf("%d bytes: body of %d, want %d", size, len(got.Body), len(want))
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var visits atomic.Int64
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		s, r := subscriber(t, func(w http.ResponseWriter, _ *http.Request) {
			visits.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		got := s.Send(t.Context(), r)
		if got.Status != status || got.Err != nil || visits.Swap(0) != 1 {
			t.Errorf("%d: %+v", status, got)
		}
	}
}

func TestSwitchingProtocolsIsRejected(t *testing.T) {
	s, r := raw(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	if got := s.Send(t.Context(), r); got.Err == nil && Classify(got.Status, nil) != Reject {
		t.Errorf("result %+v", got)
	}
}

// raw starts a server that reads a request and answers with the given bytes, then closes the connection.
func raw(t *testing.T, answer string) (*Sender, *Request) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(c, answer)
			}
			_ = c.Close()
		}
	}()
	s := NewSender(Options{AllowLoopback: true})
	t.Cleanup(s.Close)
	return s, &Request{URL: mustURL(t, "http://"+l.Addr().String()), Event: testEvent(), Timeout: 5 * time.Second}
}

func TestBrokenAnswers(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nCe-Specversion: 1.0\r\nCe-Id: 2\r\nCe-Source: /s\r\nCe-Type: t\r\n"
	tests := []struct {
		name, answer string
		want         Outcome
	}{
		{"nothing", "", Retry},
		{"noise", "hello\r\n\r\n", Retry},
		{"half a header", "HTTP/1.1 200 OK\r\nX: y", Retry},
		{"a reply cut off", head + "Content-Length: 10\r\n\r\nhalf", Retry},
		{"a chunked reply cut off", head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhalf", Retry},
		{"an unwanted body cut off", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Delivered},
		{"an error body cut off", "HTTP/1.1 400 Bad Request\r\nContent-Length: 10\r\n\r\nhalf", Reject},
		{"duplicate attribute in a reply", head + "ce-id: 3\r\nContent-Length: 0\r\n\r\n", Delivered},
		{"odd status", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", Retry},
		{"informational first", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Delivered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, r := raw(t, tt.answer)
			got := s.Send(t.Context(), r)
			if outcome := Classify(got.Status, got.Err); outcome != tt.want {
				t.Errorf("outcome %v of %+v, want %v", outcome, got, tt.want)
			}
		})
	}
}

// FuzzAnswer reads arbitrary bytes as an answer.
func FuzzAnswer(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\nCe-Specversion: 1.0\r\nCe-Id: 2\r\nCe-Source: /s\r\nCe-Type: t\r\n"
	f.Add([]byte(head+"Content-Length: 2\r\n\r\nok"), false)
	f.Add([]byte(head+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), false)
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/cloudevents+json\r\n\r\n"+
		`{"specversion":"1.0","id":"2","source":"/s","type":"t","data":{}}`), false)
	f.Add([]byte("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"), true)
	f.Add([]byte("HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\nbusy"), false)
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"), false)
	s := NewSender(Options{MaxReplyBytes: 1 << 10})
	f.Fuzz(func(t *testing.T, data []byte, noReply bool) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		a := answer{
			sender: s, request: &Request{Event: testEvent(), NoReply: noReply}, response: resp, cancel: func() {},
		}
		got := a.read()
		if got.Reply != nil {
			if got.Status != 200 || noReply || got.Err != nil || got.Ignored != IgnoredNothing || len(got.Reply.Data) > 1<<10 {
				t.Errorf("a reply in %+v", got)
			}
			if err := got.Reply.Validate(); err != nil || got.Reply.Value(event.HopLimit) != "254" {
				t.Errorf("reply %+v: %v", got.Reply, err)
			}
		}
		if len(got.Body) > maxBody || got.RetryAfter < 0 || got.Err != nil && got.Status != 200 {
			t.Errorf("result %+v", got)
		}
	})
}

func TestUnreachable(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := NewSender(Options{AllowLoopback: true, Resolver: nameServer(t, nil)})
	defer s.Close()
	for _, text := range []string{"http://" + l.Addr().String(), "http://no-such-host.test/"} {
		got := s.Send(t.Context(), &Request{URL: mustURL(t, text), Event: testEvent()})
		if got.Status != 0 || got.Reason() != ReasonNetwork || got.Code() != 500 || Classify(0, got.Err) != Retry {
			t.Errorf("%s: %+v", text, got)
		}
	}
	got := s.Send(t.Context(), &Request{URL: mustURL(t, "bad://host"), Event: testEvent()})
	if d := Decide(DefaultPolicy(), 1, got, 0); d.Action != GiveUp || d.Code != 500 || d.Reason != ReasonURL {
		t.Errorf("bad URL: %+v", d)
	}
}

// piped starts a server on in-memory connections, so that it can be part of a synctest bubble.
func piped(t *testing.T, h http.HandlerFunc) *Sender {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: h, IdleTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	s := NewSender(Options{dial: l.dial})
	t.Cleanup(func() {
		s.Close()
		_ = server.Close()
	})
	return s
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// hang blocks until the client is gone, which a server notices only once it has read the request.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestTimeouts(t *testing.T) {
	hangAfter := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if header != "" {
				w.Header().Set("Content-Type", header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		timeout time.Duration
		want    Outcome
		reason  Reason
		takes   time.Duration
	}{
		{"no answer", hang, 7 * time.Second, Retry, ReasonTimeout, 7 * time.Second},
		{"no answer, default timeout", hang, 0, Retry, ReasonTimeout, time.Minute},
		{
			"reply that never ends", hangAfter(200, event.ContentTypeJSON, "{"), 7 * time.Second,
			Retry, ReasonTimeout, 7 * time.Second,
		},
		{"unwanted body that never ends", hangAfter(202, "", "ok"), 7 * time.Second, Delivered, ReasonNone, drainTime},
		{"error body that never ends", hangAfter(500, "", "oops"), 7 * time.Second, Retry, ReasonStatus, drainTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := piped(t, tt.handler)
				r := &Request{URL: mustURL(t, "http://sub.test/"), Event: testEvent(), Timeout: tt.timeout}
				got := s.Send(t.Context(), r)
				if outcome := Classify(got.Status, got.Err); outcome != tt.want || got.Reason() != tt.reason {
					t.Errorf("outcome %v, reason %v, error %v", outcome, got.Reason(), got.Err)
				}
				if got.Duration != tt.takes {
					t.Errorf("took %v, want %v", got.Duration, tt.takes)
				}
				if got.Status == 500 && string(got.Body) != "oops" {
					t.Errorf("body %q", got.Body)
				}
			})
		})
	}
}

func TestAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := piped(t, hang)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("shutting down")) })
		got := s.Send(ctx, &Request{URL: mustURL(t, "http://sub.test/"), Event: testEvent()})
		if d := Decide(DefaultPolicy(), 1, got, 0); d.Action != Leave {
			t.Errorf("decision %+v on %v", d, got.Err)
		}
		if !strings.Contains(got.Err.Error(), "shutting down") {
			t.Errorf("error %v does not say why", got.Err)
		}
	})
}

// TestBackoffSchedule runs an event against a subscriber that is down for a while, in the time its policy takes.
func TestBackoffSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := piped(t, func(w http.ResponseWriter, _ *http.Request) {
			if time.Since(start) < 3*time.Second {
				w.WriteHeader(http.StatusBadGateway)
			}
		})
		r := &Request{URL: mustURL(t, "http://sub.test/"), Event: testEvent()}
		var at []time.Duration
		for attempt := 1; ; attempt++ {
			at = append(at, time.Since(start))
			d := Decide(DefaultPolicy(), attempt, s.Send(t.Context(), r), 0.5)
			if d.Action != RetryIn {
				break
			}
			time.Sleep(d.Delay)
		}
		const ms = time.Millisecond
		want := []time.Duration{0, 200 * ms, 600 * ms, 1400 * ms, 3000 * ms}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("attempts at (-want +got):\n%s", diff)
		}
	})
}

// TestConnectionsAreReused covers every kind of answer that ends within bounds.
func TestConnectionsAreReused(t *testing.T) {
	var conns atomic.Int64
	answers := []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 30<<10)) },
		func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("x", 5000), http.StatusBadGateway)
		},
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", event.ContentTypeJSON)
			_, _ = io.WriteString(w, `{"specversion":"1.0","id":"2","source":"/sub","type":"t"}`)
		},
	}
	var next int
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answers[next%len(answers)](w, r)
		next++
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	s := NewSender(Options{AllowLoopback: true})
	defer s.Close()
	for range 4 * len(answers) {
		if got := s.Send(t.Context(), &Request{URL: mustURL(t, server.URL), Event: testEvent()}); got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestClosedIdleConnection has the server close its side of a kept connection between two attempts.
func TestClosedIdleConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var visits atomic.Int64
		s := piped(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			visits.Add(1)
		})
		for range 5 {
			got := s.Send(t.Context(), &Request{URL: mustURL(t, "http://sub.test/"), Event: testEvent()})
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			time.Sleep(10 * time.Second)
		}
		if n := visits.Load(); n != 5 {
			t.Errorf("%d visits", n)
		}
	})
}

// TestUnwritableConnection has a kept connection turn out broken at the first byte of the next attempt.
func TestUnwritableConnection(t *testing.T) {
	var broken atomic.Bool
	var visits, dials atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) == string(testEvent().Data) {
			visits.Add(1)
		}
	}))
	defer server.Close()
	s := NewSender(Options{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &fragileConn{c, &broken}, err
	}})
	defer s.Close()
	for i := range 3 {
		broken.Store(i > 0)
		got := s.Send(t.Context(), &Request{URL: mustURL(t, server.URL), Event: testEvent()})
		if got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	if visits.Load() != 3 || dials.Load() != 3 {
		t.Errorf("%d visits over %d connections", visits.Load(), dials.Load())
	}
}

// fragileConn fails one write when it is broken.
type fragileConn struct {
	net.Conn
	broken *atomic.Bool
}

func (c *fragileConn) Write(b []byte) (int, error) {
	if c.broken.CompareAndSwap(true, false) {
		return 0, errors.New("broken")
	}
	return c.Conn.Write(b)
}

// TestNoHiddenRetries has the server die after it has read the request, over a connection that was used before: the one
// case in which net/http could send the event a second time unasked.
func TestNoHiddenRetries(t *testing.T) {
	var visits atomic.Int64
	s, r := subscriber(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if visits.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	if got := s.Send(t.Context(), r); got.Err != nil {
		t.Fatal(got.Err)
	}
	if got := s.Send(t.Context(), r); got.Err == nil || visits.Load() != 2 {
		t.Errorf("%d visits, %+v", visits.Load(), got)
	}
}

func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	s := NewSender(Options{})
	if s.plain.Proxy != nil || s.multiplexed.Proxy != nil || s.secure.Proxy != nil {
		t.Error("a proxy function is set")
	}
}

func TestTLSAndHTTP2(t *testing.T) {
	proto := make(chan string, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto <- r.Proto })
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	cleartext := httptest.NewUnstartedServer(handler)
	cleartext.Config.Protocols = new(http.Protocols)
	cleartext.Config.Protocols.SetHTTP1(true)
	cleartext.Config.Protocols.SetUnencryptedHTTP2(true)
	cleartext.Start()
	defer cleartext.Close()

	tests := []struct {
		name, url string
		options   Options
		cleartext bool
		want      string
	}{
		{"TLS", secure.URL, Options{RootCAs: roots}, false, "HTTP/2.0"},
		{"TLS all the same", secure.URL, Options{RootCAs: roots}, true, "HTTP/2.0"},
		{"cleartext", cleartext.URL, Options{}, false, "HTTP/1.1"},
		{"cleartext HTTP/2", cleartext.URL, Options{}, true, "HTTP/2.0"},
		{"unknown authority", secure.URL, Options{}, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.options.AllowLoopback = true
			s := NewSender(tt.options)
			defer s.Close()
			got := s.Send(t.Context(), &Request{URL: mustURL(t, tt.url), Event: testEvent(), HTTP2Cleartext: tt.cleartext})
			if tt.want == "" {
				if got.Reason() != ReasonNetwork {
					t.Errorf("result %+v", got)
				}
				return
			}
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			if p := <-proto; p != tt.want {
				t.Errorf("%s, want %s", p, tt.want)
			}
		})
	}
}

// TestSharedEvent delivers one event to many subscribers at a time, in both formats; the race detector watches.
func TestSharedEvent(t *testing.T) {
	s, r := subscriber(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type"} {
			if v := r.Header.Get(name); v != "" {
				w.Header().Set(name, v)
			}
		}
		_, _ = io.Copy(w, r.Body)
	})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			mine := *r
			mine.Format = Format(i % 2)
			got := s.Send(t.Context(), &mine)
			if got.Err != nil {
				t.Error(got.Err)
			}
			if got.Reply != nil {
				got.Reply.Set(event.HopLimit, "1", event.Integer)
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff(testEvent(), r.Event); diff != "" {
		t.Errorf("the event was changed (-want +got):\n%s", diff)
	}
}

func TestErrorsKeepSecrets(t *testing.T) {
	s := NewSender(Options{Resolver: nameServer(t, nil)})
	defer s.Close()
	for _, text := range []string{"http://me:secret@127.0.0.1:1/", "http://me:secret@no-such-host.test/", "x://me:secret@h"} {
		got := s.Send(t.Context(), &Request{URL: mustURL(t, text), Event: testEvent()})
		if got.Err == nil || strings.Contains(got.Err.Error(), "secret") {
			t.Errorf("%v", got.Err)
		}
	}
}

func TestLabelsAreDistinct(t *testing.T) {
	var labels []string
	for r := ReasonStatus; r <= ReasonAbandoned; r++ {
		labels = append(labels, r.String())
	}
	for i := IgnoredNotEvent; i <= IgnoredUnwanted; i++ {
		labels = append(labels, "ignored "+i.String())
	}
	slices.Sort(labels)
	if n := len(slices.Compact(slices.Clone(labels))); n != len(labels) || slices.Contains(labels, "unknown") {
		t.Errorf("labels %q", labels)
	}
}

// sendAllocs is what an attempt may allocate, in Send and in net/http. It guards against a step backwards; most of it,
// as BenchmarkRoundTrip shows, is net/http's. The race detector adds three to the 50 of others.
const sendAllocs = 53

func TestSendAllocs(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a quiet process")
	}
	server := newNullServer(t)
	s := NewSender(Options{AllowLoopback: true})
	defer s.Close()
	r := &Request{URL: mustURL(t, "http://"+server), Event: testEvent(), Namespace: "shop"}
	allocs := testing.AllocsPerRun(200, func() {
		if got := s.Send(t.Context(), r); got.Err != nil {
			t.Fatal(got.Err)
		}
	})
	t.Logf("%.0f allocations an attempt", allocs)
	if allocs > sendAllocs {
		t.Errorf("%.0f allocations an attempt, want at most %d", allocs, sendAllocs)
	}
}

// newNullServer starts a server that answers 202 to whatever has an empty line and a body of len(testEvent().Data) in
// it. It does not allocate, so that measurements are those of the client.
func newNullServer(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // A testing.TB of a benchmark has no other need of it.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	body := len(testEvent().Data)
	answer := []byte("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveNull(c, body, answer)
		}
	}()
	return l.Addr().String()
}

func serveNull(c net.Conn, body int, answer []byte) {
	defer func() { _ = c.Close() }()
	end := []byte("\r\n\r\n")
	buf, n := make([]byte, 64<<10), 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		if i := bytes.Index(buf[:n], end); i < 0 || n < i+len(end)+body {
			continue
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func BenchmarkSend(b *testing.B) {
	server := newNullServer(b)
	s := NewSender(Options{AllowLoopback: true})
	defer s.Close()
	r := &Request{URL: mustURL(b, "http://"+server), Event: testEvent(), Namespace: "shop"}
	b.ReportAllocs()
	for b.Loop() {
		if got := s.Send(b.Context(), r); got.Err != nil {
			b.Fatal(got.Err)
		}
	}
}

// BenchmarkRoundTrip is what the least request with a body and a timeout costs in net/http.
func BenchmarkRoundTrip(b *testing.B) {
	server := newNullServer(b)
	s := NewSender(Options{AllowLoopback: true})
	defer s.Close()
	u, data := mustURL(b, "http://"+server), testEvent().Data
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		req := (&http.Request{
			Method: http.MethodPost, URL: u, Header: http.Header{}, ContentLength: int64(len(data)), Body: newBody(data),
		}).WithContext(ctx)
		resp, err := s.plain.RoundTrip(req)
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
}

func BenchmarkSendParallel(b *testing.B) {
	server := newNullServer(b)
	s := NewSender(Options{AllowLoopback: true})
	defer s.Close()
	r := &Request{URL: mustURL(b, "http://"+server), Event: testEvent(), Namespace: "shop"}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if got := s.Send(b.Context(), r); got.Err != nil {
				b.Error(got.Err)
				return
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	p, r := DefaultPolicy(), Result{Status: 503, RetryAfter: time.Second}
	for b.Loop() {
		Decide(p, 3, r, 0.5)
	}
}

// TestHost sends the Host header asked for to the host of the URL.
func TestHost(t *testing.T) {
	hosts := make(chan string, 1)
	s, r := subscriber(t, func(_ http.ResponseWriter, r *http.Request) { hosts <- r.Host })
	r.Host = "events.example.com"
	if result := s.Send(t.Context(), r); result.Status != http.StatusOK {
		t.Fatalf("result %+v", result)
	}
	if got := <-hosts; got != "events.example.com" {
		t.Errorf("Host %q", got)
	}
}

// TestNewDialer holds a dialer to the addresses that a Sender may dial.
func TestNewDialer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	address := server.Listener.Addr().String()
	if _, err := NewDialer(Options{}).DialContext(t.Context(), "tcp", address); !errors.Is(err, ErrDenied) {
		t.Errorf("loopback: %v", err)
	}
	conn, err := NewDialer(Options{AllowLoopback: true}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
