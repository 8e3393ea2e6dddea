package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// memoryStore keeps copies of what is published, unless err is set.
type memoryStore struct {
	mu    sync.Mutex
	err   error
	calls int
	names []*stream.Names
	msgs  []stream.Message
}

func (s *memoryStore) Publish(_ context.Context, to *stream.Names, msgs ...stream.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return s.err
	}
	for _, m := range msgs {
		e := m.Event.Clone()
		e.Data = bytes.Clone(e.Data)
		s.msgs = append(s.msgs, stream.Message{Event: e, ID: m.ID})
		s.names = append(s.names, to)
	}
	return nil
}

// storeFunc is a store that does what a test wants.
type storeFunc func(ctx context.Context) error

func (f storeFunc) Publish(ctx context.Context, _ *stream.Names, _ ...stream.Message) error {
	return f(ctx)
}

var arrival = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

const arrivalText = "2026-01-02T03:04:05.000000006Z"

// newHandler returns a handler that knows the brokers shop/orders and shop/dedup.
func newHandler(store broker.Store, opts broker.Options) *broker.Handler {
	opts.Now = func() time.Time { return arrival }
	h := broker.NewHandler(store, opts)
	h.SetTable(broker.NewTable([]*broker.Broker{
		{Names: stream.NewNames("shop", "orders", "uid-1")},
		{Names: stream.NewNames("shop", "dedup", "uid-2"), Deduplicate: true},
		{Names: stream.NewNames("shop", "small", "uid-3"), MaxEventBytes: 10},
	}))
	return h
}

// post returns a request for a minimal event in binary mode; pairs of headers are added, "-" takes one away.
func post(path, body string, pairs ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	for name, value := range map[string]string{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"} {
		r.Header.Set("ce-"+name, value)
	}
	for i := 0; i < len(pairs); i += 2 {
		if r.Header.Del(pairs[i]); pairs[i+1] != "-" {
			r.Header.Set(pairs[i], pairs[i+1])
		}
	}
	return r
}

// jsonPost returns a request with a JSON body in structured or batch mode.
func jsonPost(path, contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return r
}

const (
	structured = event.ContentTypeJSON
	batch      = event.ContentTypeBatchJSON
)

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// problem is what a refused producer reads.
type problem struct {
	Type, Title, Detail, Hint, Attribute string
	Status                               int
	Index                                *int
}

// wantProblem asserts status and reason, and that the answer is a useful problem document.
func wantProblem(t *testing.T, resp *httptest.ResponseRecorder, reason broker.Reason) problem {
	t.Helper()
	if resp.Code != reason.Status() {
		t.Errorf("got status %d, want %d", resp.Code, reason.Status())
	}
	if got := resp.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("got content type %q", got)
	}
	if retryable := resp.Code == http.StatusTooManyRequests || resp.Code == http.StatusServiceUnavailable; retryable != (resp.Header().Get("Retry-After") != "") {
		t.Errorf("status %d has Retry-After %q", resp.Code, resp.Header().Get("Retry-After"))
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || len(body) > 1024 {
		t.Errorf("body of %d bytes, error %v", len(body), err)
	}
	if strings.Contains(string(body), `\u00`) {
		t.Errorf("the problem is not fit for people: %s", body)
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	if p.Type != "https://millrace.dev/problems/"+reason.String() || p.Status != resp.Code || p.Title == "" || p.Detail == "" {
		t.Errorf("got problem %+v, want one of type %s", p, reason)
	}
	return p
}

func TestAcceptBinary(t *testing.T) { // Rows 3, 5, 9, 10, 11, 13.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	resp := serve(h, post("/shop/orders", "\x00data", "ce-time", "2020-01-01T00:00:00.123456789+02:00",
		"ce-ext", "Gr%C3%BC%C3%9Fe", "Content-Type", "application/weird", "Nats-Msg-Id", "evil", "X-Request-Id", "r1"))
	if body, _ := io.ReadAll(resp.Body); resp.Code != http.StatusAccepted || len(body) != 0 {
		t.Fatalf("got %d %q", resp.Code, body)
	}
	want := []stream.Message{{Event: &event.Event{
		Attributes: []event.Attribute{
			{Name: "specversion", Value: "1.0"},
			{Name: "id", Value: "1"},
			{Name: "source", Value: "/s"},
			{Name: "type", Value: "t"},
			{Name: "time", Value: "2020-01-01T00:00:00.123456789+02:00"},
			{Name: "datacontenttype", Value: "application/weird"},
			{Name: "ext", Value: "Grüße"},
			{Name: "knativebrokerttl", Value: "255", Kind: event.Integer},
			{Name: "knativearrivaltime", Value: arrivalText},
		},
		Headers: []event.Header{{Name: "X-Request-Id", Value: "r1"}},
		Data:    []byte("\x00data"),
	}}}
	if diff := cmp.Diff(want, store.msgs); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	if store.names[0].UID != "uid-1" {
		t.Errorf("stored in the streams of %s", store.names[0].UID)
	}
}

