package stream

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"millrace.dev/pkg/event"
)

// FuzzCodec reads whatever another NATS client may have put into a stream: it never panics, and what it takes for an event
// comes back equal after being stored again.
func FuzzCodec(f *testing.F) {
	f.Add("ce-id: 1\nce-source: /s\nce-type: t\nce-specversion: 1.0\nce-datacontenttype: application/json\nMillrace-Kinds: n=i,b=b\nce-n: 5\nce-b: true", []byte(`{}`))
	f.Add("CE-Id: %E6%88%BF\nce-source: /a%20b\nce-type: t\nce-specversion: 0.3\nMillrace-Header-Traceparent: 00-x", []byte(nil))
	f.Add("ce-id: \"quoted\"\nce-source: s\nce-type: 100%\nce-specversion: 1.0\nMillrace-Attempt: -3\nMillrace-Due: 9999999999999999999", []byte{0, 0xff})
	f.Add("ce-: x\nce-id:\nMillrace-Kinds: =,a=,=i,,", []byte("x"))
	f.Fuzz(func(t *testing.T, headers string, data []byte) {
		header := nats.Header{}
		for line := range strings.SplitSeq(headers, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			header[name] = append(header[name], value)
		}
		_ = progressOf(header)
		e, err := decode(header, data)
		if err != nil {
			return
		}
		again, err := decode(encode("s", e).Header, e.Data)
		if err != nil {
			t.Fatalf("stored again it is no event: %v\n%+v", err, e)
		}
		if diff := cmp.Diff(values(e), values(again)); diff != "" {
			t.Fatalf("(-first +again):\n%s", diff)
		}
		if string(e.Data) != string(again.Data) {
			t.Fatalf("data %q became %q", e.Data, again.Data)
		}
	})
}

func values(e *event.Event) map[string]string {
	m := map[string]string{}
	for _, a := range e.Attributes {
		m[a.Name] = string('0'+a.Kind) + a.Value
	}
	return m
}

func FuzzProgress(f *testing.F) {
	f.Add(3, int64(1767225600000), int64(1767225601000), 503, "try\r\nlater", "http://s.example/", true)
	f.Fuzz(func(t *testing.T, attempt int, due, first int64, code int, cause, destination string, deadLetter bool) {
		want := Progress{Attempt: max(0, attempt), Code: code, DeadLetter: deadLetter}
		if due > 0 {
			want.Due = time.UnixMilli(due)
		}
		if first > 0 {
			want.First = time.UnixMilli(first)
		}
		header := nats.Header{}
		stored := want
		stored.Cause, stored.Destination = cause, destination
		setProgress(header, stored)
		for name, v := range header {
			if strings.ContainsAny(v[0], "\r\n\x00") {
				t.Fatalf("%s breaks the header: %q", name, v[0])
			}
		}
		got := progressOf(header)
		got.Cause, got.Destination = "", ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-stored +read):\n%s", diff)
		}
	})
}
