package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"

	"millrace.dev/test/harness"
)

// received is one request as it came over the wire.
type received struct {
	header http.Header
	body   []byte
}

// recorder is a subscriber that hands each request on.
func recorder(t *testing.T) (url string, requests <-chan received) {
	t.Helper()
	c := make(chan received, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read a delivery: %v", err)
		}
		c <- received{r.Header.Clone(), body}
	}))
	t.Cleanup(s.Close)
	return s.URL, c
}

func next(t *testing.T, from <-chan received) received {
	t.Helper()
	select {
	case r := <-from:
		return r
	case <-time.After(harness.Patience):
		t.Fatal("nothing was delivered")
		return received{}
	}
}

// startOne runs a Broker with one Trigger for everything.
func startOne(t *testing.T, subscriber, delivery string) (brokerURL string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "one.yaml")
	harness.WriteFile(t, file, fmt.Sprintf(`
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec:
  broker: b
  subscriber: {uri: %q}
  delivery: {%s}
`, subscriber, delivery))
	return harness.StartDev(t, t.TempDir(), file).URL + "/default/b"
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// Binary in, binary out: every header and every byte of data as sent.
func TestRoundTripBinary(t *testing.T) {
	url, requests := recorder(t)
	broker := startOne(t, url, "")
	hundred := map[string]string{}
	for i := range 100 {
		hundred[fmt.Sprintf("Ce-Ext%d", i)] = fmt.Sprintf("value %d", i)
	}
	for _, c := range []struct {
		name    string
		headers map[string]string
		data    []byte
	}{
		{"plain", map[string]string{"Content-Type": "text/plain; charset=utf-8"}, []byte("hello")},
		{"empty data", nil, nil},
		{"content type without data", map[string]string{"Content-Type": "application/json"}, nil},
		{"1 MiB of binary data", map[string]string{"Content-Type": "application/octet-stream"}, randomBytes(1 << 20)},
		{"binary data with NUL", map[string]string{"Content-Type": "application/x-thing"}, []byte{0, 0xff, '\r', '\n', 0}},
		{"JSON with odd spacing", map[string]string{"Content-Type": "application/json"}, []byte("{ \"b\":1.0,\n\t\"a\" : 1e2 }  ")},
		{"invalid JSON", map[string]string{"Content-Type": "application/json"}, []byte("{")},
		{"time to the nanosecond with an offset", map[string]string{"Ce-Time": "2026-01-02T03:04:05.123456789+08:00"}, nil},
		{"time with trailing zeros", map[string]string{"Ce-Time": "2026-01-02T03:04:05.100Z"}, nil},
		{"percent-encoded unicode", map[string]string{"Ce-Subject": "%E6%88%BF%E9%97%B4 1"}, nil},
		{"raw unicode", map[string]string{"Ce-Subject": "房间 😀"}, nil},
		{"percent signs", map[string]string{"Ce-Subject": "100%", "Ce-Source": "https://example.com/a%20b%2Fc"}, nil},
		{"numbers and booleans", map[string]string{"Ce-Count": "-42", "Ce-Flag": "true", "Ce-Max": "2147483647"}, nil},
		{"URIs", map[string]string{"Ce-Dataschema": "https://example.com/s?x=1#y", "Ce-Source": "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"}, nil},
		{"100 extensions", hundred, []byte("x")},
		{"specversion 0.3", map[string]string{"Ce-Specversion": "0.3", "Ce-Schemaurl": "https://example.com/schema"}, []byte("x")},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := map[string]string{"Ce-Specversion": "1.0", "Ce-Id": c.name, "Ce-Source": "/test", "Ce-Type": "com.example"}
			for k, v := range c.headers {
				headers[k] = v
			}
			var list []string
			for k, v := range headers {
				list = append(list, k+": "+v)
			}
			if code, body := harness.Post(t, broker, "", c.data, list...); code != http.StatusAccepted {
				t.Fatalf("status %d: %s", code, body)
			}
			got := next(t, requests)
			if sha256.Sum256(got.body) != sha256.Sum256(c.data) {
				t.Errorf("data differs: sent %d bytes, received %d", len(c.data), len(got.body))
			}
			if diff := cmp.Diff(headers, eventHeaders(got.header)); diff != "" {
				t.Errorf("headers (-sent +received):\n%s", diff)
			}
		})
	}
}

// eventHeaders are the headers that make the event, without the arrival time that the Broker adds.
func eventHeaders(h http.Header) map[string]string {
	m := map[string]string{}
	for name, values := range h {
		if (strings.HasPrefix(name, "Ce-") || name == "Content-Type") && name != "Ce-Knativearrivaltime" {
			m[name] = strings.Join(values, ", ")
		}
	}
	return m
}