func TestAcceptStructured(t *testing.T) { // Row 5.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	r := jsonPost("/shop/orders", structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","n":5,"data":{ "x" : 1}}`)
	r.Header.Set("Traceparent", "00-1")
	r.Header.Set("Ce-Id", "ignored")
	if resp := serve(h, r); resp.Code != http.StatusAccepted {
		t.Fatalf("got %d", resp.Code)
	}
	e := store.msgs[0].Event
	if e.Value("id") != "1" || string(e.Data) != `{ "x" : 1}` || e.Lookup("n").Kind != event.Integer || len(e.Headers) != 1 {
		t.Errorf("stored %+v", e)
	}
}

func TestAcceptBatch(t *testing.T) { // Row 5.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	one := `{"specversion":"1.0","id":"%d","source":"/s","type":"t","data":"%d"}`
	var docs []string
	for i := range 1000 {
		docs = append(docs, fmt.Sprintf(one, i, i))
	}
	if resp := serve(h, jsonPost("/shop/orders", batch, "["+strings.Join(docs, ",")+"]")); resp.Code != http.StatusAccepted {
		t.Fatalf("got %d", resp.Code)
	}
	if store.calls != 1 || len(store.msgs) != 1000 || string(store.msgs[999].Event.Data) != `"999"` {
		t.Errorf("got %d messages in %d calls", len(store.msgs), store.calls)
	}
	if resp := serve(h, jsonPost("/shop/orders", batch, "[]")); resp.Code != http.StatusAccepted || store.calls != 1 {
		t.Errorf("empty batch: got %d and %d calls to the store", resp.Code, store.calls)
	}
	docs = append(docs, fmt.Sprintf(one, 1000, 0))
	wantProblem(t, serve(h, jsonPost("/shop/orders", batch, "["+strings.Join(docs, ",")+"]")), broker.TooLarge)
}

func TestBatchIsAllOrNothing(t *testing.T) { // Row 5.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	const good = `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
	for bad, attribute := range map[string]string{
		`{"specversion":"1.0","id":"1","source":"/s"}`:                                   "type",
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","knativebrokerttl":"x"}`: "knativebrokerttl",
	} {
		p := wantProblem(t, serve(h, jsonPost("/shop/orders", batch, "["+good+","+bad+","+good+"]")), broker.InvalidEvent)
		if p.Attribute != attribute || p.Index == nil || *p.Index != 1 {
			t.Errorf("got problem %+v", p)
		}
	}
	if store.calls != 0 {
		t.Error("something was stored")
	}
}

func TestVersions(t *testing.T) { // Row 4.
	h := newHandler(&memoryStore{}, broker.Options{})
	for version, want := range map[string]int{"1.0": 202, "0.3": 202, "0.2": 400, "1.1": 400, "2.0": 400, "1": 400} {
		if resp := serve(h, post("/shop/orders", "", "ce-specversion", version)); resp.Code != want {
			t.Errorf("specversion %s: got %d, want %d", version, resp.Code, want)
		}
	}
}

