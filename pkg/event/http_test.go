package event_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

// header returns the headers of a minimal event with the given pairs added; a value of "-" takes a header away.
func header(pairs ...string) http.Header {
	h := http.Header{}
	h.Set("ce-specversion", "1.0")
	h.Set("ce-id", "1")
	h.Set("ce-source", "/s")
	h.Set("ce-type", "t")
	for i := 0; i < len(pairs); i += 2 {
		if h.Del(pairs[i]); pairs[i+1] != "-" {
			h.Set(pairs[i], pairs[i+1])
		}
	}
	return h
}

// wantError asserts that err is an *event.Error about the attribute.
func wantError(t *testing.T, err error, attribute string) {
	t.Helper()
	var bad *event.Error
	if !errors.As(err, &bad) {
		t.Fatalf("got error %v, want an *event.Error about %q", err, attribute)
	}
	if bad.Attribute != attribute {
		t.Errorf("got error about %q (%v), want one about %q", bad.Attribute, err, attribute)
	}
	if bad.Detail == "" || len(bad.Error()) > 512 {
		t.Errorf("unhelpful error: %q", bad.Error())
	}
}

func TestDetectMode(t *testing.T) {
	for contentType, want := range map[string]event.Mode{
		"":                             event.ModeBinary,
		"application/json":             event.ModeBinary,
		"application/cloudevents+json": event.ModeStructured,
		" Application/CloudEvents+JSON ; charset=utf-8": event.ModeStructured,
		"application/cloudevents-batch+json":            event.ModeBatch,
		"application/cloudevents-BATCH+json;x=y":        event.ModeBatch,
		"application/cloudevents+xml":                   event.ModeUnsupported,
		"application/cloudevents+avro":                  event.ModeUnsupported,
		"application/cloudevents":                       event.ModeUnsupported,
		"application/cloudevents-batch+protobuf":        event.ModeUnsupported,
		"text/application/cloudevents+json":             event.ModeBinary,
	} {
		if got := event.DetectMode(contentType); got != want {
			t.Errorf("DetectMode(%q) = %d, want %d", contentType, got, want)
		}
	}
}

func TestIsJSON(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/json":                true,
		"APPLICATION/JSON; charset=utf-8": true,
		"text/json":                       true,
		"application/vnd.order+json ;v=1": true,
		"":                                false,
		"application/jsonl":               false,
		"text/plain; x=+json":             false,
	} {
		if got := event.IsJSON(contentType); got != want {
			t.Errorf("IsJSON(%q) = %t, want %t", contentType, got, want)
		}
	}
}

