package display

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

var update = flag.Bool("update", false, "write what is displayed to testdata")

// message is a request as it goes over the wire.
type message struct {
	header map[string]string
	body   string
}

func binary(id, contentType, body string) message {
	m := message{header: map[string]string{
		"ce-specversion": "1.0", "ce-id": id, "ce-source": "/s", "ce-type": "com.example.t",
	}, body: body}
	if contentType != "" {
		m.header["Content-Type"] = contentType
	}
	return m
}

func structured(contentType, body string) message {
	return message{header: map[string]string{"Content-Type": contentType}, body: body}
}

func post(h http.Handler, m message) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(m.body))
	for name, value := range m.header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// gallery is one message of each sort.
func gallery() []message {
	full := binary("full", "application/json; charset=utf-8", `{"user":"mia","n":[1,2.50],"wide":"日本"}`)
	full.header["ce-subject"] = "room-42"
	full.header["ce-time"] = "2026-03-14T20:00:01.120000000+01:00"
	full.header["ce-dataschema"] = "https://example.com/schema"
	full.header["ce-tenant"] = "%C3%BC"
	full.header["ce-knativearrivaltime"] = "2026-03-14T19:00:01Z"
	return []message{
		full,
		binary("no-data", "", ""),
		binary("text", "text/plain", "two\nlines\n"),
		binary("hostile", "text/plain", "\x1b]0;title\x07\r\x1b[2Jgone"),
		binary("broken-json", "application/json", `{"a":`),
		binary("bytes", "image/png", "\x89PNG\r\n\x1a\n"+strings.Repeat("\x00\xff", 40)),
		binary("long", "application/json", `{"text":"`+strings.Repeat("0123456789", 20)+`"}`),
		structured("application/cloudevents+json; charset=utf-8",
			"{\"specversion\":\"1.0\",\"id\":\"structured\",\"source\":\"/s\",\"type\":\"t\",\"n\":5,\"flag\":true,\"data\":{\n  \"pretty\": 1e3\n}}"),
		structured("application/cloudevents-batch+json",
			`[{"specversion":"1.0","id":"batch-1","source":"/s","type":"t"},{"specversion":"0.3","id":"batch-2","source":"/s","type":"t","data":"x"}]`),
		structured("application/cloudevents-batch+json", `[]`),
		structured("application/cloudevents+xml", `<event/>`),
		binary("", "", ""),
	}
}