func TestMethods(t *testing.T) { // Row 6.
	h := newHandler(&memoryStore{}, broker.Options{})
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, "BREW"} {
		resp := serve(h, httptest.NewRequest(method, "/shop/orders", nil))
		wantProblem(t, resp, broker.MethodNotAllowed)
		if got := resp.Header().Get("Allow"); got != "POST, HEAD, OPTIONS" {
			t.Errorf("%s: got Allow %q", method, got)
		}
	}
	if resp := serve(h, httptest.NewRequest(http.MethodHead, "/shop/orders", nil)); resp.Code != http.StatusOK {
		t.Errorf("HEAD: got %d", resp.Code)
	}
	if resp := serve(h, httptest.NewRequest(http.MethodHead, "/shop/none", nil)); resp.Code != http.StatusNotFound {
		t.Errorf("HEAD of an unknown broker: got %d", resp.Code)
	}
	resp := serve(h, httptest.NewRequest(http.MethodOptions, "/shop/orders", nil))
	for name, want := range map[string]string{"Allow": "POST, OPTIONS", "WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": "*"} {
		if got := resp.Header().Get(name); resp.Code != http.StatusOK || got != want {
			t.Errorf("OPTIONS: got %d and %s: %q, want %q", resp.Code, name, got, want)
		}
	}
}

func TestInvalid(t *testing.T) { // Rows 7, 13.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	for _, attribute := range []string{"specversion", "id", "source", "type"} {
		for _, value := range []string{"-", ""} {
			p := wantProblem(t, serve(h, post("/shop/orders", "", "ce-"+attribute, value)), broker.InvalidEvent)
			if p.Attribute != attribute || p.Hint == "" || p.Index != nil {
				t.Errorf("%s %q: got problem %+v", attribute, value, p)
			}
		}
	}
	p := wantProblem(t, serve(h, post("/shop/orders", "", "ce-bad_name", "x")), broker.InvalidEvent)
	if p.Attribute != "bad_name" {
		t.Errorf("got problem %+v", p)
	}
	twice := post("/shop/orders", "")
	twice.Header.Add("ce-id", "2")
	if p := wantProblem(t, serve(h, twice), broker.InvalidEvent); p.Attribute != "id" {
		t.Errorf("got problem %+v", p)
	}
	long := post("/shop/orders", "", "ce-"+strings.Repeat("a", 9000), "\x01")
	wantProblem(t, serve(h, long), broker.InvalidEvent)
	wantProblem(t, serve(h, jsonPost("/shop/orders", structured, "{")), broker.InvalidEvent)
	wantProblem(t, serve(h, jsonPost("/shop/orders", structured, "")), broker.InvalidEvent)
	if store.calls != 0 {
		t.Error("something was stored")
	}
}

func TestPaths(t *testing.T) { // Row 8.
	h := newHandler(&memoryStore{}, broker.Options{})
	for path, reason := range map[string]broker.Reason{
		"/":                       broker.UnknownBroker,
		"/shop/none":              broker.UnknownBroker,
		"/other/orders":           broker.UnknownBroker,
		"/shop/or%2Fders":         broker.UnknownBroker,
		"/shop/%FF%00%0A":         broker.UnknownBroker,
		"/shop":                   broker.BadPath,
		"/shop/":                  broker.BadPath,
		"//orders":                broker.BadPath,
		"/shop/orders/":           broker.BadPath,
		"/shop/orders/more":       broker.BadPath,
		"/shop/" + longName():     broker.UnknownBroker,
		"/shop/orders/../orders/": broker.BadPath,
	} {
		t.Run(path[:min(len(path), 30)], func(t *testing.T) {
			wantProblem(t, serve(h, post(path, "")), reason)
		})
	}
	if resp := serve(h, post("/shop/orders?x=y", "")); resp.Code != http.StatusAccepted {
		t.Errorf("with a query: got %d", resp.Code)
	}
}

func longName() string { return strings.Repeat("n", 5000) }

func TestNotLoaded(t *testing.T) {
	h := broker.NewHandler(&memoryStore{}, broker.Options{})
	if h.Loaded() {
		t.Error("loaded before it has a table")
	}
	wantProblem(t, serve(h, post("/shop/orders", "")), broker.NotLoaded)
	h.SetTable(broker.NewTable(nil))
	if !h.Loaded() {
		t.Error("not loaded with an empty table")
	}
	wantProblem(t, serve(h, post("/shop/orders", "")), broker.UnknownBroker)
}

