package kafka

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/event"
)

func record(change func(*kgo.Record)) *kgo.Record {
	r := &kgo.Record{Topic: "orders", Partition: 3, Offset: 7, Timestamp: time.UnixMilli(1_700_000_000_123), Value: []byte("hello")}
	change(r)
	return r
}

func headers(pairs ...string) []kgo.RecordHeader {
	var all []kgo.RecordHeader
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return all
}

// TestMapping holds every cell of the mapping of docs/sources.md.
func TestMapping(t *testing.T) {
	wrapped := map[string]string{
		"specversion": "1.0", "id": "partition:3/offset:7", "source": "/apis/v1/namespaces/shop/kafkasources/orders#orders",
		"type": EventType, "subject": "partition:3#7", "time": "2023-11-14T22:13:20.123Z",
		"knativekafkapartition": "3", "knativekafkaoffset": "7",
	}
	with := func(pairs ...string) map[string]string {
		all := map[string]string{}
		for k, v := range wrapped {
			all[k] = v
		}
		for i := 0; i < len(pairs); i += 2 {
			all[pairs[i]] = pairs[i+1]
		}
		return all
	}
	without := func(all map[string]string, name string) map[string]string {
		delete(all, name)
		return all
	}
	ce := map[string]string{"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"}
	for name, c := range map[string]struct {
		key    KeyType
		record func(*kgo.Record)
		want   map[string]string
		data   string
	}{
		"text":            {"", func(*kgo.Record) {}, with(), "hello"},
		"json":            {"", func(r *kgo.Record) { r.Value = []byte(`{"a":1}`) }, with("datacontenttype", "application/json"), `{"a":1}`},
		"content type":    {"", func(r *kgo.Record) { r.Headers = headers("Content-Type", "text/csv") }, with("datacontenttype", "text/csv", "kafkaheadercontenttype", "text/csv"), "hello"},
		"null value":      {"", func(r *kgo.Record) { r.Value = nil }, with(), ""},
		"empty value":     {"", func(r *kgo.Record) { r.Value = []byte{} }, with(), ""},
		"no timestamp":    {"", func(r *kgo.Record) { r.Timestamp = time.UnixMilli(-1) }, without(with(), "time"), "hello"},
		"key":             {"", func(r *kgo.Record) { r.Key = []byte("k 1é") }, with("key", "k 1é", "partitionkey", "k 1é"), "hello"},
		"empty key":       {"", func(r *kgo.Record) { r.Key = []byte{} }, with(), "hello"},
		"binary key":      {"", func(r *kgo.Record) { r.Key = []byte{0xff, 0} }, with("key", "/wA=", "partitionkey", "/wA=", "kafkabase64", "key partitionkey"), "hello"},
		"control in key":  {KeyString, func(r *kgo.Record) { r.Key = []byte("a\nb") }, with("key", "YQpi", "partitionkey", "YQpi", "kafkabase64", "key partitionkey"), "hello"},
		"int key":         {KeyInt, func(r *kgo.Record) { r.Key = []byte{0xff, 0xff, 0xff, 0xfe} }, with("key", "-2", "partitionkey", "-2"), "hello"},
		"long key":        {KeyInt, func(r *kgo.Record) { r.Key = []byte{0, 0, 0, 1, 0, 0, 0, 0} }, with("key", "4294967296", "partitionkey", "4294967296"), "hello"},
		"int key of 3":    {KeyInt, func(r *kgo.Record) { r.Key = []byte{1, 2, 3} }, with("key", "AQID", "partitionkey", "AQID", "kafkabase64", "key partitionkey"), "hello"},
		"float key":       {KeyFloat, func(r *kgo.Record) { r.Key = []byte{0x3f, 0xc0, 0, 0} }, with("key", "1.5", "partitionkey", "1.5"), "hello"},
		"double key":      {KeyFloat, func(r *kgo.Record) { r.Key = []byte{0x3f, 0xf8, 0, 0, 0, 0, 0, 0} }, with("key", "1.5", "partitionkey", "1.5"), "hello"},
		"byte-array key":  {KeyByteArray, func(r *kgo.Record) { r.Key = []byte("abc") }, with("key", "YWJj", "partitionkey", "YWJj", "kafkabase64", "key partitionkey"), "hello"},
		"headers":         {"", func(r *kgo.Record) { r.Headers = headers("Trace-Id", "a", "x", "1", "x", "2", "empty", "") }, with("kafkaheadertraceid", "a", "kafkaheaderx", "2"), "hello"},
		"binary header":   {"", func(r *kgo.Record) { r.Headers = headers("x", "\xff") }, with("kafkaheaderx", "/w==", "kafkabase64", "kafkaheaderx"), "hello"},
		"header replaced": {"", func(r *kgo.Record) { r.Headers = headers("x", "\xff", "x", "text") }, with("kafkaheaderx", "text"), "hello"},
		"nameless header": {"", func(r *kgo.Record) { r.Headers = headers("é", "1") }, with("kafkaheaderc3a9", "1"), "hello"},
		"event, binary": {"", func(r *kgo.Record) {
			r.Headers = headers("ce_specversion", "1.0", "ce_id", "1", "ce_source", "/shop", "ce_type", "order", "ce_note", "50 % é", "content-type", "text/plain", "other", "x")
			r.Key = []byte("ignored")
		}, merge(ce, "note", "50 % é", "datacontenttype", "text/plain"), "hello"},
		"event, structured": {"", func(r *kgo.Record) {
			r.Headers = headers("content-type", "application/cloudevents+json; charset=utf-8")
			r.Value = []byte(`{"specversion":"1.0","id":"1","source":"/shop","type":"order","data":{"total":5}}`)
		}, merge(ce, "datacontenttype", "application/json"), `{"total":5}`},
		"broken structured event": {"", func(r *kgo.Record) {
			r.Headers = headers("content-type", "application/cloudevents+json")
			r.Value = []byte(`{"specversion":`)
		}, with("kafkaheadercontenttype", "application/cloudevents+json", "kafkamalformed", "?"), `{"specversion":`},
		"batch": {
			"", func(r *kgo.Record) { r.Headers = headers("content-type", "application/cloudevents-batch+json") },
			with("kafkaheadercontenttype", "application/cloudevents-batch+json", "kafkamalformed", "?"), "hello",
		},
		"event without id": {
			"", func(r *kgo.Record) { r.Headers = headers("ce_specversion", "1.0", "ce_source", "/", "ce_type", "a") },
			with("kafkaheadercespecversion", "1.0", "kafkaheadercesource", "/", "kafkaheadercetype", "a", "kafkamalformed", "?"), "hello",
		},
		"event with a bad name": {"", func(r *kgo.Record) {
			r.Headers = headers("ce_specversion", "1.0", "ce_id", "1", "ce_source", "/", "ce_type", "a", "ce_a-b", "c")
		}, with("kafkaheadercespecversion", "1.0", "kafkaheaderceid", "1", "kafkaheadercesource", "/", "kafkaheadercetype", "a", "kafkaheaderceab", "c", "kafkamalformed", "?"), "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mapper{source: "/apis/v1/namespaces/shop/kafkasources/orders", key: c.key}
			e := m.event(record(c.record))
			got := map[string]string{}
			for _, a := range e.Attributes {
				got[a.Name] = a.Value
			}
			if c.want["kafkamalformed"] == "?" && got["kafkamalformed"] != "" {
				got["kafkamalformed"] = "?"
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want(-) got(+):\n%s", diff)
			}
			if string(e.Data) != c.data {
				t.Errorf("data %q, want %q", e.Data, c.data)
			}
			if err := e.Validate(); err != nil {
				t.Errorf("not an event: %v", err)
			}
		})
	}
}