func TestFormats(t *testing.T) {
	for _, test := range []struct {
		file string
		opts Options
	}{
		{"block.txt", Options{}},
		{"block_named.txt", Options{Name: "analytics", Style: terminal.Colored()}},
		{"compact.txt", Options{Format: Compact}},
		{"compact_named.txt", Options{Format: Compact, Name: "analytics", Style: terminal.Colored()}},
		{"json.txt", Options{Format: JSON, Name: "analytics", Style: terminal.Colored()}},
		{"yaml.txt", Options{Format: YAML, Name: "analytics", Style: terminal.Colored()}},
		{"id.txt", Options{Format: ID, Name: "analytics", Style: terminal.Colored()}},
	} {
		t.Run(test.file, func(t *testing.T) {
			var out bytes.Buffer
			test.opts.Out = &out
			h := New(test.opts)
			for _, m := range gallery() {
				post(h, m)
			}
			compareGolden(t, filepath.Join("testdata", test.file), out.Bytes())
			want := Counts{Events: 10, Refused: 2}
			if diff := cmp.Diff(want, h.Counts()); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run `go test ./internal/cli/display -update` if this is right (-want +got):\n%s", diff)
	}
}

// TestJSONLines checks that what is printed for scripts are the events that came, one a line.
func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	h := New(Options{Out: &out, Format: JSON})
	for _, m := range gallery() {
		post(h, m)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 10 {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	for _, line := range lines {
		if _, err := event.DecodeJSON([]byte(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name string
		opts Options
		in   message
		want int
	}{
		{"default", Options{}, binary("a", "", ""), 200},
		{"status", Options{Status: 202}, binary("a", "", ""), 202},
		{"empty batch", Options{Status: 202}, structured("application/cloudevents-batch+json", "[]"), 202},
		{"failing", Options{FailRate: 1}, binary("a", "", ""), 500},
		{"fail status", Options{FailRate: 1, FailStatus: 429}, binary("a", "", ""), 429},
		{"not an event", Options{}, binary("", "", ""), 400},
		{"unknown format", Options{}, structured("application/cloudevents+avro", "x"), 400},
		{"too large", Options{MaxBytes: 3}, binary("a", "text/plain", "four"), 413},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := post(New(test.opts), test.in).Code; got != test.want {
				t.Errorf("answered %d, want %d", got, test.want)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	for method, want := range map[string]int{
		http.MethodGet: 200, http.MethodHead: 200, http.MethodOptions: 200, http.MethodPut: 405, http.MethodDelete: 405,
	} {
		w := httptest.NewRecorder()
		New(Options{}).ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != want {
			t.Errorf("%s: answered %d, want %d", method, w.Code, want)
		}
		if method == http.MethodOptions && w.Header().Get("WebHook-Allowed-Origin") != "*" {
			t.Errorf("OPTIONS: headers %v", w.Header())
		}
	}
}

func TestFailFirst(t *testing.T) {
	var out bytes.Buffer
	h := New(Options{Out: &out, Format: Compact, FailFirst: 2})
	var got []string
	for _, id := range []string{"a", "b", "a", "a", "b", "b"} {
		got = append(got, fmt.Sprint(id, " ", post(h, binary(id, "", "")).Code))
	}
	want := []string{"a 500", "b 500", "a 500", "a 200", "b 500", "b 200"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Counts{Events: 6, Failed: 4}, h.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	if n := strings.Count(out.String(), "→ answered 500 on purpose"); n != 4 {
		t.Errorf("%d failures are shown:\n%s", n, out.String())
	}
	if len(h.failed) != 0 {
		t.Errorf("events that succeeded are still remembered: %v", h.failed)
	}
}

func TestFailRate(t *testing.T) {
	numbers := []float64{0.1, 0.29, 0.3, 0.9}
	next := func() float64 { n := numbers[0]; numbers = numbers[1:]; return n }
	h := New(Options{FailRate: 0.3, Random: next})
	for i, want := range []int{500, 500, 200, 200} {
		if got := post(h, binary("a", "", "")).Code; got != want {
			t.Errorf("delivery %d: answered %d, want %d", i, got, want)
		}
	}
}

func TestReply(t *testing.T) {
	var out bytes.Buffer
	h := New(Options{Out: &out, Format: Compact, Status: 202, Reply: ReplyWith("com.example.reply")})
	m := binary("a", "application/json", `{"n":1}`)
	m.header["ce-subject"] = "room"
	w := post(h, m)
	reply, err := event.DecodeBinary(w.Header(), w.Body.Bytes())
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("answered %d, %v", w.Code, err)
	}
	if id := reply.Value(event.ID); id == "a" || id == "" {
		t.Errorf("the reply has the id %q", id)
	}
	reply.Set(event.ID, "new", event.String)
	const want = `{"specversion":"1.0","id":"new","source":"/s","type":"com.example.reply","subject":"room",` +
		`"datacontenttype":"application/json","data":{"n":1}}`
	if got := string(reply.AppendJSON(nil)); got != want {
		t.Errorf("the reply is %s", got)
	}
	if !strings.Contains(out.String(), "→ replied com.example.reply") {
		t.Errorf("the reply is not shown: %s", out.String())
	}
}

func TestNoReplyToFailure(t *testing.T) {
	h := New(Options{FailFirst: 1, Reply: ReplyWith("t")})
	if w := post(h, binary("a", "", "")); w.Code != 500 || w.Header().Get("Ce-Type") != "" {
		t.Errorf("answered %d with %v", w.Code, w.Header())
	}
}

func TestOnEvent(t *testing.T) {
	var ids []string
	h := New(Options{FailFirst: 1, OnEvent: func(e *event.Event) { ids = append(ids, e.Value(event.ID)) }})
	for range 2 {
		post(h, binary("a", "", ""))
	}
	if diff := cmp.Diff([]string{"a"}, ids); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Delay: time.Minute})
		start := time.Now()
		if got := post(h, binary("a", "", "")).Code; got != 200 || time.Since(start) != time.Minute {
			t.Errorf("answered %d after %v", got, time.Since(start))
		}
	})
}

func TestDelayEndsWithClient(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx)
	for name, value := range binary("a", "", "").header {
		r.Header.Set(name, value)
	}
	h := New(Options{Delay: time.Hour, OnEvent: func(*event.Event) { t.Error("the delivery was never answered") }})
	h.ServeHTTP(httptest.NewRecorder(), r)
	if h.Counts().Events != 1 {
		t.Error("the event was not shown")
	}
}

func Example() {
	h := New(Options{Out: os.Stdout, Format: Compact})
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"amount": 5}`))
	r.Header.Set("ce-specversion", "1.0")
	r.Header.Set("ce-id", "gift-7")
	r.Header.Set("ce-source", "/apps/ios")
	r.Header.Set("ce-type", "com.example.gift.sent")
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(httptest.NewRecorder(), r)
	// Output: com.example.gift.sent  gift-7  {"amount":5}
}
