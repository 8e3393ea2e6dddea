package rocketmq

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"millrace.dev/pkg/event"
)

// received returns a message with the least that a server gives it, and user properties in pairs.
func received(body string, properties ...string) *v2.Message {
	offset, attempt := int64(7), int32(2)
	m := &v2.Message{
		Topic: &v2.Resource{Name: "orders"}, Body: []byte(body), UserProperties: map[string]string{},
		SystemProperties: &v2.SystemProperties{
			MessageId: "01AB", QueueId: 3, QueueOffset: &offset, DeliveryAttempt: &attempt,
			BornTimestamp: timestamppb.New(time.UnixMilli(1_700_000_000_123)),
		},
	}
	for i := 0; i < len(properties); i += 2 {
		m.UserProperties[properties[i]] = properties[i+1]
	}
	return m
}

func packed(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestMapping holds every cell of the mapping of docs/sources.md.
func TestMapping(t *testing.T) {
	with := func(pairs ...string) map[string]string {
		all := map[string]string{
			"specversion": "1.0", "id": "01AB", "source": "/apis/v1/namespaces/shop/rocketmqsources/gifts#orders", "type": EventType,
			"time": "2023-11-14T22:13:20.123Z", "rocketmqqueue": "3", "rocketmqoffset": "7", "rocketmqattempt": "2",
		}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
			if pairs[i+1] == "" {
				delete(all, pairs[i])
			}
		}
		return all
	}
	changed := func(m *v2.Message, change func(*v2.Message, *v2.SystemProperties)) *v2.Message {
		change(m, m.GetSystemProperties())
		return m
	}
	text := func(s string) *string { return &s }
	ce := map[string]string{"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"}
	ceJSON := `{"specversion":"1.0","id":"1","source":"/shop","type":"order","datacontenttype":"application/json","data":{"a":1}}`
	and := func(all map[string]string, name, value string) map[string]string {
		more := map[string]string{name: value}
		for k, v := range all {
			more[k] = v
		}
		return more
	}
	for name, c := range map[string]struct {
		message *v2.Message
		want    map[string]string
		data    string
	}{
		"text":         {received("hello"), with(), "hello"},
		"json":         {received(`{"a":1}`), with("datacontenttype", "application/json"), `{"a":1}`},
		"content type": {received("a,b", "content-type", "text/csv"), with("datacontenttype", "text/csv", "rocketmqpropertycontenttype", "text/csv"), "a,b"},
		"no body":      {received(""), with(), ""},
		"tag and keys": {
			changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.Tag, p.Keys = text("gift"), []string{"a", "b"} }),
			with("rocketmqtag", "gift", "rocketmqkeys", "a b"), "x",
		},
		"message group":     {changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.MessageGroup = text("viewer 7") }), with("partitionkey", "viewer 7"), "x"},
		"first attempt":     {changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.DeliveryAttempt = nil }), with("rocketmqattempt", "1"), "x"},
		"no time":           {changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.BornTimestamp = nil }), with("time", ""), "x"},
		"no id":             {changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.MessageId = "" }), with("id", "queue:3/offset:7"), "x"},
		"user property":     {received("x", "Room-Id", "r 1"), with("rocketmqpropertyroomid", "r 1"), "x"},
		"property's name":   {received("x", "__", "y"), with("rocketmqproperty5f5f", "y"), "x"},
		"empty property":    {received("x", "room", ""), with(), "x"},
		"property not text": {received("x", "room", "a\nb"), with("rocketmqpropertyroom", "YQpi", "rocketmqbase64", "rocketmqpropertyroom"), "x"},
		"group not text": {
			changed(received("x"), func(_ *v2.Message, p *v2.SystemProperties) { p.MessageGroup = text("\x00") }),
			with("partitionkey", "AA==", "rocketmqbase64", "partitionkey"), "x",
		},
		"compressed": {
			changed(received(packed(t, `{"a":1}`)), func(_ *v2.Message, p *v2.SystemProperties) { p.BodyEncoding = v2.Encoding_GZIP }),
			with("datacontenttype", "application/json"), `{"a":1}`,
		},
		"not compressed as said": {
			changed(received("plain"), func(_ *v2.Message, p *v2.SystemProperties) { p.BodyEncoding = v2.Encoding_GZIP }),
			with("rocketmqmalformed", "the body is said to be gzip: unexpected EOF"), "plain",
		},
		"binary": {
			received("<a/>", "CE_specversion", "1.0", "CE_id", "1", "CE_source", "/shop", "CE_type", "order", "CE_contenttype", "text/xml", "CE_room", "r1", "other", "x"),
			and(and(ce, "datacontenttype", "text/xml"), "room", "r1"), "<a/>",
		},
		"binary, as some write the content type": {
			received("{}", "ce_specversion", "1.0", "ce_id", "1", "ce_source", "/shop", "ce_type", "order", "ce_datacontenttype", "application/json"),
			and(ce, "datacontenttype", "application/json"), "{}",
		},
		"binary without data": {received("\x00", "CE_specversion", "1.0", "CE_id", "1", "CE_source", "/shop", "CE_type", "order"), ce, ""},
		"structured":          {received(ceJSON, "CE_contenttype", "application/cloudevents+json"), and(ce, "datacontenttype", "application/json"), `{"a":1}`},
		"structured, charset": {received(ceJSON, "content-type", "application/cloudevents+json; charset=utf-8"), and(ce, "datacontenttype", "application/json"), `{"a":1}`},
		"broken binary": {
			received("x", "CE_specversion", "1.0", "CE_id", "1"),
			with("rocketmqpropertycespecversion", "1.0", "rocketmqpropertyceid", "1", "rocketmqmalformed", "*"), "x",
		},
		"broken structured": {
			received("{", "CE_contenttype", "application/cloudevents+json"),
			with("rocketmqpropertycecontenttype", "application/cloudevents+json", "rocketmqmalformed", "*"), "{",
		},
		"batch": {
			received("[]", "CE_contenttype", "application/cloudevents-batch+json"),
			with("datacontenttype", "application/json", "rocketmqpropertycecontenttype", "application/cloudevents-batch+json", "rocketmqmalformed",
				"the content type is a batch of events, or an event format other than JSON"), "[]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mapper{source: "/apis/v1/namespaces/shop/rocketmqsources/gifts"}
			e := m.event(c.message)
			got := map[string]string{}
			for _, a := range e.Attributes {
				got[a.Name] = a.Value
				if c.want[a.Name] == "*" {
					got[a.Name] = "*"
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want(-) got(+):\n%s", diff)
			}
			if string(e.Data) != c.data {
				t.Errorf("data %q, want %q", e.Data, c.data)
			}
			if err := e.Validate(); err != nil {
				t.Errorf("it is no event: %v", err)
			}
		})
	}
}