func TestHopLimit(t *testing.T) { // Row 10.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	serve(h, post("/shop/orders", "", "ce-knativebrokerttl", "17", "ce-knativearrivaltime", "2001-01-01T00:00:00Z"))
	if e := store.msgs[0].Event; e.Value("knativebrokerttl") != "16" || e.Value("knativearrivaltime") != "2001-01-01T00:00:00Z" {
		t.Errorf("stored %+v", e)
	}
	for _, used := range []string{"1", "0", "-1"} {
		wantProblem(t, serve(h, post("/shop/orders", "", "ce-knativebrokerttl", used)), broker.HopLimit)
	}
	p := wantProblem(t, serve(h, post("/shop/orders", "", "ce-knativebrokerttl", "x")), broker.InvalidEvent)
	if p.Attribute != "knativebrokerttl" {
		t.Errorf("got problem %+v", p)
	}
	if got := h.Stats().Refused[broker.HopLimit]; got != 3 {
		t.Errorf("counted %d drops, want 3", got)
	}
}

func TestSizes(t *testing.T) { // Row 12.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	mib := strings.Repeat("x", 1<<20)
	for _, r := range []*http.Request{
		post("/shop/orders", mib),
		chunked(post("/shop/orders", mib)),
		jsonPost("/shop/orders", structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"`+mib[2:]+`"}`),
		post("/shop/small", "0123456789"),
		post("/shop/orders", "", "ce-big", strings.Repeat("x", stream.MaxHeaderBytes-400)),
		post("/shop/orders", "", "ce-big", strings.Repeat("%C3%BC", stream.MaxHeaderBytes/6-400)),
	} {
		if resp := serve(h, r); resp.Code != http.StatusAccepted {
			body, _ := io.ReadAll(resp.Body)
			t.Errorf("got %d %s", resp.Code, body)
		}
	}
	if string(store.msgs[1].Event.Data) != mib {
		t.Error("a chunked body was not kept whole")
	}
	accepted := store.calls
	for _, r := range []*http.Request{
		post("/shop/orders", mib+"x"),
		chunked(post("/shop/orders", mib+"x")),
		jsonPost("/shop/orders", structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"`+mib+`"}`),
		jsonPost("/shop/orders", structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"`+mib+mib+mib+`"}`),
		jsonPost("/shop/orders", batch, "["+strings.Repeat(" ", 9<<20)+"]"),
		post("/shop/small", "01234567890"),
		post("/shop/orders", "", "ce-big", strings.Repeat("x", 64<<10)),
		jsonPost("/shop/orders", structured, `{"specversion":"1.0","id":"1","source":"/s","type":"t","big":"`+strings.Repeat("ü", 12<<10)+`"}`),
		jsonPost("/shop/orders", batch, `[{"specversion":"1.0","id":"1","source":"/s","type":"t","big":"`+strings.Repeat(" ", 30<<10)+`"}]`),
		post("/shop/orders", "", "ce-big", strings.Repeat("x", stream.MaxHeaderBytes-3000), "Traceparent", strings.Repeat("x", 4000)),
	} {
		p := wantProblem(t, serve(h, r), broker.TooLarge)
		if !strings.ContainsAny(p.Detail, "0123456789") {
			t.Errorf("detail names no limit: %q", p.Detail)
		}
	}
	if store.calls != accepted {
		t.Error("something too large was stored")
	}
}

// chunked hides the length of the body.
func chunked(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

func TestUnsupportedMedia(t *testing.T) {
	h := newHandler(&memoryStore{}, broker.Options{})
	wantProblem(t, serve(h, post("/shop/orders", "", "Content-Encoding", "gzip")), broker.UnsupportedMedia)
	wantProblem(t, serve(h, jsonPost("/shop/orders", "application/cloudevents+xml", "<event/>")), broker.UnsupportedMedia)
	if resp := serve(h, post("/shop/orders", "", "Content-Encoding", "identity")); resp.Code != http.StatusAccepted {
		t.Errorf("identity: got %d", resp.Code)
	}
}

func TestStoreErrors(t *testing.T) { // Rows 2, 12.
	const nothing, unknown = "Nothing was stored", "may or may not be stored"
	for _, tc := range []struct {
		err    error
		reason broker.Reason
		detail string
	}{
		{fmt.Errorf("x: %w", stream.ErrFull), broker.StoreFull, nothing},
		{fmt.Errorf("x: %w", stream.ErrUnavailable), broker.StoreUnavailable, unknown},
		{fmt.Errorf("%w: %w", stream.ErrNotSent, stream.ErrUnavailable), broker.StoreUnavailable, nothing},
		{fmt.Errorf("x: %w", stream.ErrBusy), broker.StoreBusy, nothing},
		{fmt.Errorf("x: %w", stream.ErrTooLarge), broker.TooLarge, nothing},
		{fmt.Errorf("x: %w", &stream.SizeError{What: "y", Size: 2, Limit: 1}), broker.TooLarge, nothing},
		{errors.New("anything else"), broker.StoreUnavailable, unknown},
	} {
		h := newHandler(&memoryStore{err: tc.err}, broker.Options{})
		p := wantProblem(t, serve(h, post("/shop/orders", "")), tc.reason)
		if !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("%v: got detail %q, want %q in it", tc.err, p.Detail, tc.detail)
		}
		if s := h.Stats(); s.Refused[tc.reason] != 1 || s.AcceptedEvents != 0 {
			t.Errorf("%v: got stats %+v", tc.err, s)
		}
	}
}

func TestClientGone(t *testing.T) {
	store := storeFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	h := newHandler(store, broker.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantProblem(t, serve(h, post("/shop/orders", "").WithContext(ctx)), broker.ClientGone)
}

func TestBrokenBody(t *testing.T) {
	h := newHandler(&memoryStore{}, broker.Options{})
	r := post("/shop/orders", "")
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("half"), errReader{}))
	wantProblem(t, serve(h, r), broker.BadBody)
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestInFlightBounds(t *testing.T) { // Row 12.
	for name, opts := range map[string]broker.Options{
		"requests": {MaxInFlightRequests: 1},
		"bytes":    {MaxInFlightBytes: 1 << 16},
	} {
		t.Run(name, func(t *testing.T) {
			entered, leave := make(chan struct{}), make(chan struct{})
			h := newHandler(storeFunc(func(context.Context) error {
				entered <- struct{}{}
				<-leave
				return nil
			}), opts)
			big := strings.Repeat("x", 1<<16) // Alone it is let in although it fills the window.
			done := make(chan int)
			go func() { done <- serve(h, post("/shop/orders", big)).Code }()
			<-entered
			wantProblem(t, serve(h, post("/shop/orders", big)), broker.Overload)
			wantProblem(t, serve(h, chunked(post("/shop/orders", big))), broker.Overload)
			close(leave)
			if status := <-done; status != http.StatusAccepted {
				t.Errorf("got status %d for the first", status)
			}
			if s := h.Stats(); s.InFlightBytes != 0 || s.InFlightRequests != 0 || s.Refused[broker.Overload] != 2 {
				t.Errorf("got stats %+v", s)
			}
		})
	}
}

func TestChunkedBodyLeavesWhenWindowFills(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	h := newHandler(storeFunc(func(context.Context) error {
		if calls.Add(1) == 1 {
			close(entered)
			<-leave
		}
		return nil
	}), broker.Options{MaxInFlightBytes: 64 << 10})
	done := make(chan int)
	go func() { done <- serve(h, post("/shop/orders", "small")).Code }()
	<-entered
	wantProblem(t, serve(h, chunked(post("/shop/orders", strings.Repeat("x", 128<<10)))), broker.Overload)
	if resp := serve(h, chunked(post("/shop/orders", "small"))); resp.Code != http.StatusAccepted {
		t.Errorf("got %d for a small one", resp.Code)
	}
	close(leave)
	if status := <-done; status != http.StatusAccepted {
		t.Errorf("got status %d for the first", status)
	}
}

func TestDeduplication(t *testing.T) { // Row 14.
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	for _, r := range []*http.Request{
		post("/shop/orders", ""),
		post("/shop/dedup", ""),
		post("/shop/dedup", "other data", "ce-type", "other"),
		post("/shop/dedup", "", "ce-id", "11"),
		post("/shop/dedup", "", "ce-source", "/s1"),
		post("/shop/dedup", "", "ce-source", "/sa", "ce-id", "b"),
		post("/shop/dedup", "", "ce-source", "/s", "ce-id", "ab"),
	} {
		serve(h, r)
	}
	ids := map[string]bool{}
	for _, m := range store.msgs[1:] {
		ids[m.ID] = true
	}
	if store.msgs[0].ID != "" {
		t.Error("de-duplication is on though nobody asked for it")
	}
	if len(ids) != 5 || len(store.msgs[1].ID) != 32 || store.msgs[1].ID != store.msgs[2].ID {
		t.Errorf("got ids %v", ids)
	}
}

func TestStats(t *testing.T) {
	h := newHandler(&memoryStore{}, broker.Options{})
	serve(h, post("/shop/orders", "12345"))
	const one = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":123}`
	serve(h, jsonPost("/shop/orders", batch, "["+one+","+one+"]"))
	serve(h, post("/shop/none", ""))
	s := h.Stats()
	if s.AcceptedRequests != 2 || s.AcceptedEvents != 3 || s.AcceptedBytes != 11 || s.Refused[broker.UnknownBroker] != 1 {
		t.Errorf("got %+v", s)
	}
	labels := map[string]bool{}
	for reason := range s.Refused {
		labels[reason.String()] = true
	}
	if len(labels) != 15 {
		t.Errorf("got %d different labels of reasons: %v", len(labels), labels)
	}
}

