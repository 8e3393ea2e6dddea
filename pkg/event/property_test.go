package event_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

// text draws a CloudEvents String: any characters, with more than their share of those that are special in a header.
func text() *rapid.Generator[string] {
	char := rapid.OneOf(
		rapid.SampledFrom([]rune(` %"\,;=é€😀25ab`)),
		rapid.Rune().Filter(func(r rune) bool {
			return r >= ' ' && (r < 0x7f || r > 0x9f) && r != utf8.RuneError &&
				(r < 0xfdd0 || r > 0xfdef) && r&0xfffe != 0xfffe
		}),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(char, 1, 12).Draw(t, "text"))
	})
}

// sources are URI-references, escapes among them.
func sources() *rapid.Generator[string] {
	return rapid.StringMatching(`/([a-z!~&=]|%20|%25|%2F|%C3%A9){0,8}`)
}

func drawEvent(t *rapid.T) *event.Event {
	e := &event.Event{}
	e.Set(event.SpecVersion, rapid.SampledFrom([]string{"1.0", "0.3"}).Draw(t, "version"), event.String)
	e.Set(event.ID, text().Draw(t, "id"), event.String)
	e.Set(event.Source, sources().Draw(t, "source"), event.String)
	e.Set(event.Type, text().Draw(t, "type"), event.String)
	types := []string{"application/json", "text/plain", "application/octet-stream", "application/xml; charset=utf-8"}
	e.Set(event.DataContentType, rapid.SampledFrom(types).Draw(t, "contenttype"), event.String)
	for _, name := range rapid.SliceOfDistinct(rapid.StringMatching(`x[a-z0-9]{1,8}`), rapid.ID).Draw(t, "extensions") {
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			e.Set(name, text().Draw(t, "value"), event.String)
		case 1:
			e.Set(name, rapid.SampledFrom([]string{"0", "-1", "2147483647", "-2147483648"}).Draw(t, "int"), event.Integer)
		default:
			e.Set(name, rapid.SampledFrom([]string{"true", "false"}).Draw(t, "bool"), event.Boolean)
		}
	}
	e.Data = rapid.OneOf(
		rapid.SliceOf(rapid.Byte()),
		rapid.Map(text(), func(s string) []byte { return []byte(s) }),
		rapid.SampledFrom([][]byte{[]byte("null"), []byte(`""`), []byte(`{"a" : 1.0}`), []byte("[\n]")}),
	).Draw(t, "data")
	if len(e.Data) == 0 {
		e.Data = nil
	}
	return e
}

func TestJSONRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEvent(t)
		document := want.AppendJSON(nil)
		got, err := event.DecodeJSON(document)
		if err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
		batch := append(append(append([]byte("["), document...), ','), document...)
		events, err := event.DecodeJSONBatch(append(batch, ']'))
		if err != nil || len(events) != 2 || !cmp.Equal(events[1], want) {
			t.Fatalf("batch: got %v, %v", events, err)
		}
	})
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawEvent(t)
		h := http.Header{}
		want.WriteHeader(h)
		for name, values := range h {
			if strings.IndexFunc(values[0], func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
				t.Fatalf("header %s: %q is not printable ASCII", name, values[0])
			}
		}
		got, err := event.DecodeBinary(h, want.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(valuesOf(want), valuesOf(got)); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
	})
}

func TestHeaderTextIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wire := strings.Trim(text().Draw(t, "wire"), " ")
		if wire == "" {
			t.Skip()
		}
		h := header("ce-id", wire, "ce-ext", wire)
		e, err := event.DecodeBinary(h, nil)
		if err != nil {
			t.Skip() // Escapes of something that is no text.
		}
		out := http.Header{}
		e.WriteHeader(out)
		if diff := cmp.Diff(h, out); diff != "" {
			t.Fatalf("headers (-want +got):\n%s", diff)
		}
	})
}