func TestDecodeBinary(t *testing.T) {
	h := header("Content-Type", "text/weird;;", "ce-time", "2020-02-29T23:59:60.123456789+01:00", "ce-subject", "a b",
		"Ce-ZExt", "1", "ce-aext", "x", "Nats-Msg-Id", "evil", "X-Other", "no", "Traceparent", "00-1")
	got, err := event.DecodeBinary(h, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	want := &event.Event{
		Attributes: []event.Attribute{
			{Name: "specversion", Value: "1.0"},
			{Name: "id", Value: "1"},
			{Name: "source", Value: "/s"},
			{Name: "type", Value: "t"},
			{Name: "subject", Value: "a b", Wire: "a b"},
			{Name: "time", Value: "2020-02-29T23:59:60.123456789+01:00"},
			{Name: "datacontenttype", Value: "text/weird;;"},
			{Name: "aext", Value: "x"},
			{Name: "zext", Value: "1"},
		},
		Headers: []event.Header{{Name: "Traceparent", Value: "00-1"}},
		Data:    []byte("body"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded event (-want +got):\n%s", diff)
	}
}

func TestDecodeBinaryEmptyBody(t *testing.T) {
	e, err := event.DecodeBinary(header("Content-Type", ""), []byte{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Data != nil || e.Lookup(event.DataContentType) != nil {
		t.Errorf("got data %v and content type %q, want neither", e.Data, e.Value(event.DataContentType))
	}
}

func TestDecodeBinaryRefuses(t *testing.T) {
	for _, tc := range []struct{ name, value, attribute string }{
		{"ce-specversion", "-", "specversion"},
		{"ce-specversion", "", "specversion"},
		{"ce-specversion", "0.2", "specversion"},
		{"ce-specversion", "1.1", "specversion"},
		{"ce-id", "-", "id"},
		{"ce-id", "", "id"},
		{"ce-source", "-", "source"},
		{"ce-source", "", "source"},
		{"ce-source", "http://[bad", "source"},
		{"ce-source", "/has space", "source"},
		{"ce-source", "/caf\u00e9", "source"},
		{"ce-source", "10.0.0.1:80", "source"},
		{"ce-type", "-", "type"},
		{"ce-type", `""`, "type"},
		{"ce-subject", "", "subject"},
		{"ce-subject", "a\tb", "subject"},
		{"ce-subject", "a%00b", "subject"},
		{"ce-subject", "%C2%85", "subject"},
		{"ce-subject", "\xff", "subject"},
		{"ce-subject", "%FF", "subject"},
		{"ce-subject", "%ED%A0%80", "subject"},
		{"ce-subject", "%EF%BF%BF", "subject"},
		{"ce-subject", "%EF%B7%90", "subject"},
		{"ce-subject", "%F0%9F%BF%BE", "subject"},
		{"ce-dataschema", "/relative", "dataschema"},
		{"ce-dataschema", "http://x/a b", "dataschema"},
		{"ce-time", "yesterday", "time"},
		{"ce-data", "x", "data"},
		{"ce-data_base64", "x", "data_base64"},
		{"ce-foo_bar", "x", "foo_bar"},
		{"ce-", "x", ""},
		{"ce-datacontenttype", "text/plain", "datacontenttype"},
		{"Content-Type", "text/\xff", "datacontenttype"},
	} {
		t.Run(tc.name+"="+tc.value, func(t *testing.T) {
			_, err := event.DecodeBinary(header(tc.name, tc.value), nil)
			wantError(t, err, tc.attribute)
		})
	}
}

func TestDecodeBinaryRefusesDuplicates(t *testing.T) {
	h := header()
	h.Add("ce-id", "2")
	_, err := event.DecodeBinary(h, nil)
	wantError(t, err, "id")

	h = header("ce-ext", "1")
	h["cE-eXT"] = []string{"2"}
	_, err = event.DecodeBinary(h, nil)
	wantError(t, err, "ext")

	h = header("Content-Type", "text/plain")
	h.Add("Content-Type", "text/html")
	_, err = event.DecodeBinary(h, nil)
	wantError(t, err, "datacontenttype")
}

func TestAttributeCount(t *testing.T) {
	for extra, ok := range map[int]bool{100: true, event.MaxAttributes - 4: true, event.MaxAttributes - 3: false, 5000: false} {
		h := header()
		for i := range extra {
			h.Set(fmt.Sprintf("ce-x%d", i), "v")
		}
		e, err := event.DecodeBinary(h, nil)
		if (err == nil) != ok {
			t.Errorf("%d extensions: got error %v", extra, err)
		}
		if ok && len(e.Attributes) != extra+4 {
			t.Errorf("%d extensions: got %d attributes", extra, len(e.Attributes))
		}
	}
}

func TestTime(t *testing.T) {
	for value, ok := range map[string]bool{
		"2020-01-01T00:00:00Z":                  true,
		"2020-01-01t00:00:00z":                  true,
		"2020-01-01T00:00:00.5+23:59":           true,
		"2020-01-01T00:00:00.000000000001Z":     true,
		"2016-12-31T23:59:60Z":                  true,
		"2020-02-30T00:00:00Z":                  false,
		"2020-13-01T00:00:00Z":                  false,
		"2020-00-01T00:00:00Z":                  false,
		"2020-01-00T00:00:00Z":                  false,
		"2020-01-01T24:00:00Z":                  false,
		"2020-01-01T00:60:00Z":                  false,
		"2020-01-01T00:00:61Z":                  false,
		"2020-01-01T00:00:00":                   false,
		"2020-01-01T00:00:00.Z":                 false,
		"2020-01-01T00:00:00,5Z":                false,
		"2020-01-01T00:00:00.5":                 false,
		"2020-01-01T00:00:00+0100":              false,
		"2020-01-01T00:00:00+24:00":             false,
		"2020-01-01 00:00:00Z":                  false,
		"2020-01-01T0:00:00Z":                   false,
		"2020-01-01":                            false,
		"2020-01-01T00:00:00Z and then no more": false,
	} {
		_, err := event.DecodeBinary(header("ce-time", value), nil)
		if (err == nil) != ok {
			t.Errorf("time %q: got error %v, want none: %t", value, err, ok)
		}
	}
}

func TestHeaderValues(t *testing.T) {
	for _, tc := range []struct{ name, wire, value string }{
		{"subject", "plain", "plain"},
		{"subject", "Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"},
		{"subject", "%e2%82%ac", "€"},
		{"subject", "€ raw", "€ raw"},
		{"subject", "100%", "100%"},
		{"subject", "100%2", "100%2"},
		{"subject", "100%zz", "100%zz"},
		{"subject", "%2541", "%41"},
		{"subject", "%41", "A"},
		{"subject", `"quoted \"text\" %41"`, `quoted "text" A`},
		{"subject", `"not" quoted "at all"`, `"not" quoted "at all"`},
		{"subject", `"half`, `"half`},
		{"subject", `"end\"`, `"end\"`},
		{"subject", "%20both%20", " both "},
		{"source", "/a%20b%2Fc", "/a%20b%2Fc"},
		{"source", "/a%2520b", "/a%20b"},
		{"source", "/a?q=100%25", "/a?q=100%"},
		{"dataschema", "http://x/a%20b", "http://x/a%20b"},
	} {
		e, err := event.DecodeBinary(header("ce-"+tc.name, tc.wire), nil)
		if err != nil {
			t.Errorf("%s %q: %v", tc.name, tc.wire, err)
			continue
		}
		if got := e.Value(tc.name); got != tc.value {
			t.Errorf("%s %q has value %q, want %q", tc.name, tc.wire, got, tc.value)
		}
		out := http.Header{}
		if e.WriteHeader(out); out.Get("ce-"+tc.name) != tc.wire {
			t.Errorf("%s %q is delivered as %q", tc.name, tc.wire, out.Get("ce-"+tc.name))
		}
	}
}

func TestPassOn(t *testing.T) {
	h := http.Header{
		"Traceparent": {"tp"}, "Tracestate": {"a=1", "b=2"}, "X-Request-Id": {"r"}, "Knative-Foo": {"k"}, "B3": {"0"},
		"X-B3-Traceid": {"x"}, "knative-lower": {"l"}, "Authorization": {"secret"}, "Nats-Msg-Id": {"n"}, "Cookie": {"c"},
		"Knative-Bad": {"a\r\nNats-Msg-Id: 1", "nul\x00", strings.Repeat("x", 4097)},
	}
	want := []event.Header{
		{Name: "B3", Value: "0"},
		{Name: "Traceparent", Value: "tp"},
		{Name: "Tracestate", Value: "a=1"},
		{Name: "Tracestate", Value: "b=2"},
		{Name: "X-B3-Traceid", Value: "x"},
		{Name: "X-Request-Id", Value: "r"},
		{Name: "Knative-Foo", Value: "k"},
		{Name: "Knative-Lower", Value: "l"},
	}
	if diff := cmp.Diff(want, event.PassOn(h)); diff != "" {
		t.Errorf("headers passed on (-want +got):\n%s", diff)
	}
	many := http.Header{}
	for i := range 100 {
		many.Set(fmt.Sprintf("Knative-%d", i), "x")
	}
	if got := len(event.PassOn(many)); got != 64 {
		t.Errorf("got %d headers, want 64", got)
	}
}

// TestPassOnIsSmall makes sure that headers which are nobody's attributes cannot make an event too large to be stored.
func TestPassOnIsSmall(t *testing.T) {
	h := http.Header{"Traceparent": {"tp"}}
	for i := range 20 {
		h.Set(fmt.Sprintf("Knative-%d", i), strings.Repeat("x", 1000))
	}
	got := event.PassOn(h)
	bytes := 0
	for _, f := range got {
		bytes += len(f.Name) + len(f.Value)
	}
	if bytes > 8<<10 || len(got) < 8 || got[0].Name != "Traceparent" {
		t.Errorf("%d headers of %d bytes are passed on, the first is %s; want Traceparent and at most 8 KiB", len(got), bytes, got[0].Name)
	}
}

func TestDecodeBinaryOfPlainJSON(t *testing.T) {
	_, err := event.DecodeBinary(http.Header{"Content-Type": {"application/json"}}, []byte(`{"specversion":"1.0","id":"1"}`))
	var bad *event.Error
	if !errors.As(err, &bad) || bad.Attribute != event.SpecVersion || !strings.Contains(bad.Hint, event.ContentTypeJSON) {
		t.Errorf("an event in JSON sent as application/json: got %v, want to be told of %s", err, event.ContentTypeJSON)
	}
}

func TestDecodeBinaryAllocations(t *testing.T) {
	h := header("Content-Type", "application/json", "ce-time", "2020-01-01T00:00:00Z", "ce-subject", "order-1",
		"ce-partitionkey", "abc", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	body := []byte(`{"n":1}`)
	got := testing.AllocsPerRun(1000, func() {
		if _, err := event.DecodeBinary(h, body); err != nil {
			t.Error(err)
		}
	})
	t.Logf("DecodeBinary: %.0f allocations", got)
	if got > 8 {
		t.Errorf("got %.0f allocations, want at most 8", got)
	}
}

func TestWireAllocations(t *testing.T) {
	got := testing.AllocsPerRun(100, func() {
		a, err := event.AttributeFromWire("subject", "orders/1?x=y")
		if err != nil || a.WireValue() != "orders/1?x=y" {
			t.Error(a, err)
		}
	})
	if got != 0 {
		t.Errorf("got %.0f allocations, want none", got)
	}
}

// TestHeadersOfExtensions has names that are usual, and some that only other programs could have stored.
func TestHeadersOfExtensions(t *testing.T) {
	for _, name := range []string{"traceid", "a", "a1b2", "1abc", "7", "myExt", "Ext", "x-y", "x y", "ü"} {
		h := http.Header{}
		(&event.Event{Attributes: []event.Attribute{{Name: name, Value: "v"}}}).WriteHeader(h)
		if want := http.CanonicalHeaderKey("ce-" + name); h[want] == nil {
			t.Errorf("attribute %q became %v, want %s", name, h, want)
		}
	}
}