func TestWarnings(t *testing.T) {
	var out bytes.Buffer
	h := newHandler(&memoryStore{err: stream.ErrFull}, broker.Options{Logger: slog.New(slog.NewJSONHandler(&out, nil))})
	for range 10 {
		serve(h, post("/shop/orders", "secret", "ce-subject", "secret"))
	}
	serve(h, post("/shop/none", ""))
	if n := strings.Count(out.String(), "\n"); n != 1 || strings.Contains(out.String(), "secret") {
		t.Errorf("got %d records:\n%s", n, out.String())
	}
}

func TestExpectContinue(t *testing.T) {
	store := &memoryStore{}
	server := httptest.NewServer(newHandler(store, broker.Options{}))
	defer server.Close()
	r := post("/shop/orders", "")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/shop/orders", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.Header
	req.Header.Set("Expect", "100-continue")
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted || string(store.msgs[0].Event.Data) != "body" {
		t.Errorf("got %s", resp.Status)
	}
}

func TestBuffersAreNotMixedUp(t *testing.T) {
	store := &memoryStore{}
	h := newHandler(store, broker.Options{})
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			body := strings.Repeat(strconv.Itoa(i), 100*(i+1))
			for range 100 {
				serve(h, post("/shop/orders", body, "ce-id", strconv.Itoa(i)))
			}
		})
	}
	group.Wait()
	for _, m := range store.msgs {
		id := m.Event.Value("id")
		if i, _ := strconv.Atoi(id); string(m.Event.Data) != strings.Repeat(id, 100*(i+1)) {
			t.Fatalf("event %s has the data of another", id)
		}
	}
	if len(store.msgs) != 800 {
		t.Errorf("got %d events, want 800", len(store.msgs))
	}
}

// nullWriter is a response that costs nothing.
type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header         { return w.header }
func (w *nullWriter) WriteHeader(status int)      { w.status = status }
func (w *nullWriter) Write(p []byte) (int, error) { return len(p), nil }

func TestAllocations(t *testing.T) {
	h := newHandler(storeFunc(func(context.Context) error { return nil }), broker.Options{})
	data := strings.Repeat("x", 1024)
	reader := strings.NewReader(data)
	r := post("/shop/orders", data, "Content-Type", "application/json", "ce-time", "2020-01-01T00:00:00Z", "ce-subject", "s",
		"ce-partitionkey", "k", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	r.Body = io.NopCloser(reader)
	w := &nullWriter{header: http.Header{}}
	got := testing.AllocsPerRun(1000, func() {
		reader.Reset(data)
		h.ServeHTTP(w, r)
		if w.status != http.StatusAccepted {
			t.Fatalf("got status %d", w.status)
		}
	})
	t.Logf("binary event: %.0f allocations", got)
	if got > 25 {
		t.Errorf("got %.0f allocations, want at most 25", got)
	}
}