func merge(base map[string]string, pairs ...string) map[string]string {
	all := map[string]string{}
	for k, v := range base {
		all[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return all
}

// TestOverridesAndTrace sets extensions on events of any origin and passes the trace context on.
func TestOverridesAndTrace(t *testing.T) {
	m := &mapper{source: "/s", overrides: []event.Attribute{{Name: "team", Value: "shop"}}}
	for _, r := range []*kgo.Record{
		record(func(r *kgo.Record) { r.Headers = headers("traceparent", "00-aa-bb-01") }),
		record(func(r *kgo.Record) {
			r.Headers = headers("ce_specversion", "1.0", "ce_id", "1", "ce_source", "/", "ce_type", "a", "ce_team", "other", "traceparent", "00-aa-bb-01")
		}),
	} {
		e := m.event(r)
		if got := e.Value("team"); got != "shop" {
			t.Errorf("team is %q", got)
		}
		if want := []event.Header{{Name: "Traceparent", Value: "00-aa-bb-01"}}; !cmp.Equal(e.Headers, want) {
			t.Errorf("headers %v", e.Headers)
		}
	}
}

// TestManyHeaders bounds the attributes of an event.
func TestManyHeaders(t *testing.T) {
	r := record(func(r *kgo.Record) {
		for i := range 2000 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: strings.Repeat("a", i), Value: []byte("x")})
		}
	})
	if err := (&mapper{source: "/s"}).event(r).Validate(); err != nil {
		t.Error(err)
	}
}

// FuzzMapping holds the mapping to making an event of whatever is in Kafka, with the value unchanged unless it is a
// structured event.
func FuzzMapping(f *testing.F) {
	f.Add([]byte("k"), []byte(`{"a":1}`), "content-type", []byte("application/cloudevents+json"), "ce_specversion", []byte("1.0"), int64(1), uint8(0))
	f.Add([]byte{0xff}, []byte(nil), "ce_id", []byte("\x00"), "", []byte("é"), int64(-1), uint8(2))
	f.Add([]byte{0, 0, 0, 1}, []byte("x"), "traceparent", []byte("a\r\nb"), "X", []byte{}, int64(math.MaxInt64), uint8(3))
	f.Fuzz(func(t *testing.T, key, value []byte, name1 string, value1 []byte, name2 string, value2 []byte, offset int64, kind uint8) {
		kinds := []KeyType{KeyAuto, KeyString, KeyInt, KeyFloat, KeyByteArray}
		r := &kgo.Record{
			Topic: "orders", Offset: offset, Key: key, Value: value, Timestamp: time.UnixMilli(offset % (1 << 45)),
			Headers: []kgo.RecordHeader{{Key: name1, Value: value1}, {Key: name2, Value: value2}, {Key: "ce_type", Value: value1}},
		}
		e := (&mapper{source: "/s", key: kinds[int(kind)%len(kinds)]}).event(r)
		if err := e.Validate(); err != nil {
			t.Fatalf("not an event: %v\n%+v", err, e)
		}
		if e.Value(event.Type) == EventType && string(e.Data) != string(value) {
			t.Fatalf("the value %q became %q", value, e.Data)
		}
		if media := e.Value(event.DataContentType); e.Lookup(extOffset) != nil && event.DetectMode(media) != event.ModeBinary {
			t.Fatalf("a record that is no event would be sent as one: %s", media)
		}
	})
}
