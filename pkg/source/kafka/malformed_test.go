package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
	"millrace.dev/pkg/stream"
)

// malformed returns 50 records that are not what they seem, or more than a Broker takes, by what is wrong with them.
func malformed() map[string]*kgo.Record {
	all := map[string]*kgo.Record{}
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	add := func(name string, r *kgo.Record) { all[name] = r }
	for i, key := range []string{"\xff\xfe", "\x00", "a\x00b", "\r\n", strings.Repeat("\x80", 3000), "\u202e", "\xed\xa0\x80", " "} {
		add(fmt.Sprint("key ", i), &kgo.Record{Key: []byte(key), Value: []byte("x")})
	}
	for i, h := range []kgo.RecordHeader{
		header("", "no name"), header("\xff", "x"), header("a b", "x"), header("x", "\xff"), header("x", "a\r\nb"), header("x", "\x00"),
		header(strings.Repeat("n", 5000), "x"), header("specversion", "1.0"), header("id", "x"), header("data", "x"), header("traceparent", "\xff"),
	} {
		add(fmt.Sprint("header ", i), &kgo.Record{Headers: []kgo.RecordHeader{h}, Value: []byte("x")})
	}
	for i, text := range []string{
		"", "{", "[]", "null", "7", `"text"`, `{"specversion":"1.0"}`, `{"specversion":"9.9","id":"1","source":"/s","type":"t"}`,
		`{"specversion":"1.0","id":"","source":"/s","type":"t"}`, `{"specversion":"1.0","id":"1","source":"/s","type":"t","Bad Name":"x"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":"AA=="}`, `{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"%"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"yesterday"}`, "\xff\xff", strings.Repeat("[", 20000), `{"specversion":"1.0","id":"1","source":"/s","type":"t","x":{}}`,
	} {
		add(fmt.Sprint("structured ", i), &kgo.Record{Headers: []kgo.RecordHeader{header("content-type", "application/cloudevents+json")}, Value: []byte(text)})
	}
	for i, h := range [][]kgo.RecordHeader{
		{header("ce_specversion", "1.0")},
		{header("ce_specversion", "2.0"), header("ce_id", "1"), header("ce_source", "/s"), header("ce_type", "t")},
		{header("ce_specversion", "1.0"), header("ce_id", ""), header("ce_source", "/s"), header("ce_type", "t")},
		{header("ce_specversion", "1.0"), header("ce_id", "1"), header("ce_source", "/s"), header("ce_type", "t"), header("ce_a b", "x")},
		{header("ce_specversion", "1.0"), header("ce_id", "\xff"), header("ce_source", "/s"), header("ce_type", "t")},
		{header("ce_specversion", "1.0"), header("ce_id", "1"), header("ce_id", "2"), header("ce_source", "/s"), header("ce_type", "t")},
		{header("ce_specversion", "1.0"), header("ce_id", "1"), header("ce_source", "/s"), header("ce_type", "t"), header("ce_time", "never")},
		{header("content-type", "application/cloudevents-batch+json")},
		{header("content-type", "application/cloudevents+avro")},
		{header("content-type", "\xff")},
	} {
		add(fmt.Sprint("binary ", i), &kgo.Record{Headers: h, Value: []byte("x")})
	}
	for i, size := range []int{1<<20 + 1, 2 << 20} {
		add(fmt.Sprint("large ", i), &kgo.Record{Value: make([]byte, size)})
	}
	add("large header", &kgo.Record{Headers: []kgo.RecordHeader{header("x", strings.Repeat("h", 70_000))}, Value: []byte("x")})
	add("large binary key", &kgo.Record{Key: bytes.Repeat([]byte{0xff}, 60_000), Value: []byte("x")})
	add("nothing at all", &kgo.Record{})
	return all
}

// TestMalformed reads 50 malformed records, each with a good one behind it: all are stored or, where a Broker takes no such event, are dead
// letters, or, where there is no sink for these and that was chosen, are counted.
func TestMalformed(t *testing.T) {
	t.Parallel()
	records := malformed()
	if len(records) != 50 {
		t.Fatalf("there are %d malformed records", len(records))
	}
	for name, withDead := range map[string]bool{"dead letters": true, "dropped": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, kfake.SeedTopics(1, "orders"))
			conn, names := startStore(t)
			var mu sync.Mutex
			got := map[string]bool{}
			consumption, err := conn.Consume(t.Context(), stream.ConsumeOptions{Stream: names.Events}, func(d *stream.Delivery) {
				mu.Lock()
				defer mu.Unlock()
				got[d.Event.Value(event.ID)+string(d.Event.Data)] = true
				d.Ack()
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = consumption.Stop(context.Background()) }()
			packing, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.ListenAddrs()...), kgo.ProducerBatchCompression(kgo.GzipCompression()),
				kgo.ProducerBatchMaxBytes(8<<20))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(packing.Close)
			for _, record := range records {
				bad := *record
				bad.Topic = "orders"
				if err := packing.ProduceSync(t.Context(), &bad, &kgo.Record{Topic: "orders", Value: []byte("good")}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			limits := event.Limits{Data: 1 << 20, Attributes: event.DefaultMaxAttributeBytes}
			dead := &recorder{}
			outlet := source.OutletOptions{
				Sink: source.NewBrokerSink(stream.NewPublisher(conn, 0), names, "uid", limits), Drop: !withDead,
				Policy: delivery.Policy{Retries: 3, BackoffDelay: 5 * time.Millisecond}, Logger: slog.New(slog.DiscardHandler),
			}
			if withDead {
				outlet.DeadLetter = dead
			}
			o := r.options(nil)
			o.Outlet = source.NewOutlet(outlet)
			s := r.run(o)
			eventually(t, "all offsets are committed", func() bool { return r.committed("orders", 0) == int64(2*len(records)) })
			stats := s.Status().Outlet
			if stats.Sent+stats.DeadLettered+stats.Dropped != uint64(2*len(records)) || stats.Sent < uint64(len(records)) {
				t.Errorf("%+v of %d records", stats, 2*len(records))
			}
			if refused := stats.DeadLettered + stats.Dropped; refused != 4 || (stats.Dropped == 0) != withDead || len(dead.all()) != int(stats.DeadLettered) {
				t.Errorf("%+v, want the four that are too large refused", stats)
			}
			eventually(t, "the good ones are stored", func() bool {
				mu.Lock()
				defer mu.Unlock()
				for n := range len(records) {
					if !got[fmt.Sprintf("partition:0/offset:%dgood", 2*n+1)] {
						return false
					}
				}
				return true
			})
		})
	}
}

// startStore returns a connection to a real JetStream and the names of a Broker in it.
func startStore(t *testing.T) (*stream.Conn, *stream.Names) {
	t.Helper()
	server, err := devserver.Start(devserver.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := stream.Dial(stream.ConnOptions{InProcess: server, Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	names := stream.NewNames("default", "live", "0123456789abcdef")
	if err := conn.Ensure(t.Context(), names, stream.Limits{}); err != nil {
		t.Fatal(err)
	}
	return conn, names
}