// Structured in, structured out: types are kept, data is kept bit for bit.
func TestRoundTripStructured(t *testing.T) {
	url, requests := recorder(t)
	broker := startOne(t, url, "format: json")
	for name, doc := range map[string]string{
		"types":       `{"specversion":"1.0","id":"1","source":"/s","type":"t","count":-5,"flag":true,"text":"5","data":{"a":[1,2.50,"x"]}}`,
		"unicode":     `{"specversion":"1.0","id":"ü","source":"/s","type":"t","subject":"房间 \"😀\" 100%","data":"日本"}`,
		"text":        `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"line\nline"}`,
		"binary":      `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/octet-stream","data_base64":"AAECA/8="}`,
		"no data":     `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T03:04:05.123456789-07:00"}`,
		"JSON string": `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":"a string"}`,
		"null data":   `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":null}`,
		"big numbers": `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":12345678901234567890123,"f":1.0}}`,
	} {
		t.Run(name, func(t *testing.T) {
			if code, body := harness.Post(t, broker, "application/cloudevents+json", []byte(doc)); code != http.StatusAccepted {
				t.Fatalf("status %d: %s", code, body)
			}
			got := next(t, requests)
			if ct := got.header.Get("Content-Type"); !strings.HasPrefix(ct, "application/cloudevents+json") {
				t.Fatalf("delivered as %q", ct)
			}
			sent, back := members(t, []byte(doc)), members(t, got.body)
			delete(back, "knativearrivaltime")
			if sent["data"] != "" && sent["datacontenttype"] == "" {
				sent["datacontenttype"] = `"application/json"` // what its absence means in JSON
			}
			if diff := cmp.Diff(sent, back); diff != "" {
				t.Errorf("members (-sent +received):\n%s\n%s", diff, got.body)
			}
		})
	}
}

// members are the members of a JSON object; strings are decoded and encoded again, so that escapes do not matter, all
// else is compared to the byte.
func members(t *testing.T, doc []byte) map[string]string {
	t.Helper()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(doc, &raw); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	m := map[string]string{}
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) == nil && string(v) != "null" {
			v, _ = json.Marshal(s)
		}
		m[k] = string(v)
	}
	return m
}

func TestBatchIsRoutedEventByEvent(t *testing.T) {
	url, requests := recorder(t)
	broker := startOne(t, url, "")
	var batch []string
	for i := range 50 {
		batch = append(batch, fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/s","type":"t","data":%d}`, i, i))
	}
	if code, body := harness.Post(t, broker, "application/cloudevents-batch+json", []byte("["+strings.Join(batch, ",")+"]")); code != http.StatusAccepted {
		t.Fatalf("status %d: %s", code, body)
	}
	seen := map[string]bool{}
	for range 50 {
		r := next(t, requests)
		id := r.header.Get("Ce-Id")
		if seen[id] || string(r.body) != id {
			t.Errorf("event %s came again or with data %s", id, r.body)
		}
		seen[id] = true
	}
	batch[30] = `{"specversion":"1.0","id":"","source":"/s","type":"t"}`
	code, body := harness.Post(t, broker, "application/cloudevents-batch+json", []byte("["+strings.Join(batch, ",")+"]"))
	if code != http.StatusBadRequest || !strings.Contains(body, `"attribute":"id"`) || !strings.Contains(body, `"index":30`) {
		t.Errorf("a batch with a mistake: status %d: %s", code, body)
	}
	select {
	case r := <-requests:
		t.Errorf("event %s of a refused batch was delivered", r.header.Get("Ce-Id"))
	case <-time.After(300 * time.Millisecond):
	}
}

func TestOfficialGoSDK(t *testing.T) {
	url, requests := recorder(t)
	broker := startOne(t, url, "")
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(broker))
	if err != nil {
		t.Fatal(err)
	}
	e := cloudevents.NewEvent()
	e.SetID("sdk-1")
	e.SetSource("https://example.com/sdk")
	e.SetType("com.example.sdk")
	e.SetSubject("subject")
	e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC))
	e.SetExtension("count", 7)
	e.SetExtension("flag", true)
	if err := e.SetData(cloudevents.ApplicationJSON, map[string]any{"hello": "world", "n": 1}); err != nil {
		t.Fatal(err)
	}
	for mode, ctx := range map[string]func() error{
		"binary":     func() error { return client.Send(cloudevents.WithEncodingBinary(t.Context()), e) },
		"structured": func() error { return client.Send(cloudevents.WithEncodingStructured(t.Context()), e) },
	} {
		t.Run(mode, func(t *testing.T) {
			if result := ctx(); !cloudevents.IsACK(result) {
				t.Fatalf("the SDK was answered %v", result)
			}
			r := next(t, requests)
			got, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: r.header, Body: io.NopCloser(bytes.NewReader(r.body))})
			if err != nil {
				t.Fatal(err)
			}
			if got.ID() != e.ID() || got.Source() != e.Source() || got.Type() != e.Type() || got.Subject() != e.Subject() ||
				!got.Time().Equal(e.Time()) || !bytes.Equal(got.Data(), e.Data()) {
				t.Errorf("got %s\nwant %s", got, e)
			}
			if got.Extensions()["count"] != "7" || got.Extensions()["flag"] != "true" {
				t.Errorf("extensions %v", got.Extensions())
			}
		})
	}
}