// TestOverrides sets extensions on every event, whatever it was made of.
func TestOverrides(t *testing.T) {
	m := &mapper{overrides: []event.Attribute{{Name: "team", Value: "shop"}}}
	for name, message := range map[string]*v2.Message{
		"message": received("x"),
		"event":   received("x", "CE_specversion", "1.0", "CE_id", "1", "CE_source", "/shop", "CE_type", "order", "CE_team", "other"),
	} {
		if a := m.event(message).Lookup("team"); a == nil || a.Value != "shop" {
			t.Errorf("%s: extension %+v", name, a)
		}
	}
}

// TestPassOn keeps what travels with an event without being an attribute of it.
func TestPassOn(t *testing.T) {
	m := &mapper{}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, h := range m.event(received("x", "traceparent", parent)).Headers {
		if strings.EqualFold(h.Name, "traceparent") && h.Value == parent {
			return
		}
	}
	t.Error("the traceparent is gone")
}

// TestUnpackBound gives up unpacking what becomes too large, without holding it.
func TestUnpackBound(t *testing.T) {
	m := received(packed(t, strings.Repeat("x", maxUnpackedBytes+1)))
	m.SystemProperties.BodyEncoding = v2.Encoding_GZIP
	e := (&mapper{}).event(m)
	if a := e.Lookup(extMalformed); a == nil || !strings.Contains(a.Value, "larger than") || len(e.Data) > 1<<20 {
		t.Errorf("malformed %+v, %d bytes of data", a, len(e.Data))
	}
}

// TestShelf bounds what is received by messages and by bytes.
func TestShelf(t *testing.T) {
	s := newShelf()
	large := func(n int) *held {
		m := received(strings.Repeat("x", 4<<20))
		m.SystemProperties.MessageId = strings.Repeat("i", n+1)
		return &held{message: m}
	}
	if got := s.reserve(t.Context(), 32, 4); got != 32 {
		t.Fatalf("%d places in an empty shelf, want 32", got)
	}
	s.put([]*held{large(0)}, 32)
	n := 1
	for got := s.reserve(t.Context(), 32, 4); s.bytes+int64(got)*s.peak <= maxHeldBytes; got = s.reserve(t.Context(), 32, 4) {
		if got > 4 {
			t.Fatalf("%d places for messages of 4 MiB", got)
		}
		var more []*held
		for range got {
			more = append(more, large(n))
			n++
		}
		s.put(more, got)
		if n > 32 {
			break
		}
	}
	if limit := int64(maxHeldBytes + 8<<20); s.bytes > limit {
		t.Errorf("%d bytes are held, want at most %d", s.bytes, limit)
	}
}