func TestLargeData(t *testing.T) {
	e := minimal()
	e.Set(event.DataContentType, "application/octet-stream", event.String)
	e.Data = bytes.Repeat([]byte{0, 1, 2, 255}, 1<<18)
	got, err := event.DecodeJSON(e.AppendJSON(nil))
	if err != nil || !bytes.Equal(got.Data, e.Data) {
		t.Errorf("1 MiB of binary data did not survive: %v", err)
	}
}

// checkStable asserts that a decoded event stays the same in both encodings.
func checkStable(t *testing.T, e *event.Event) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Fatalf("decoded an invalid event: %v", err)
	}
	h := http.Header{}
	e.WriteHeader(h)
	binary, err := event.DecodeBinary(h, e.Data)
	if err != nil {
		t.Fatalf("binary: %v", err)
	}
	if diff := cmp.Diff(valuesOf(e), valuesOf(binary)); diff != "" || !bytes.Equal(binary.Data, e.Data) {
		t.Fatalf("binary (-want +got):\n%s", diff)
	}
	document := e.AppendJSON(nil)
	got, err := event.DecodeJSON(document)
	if err != nil {
		var bad *event.Error
		if bad, _ = err.(*event.Error); bad != nil && bad.Attribute == event.DataContentType { //nolint:errorlint // The decoders return the type itself.
			return // Binary mode takes any Content-Type, JSON wants a media type.
		}
		t.Fatalf("JSON %s: %v", document, err)
	}
	if got.Value(event.SpecVersion) == "0.3" {
		e.Remove("datacontentencoding")
	}
	ignore := cmp.Options{cmpopts.IgnoreFields(event.Attribute{}, "Wire"), cmpopts.IgnoreFields(event.Event{}, "Data", "Headers")}
	if diff := cmp.Diff(e, got, ignore); diff != "" {
		t.Fatalf("JSON (-want +got):\n%s", diff)
	}
	want := e.Data
	if event.IsJSON(e.Value(event.DataContentType)) {
		want = bytes.Trim(want, " \t\r\n")
	}
	if !bytes.Equal(got.Data, want) && !bytes.Equal(got.Data, e.Data) {
		t.Fatalf("JSON: got data %q, want %q", got.Data, e.Data)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,"}"]},"n":5,"b":true,"z":null}`))
	f.Add([]byte(`{"specversion":"1.0","id":"\ud83d\ude00","source":"/s%20","type":"% \"","datacontenttype":"text/plain","data":"\u0000"}`))
	f.Add([]byte(`{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"base64","data":"AAE="}`))
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AP8="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := event.DecodeJSON(body)
		if err != nil {
			return
		}
		checkStable(t, e)
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add([]byte(`[]`))
	f.Add([]byte(` [ {"specversion":"1.0","id":"1","source":"/s","type":"t","data":1 }, {"specversion":"1.0","id":"2","source":"/s","type":"t"} ]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := event.DecodeJSONBatch(body)
		if err != nil {
			return
		}
		for _, e := range events {
			checkStable(t, e)
		}
	})
}

func FuzzDecodeBinary(f *testing.F) {
	f.Add("subject", "a b%20\"", "application/json", []byte("{} "))
	f.Add("source", "/a%2520b", "text/plain", []byte("text"))
	f.Add("Time", "2020-01-01T00:00:00Z", "", []byte{0, 255})
	f.Add("datacontentencoding", "base64", ";", []byte("null"))
	f.Fuzz(func(t *testing.T, name, value, contentType string, body []byte) {
		h := header("Content-Type", contentType)
		h["Ce-"+name] = []string{value}
		e, err := event.DecodeBinary(h, body)
		if err != nil {
			return
		}
		out := http.Header{}
		e.WriteHeader(out)
		if got := out.Get("ce-" + name); got != strings.Trim(value, " \t") {
			t.Fatalf("header %s %q is delivered as %q", name, value, got)
		}
		checkStable(t, e)
	})
}
