package micro

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

const (
	journalRecords  = 1_000_000
	recordsPerEvent = 3
	journalLookups  = 100
	journalBytes    = 2 << 30
)

const whyManifests = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: live, namespace: default, annotations: {eventing.knative.dev/broker.class: Millrace}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: gifts, namespace: default}
spec: {broker: live, subscriber: {uri: "http://127.0.0.1:9"}}
`

// journalLayout is a way to lay records out in a stream.
type journalLayout struct {
	name     string
	perBlock int
	subject  func(id string) string
}

// BenchmarkJournal compares ways to lay out 1,000,000 records: gathered into blocks by shard of the event's id, as many as
// come together at 12,000 events a second and at one event every few seconds; gathered without shards; and each record by
// itself under a subject made of its event's id. It reports the 95th percentile of the time to find an event, the processor
// time of nats-server for each record, and the bytes in the store.
func BenchmarkJournal(b *testing.B) {
	shard := func(id string) string { return journal.Subject(journal.Shard(id)) }
	hashed := func(id string) string {
		h := fnv.New32a()
		_, _ = h.Write([]byte(id))
		return strconv.Itoa(int(h.Sum32() % 65536))
	}
	for _, l := range []journalLayout{
		{"sharded", 500, shard}, {"sharded-sparse", 1, shard}, {"unsharded", 16_000, func(string) string { return "0" }}, {"by-id", 1, hashed},
	} {
		b.Run(l.name, func(b *testing.B) {
			c := harness.NewCluster(b, programs.Dir(b), "")
			conn := startJournal(b, c)
			before := c.NATS.CPU(b)
			fillJournal(b, conn, l)
			used := c.NATS.CPU(b) - before
			state, err := conn.StreamState(b.Context(), stream.JournalStream)
			if err != nil {
				b.Fatal(err)
			}
			var times []float64
			for b.Loop() {
				for i := range journalLookups {
					id := journalID(int(rand.Uint64N(journalRecords / recordsPerEvent)))
					begun := time.Now()
					if n := lookUp(b, conn, l.subject(id), id); n != recordsPerEvent {
						b.Fatalf("look-up %d: found %d records of %s", i, n, id)
					}
					times = append(times, float64(time.Since(begun).Microseconds())/1000)
				}
			}
			slices.Sort(times)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(times[len(times)*95/100], "p95-ms")
			b.ReportMetric(times[len(times)/2], "median-ms")
			b.ReportMetric(float64(used.Nanoseconds())/journalRecords/1000, "server-µs/record")
			b.ReportMetric(float64(state.Bytes)/journalRecords, "B/record")
		})
	}
}

// startJournal starts a store with an empty journal.
func startJournal(b *testing.B, c *harness.Cluster) *stream.Conn {
	b.Helper()
	c.StartNATS(b)
	connect(b, c) // waits until the server answers
	conn, err := stream.Dial(stream.ConnOptions{URL: c.NATSURL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	harness.Eventually(b, "the journal is there", func() error {
		return conn.EnsureJournal(b.Context(), stream.JournalLimits{MaxBytes: journalBytes})
	})
	return conn
}

// BenchmarkWhy runs the command `millrace why` for events at random among 1,000,000 records, and reports the 95th percentile and the
// median of the time that whoever typed it waits: starting the program, a filter's reading of the journal and asking of the store, and printing.
func BenchmarkWhy(b *testing.B) {
	manifests := filepath.Join(b.TempDir(), "broker.yaml")
	if err := os.WriteFile(manifests, []byte(whyManifests), 0o600); err != nil {
		b.Fatal(err)
	}
	millrace := filepath.Join(harness.Build(b, "millrace.dev/cmd/millrace"), "millrace")
	c := harness.NewCluster(b, programs.Dir(b), manifests)
	conn := startJournal(b, c)
	fillJournal(b, conn, journalLayout{perBlock: 500, subject: func(id string) string { return journal.Subject(journal.Shard(id)) }})
	filter := c.StartFilter(b)
	harness.WaitReady(b, filter.Admin+"/readyz")
	var times []float64
	for b.Loop() {
		for range journalLookups {
			id := journalID(int(rand.Uint64N(journalRecords / recordsPerEvent)))
			begun := time.Now()
			out, err := exec.CommandContext(b.Context(), millrace, "why", id, "--admin-url", filter.Admin).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte(id)) || !bytes.Contains(out, []byte("default/gifts")) {
				b.Fatalf("why %s: %v: %s", id, err, out)
			}
			times = append(times, float64(time.Since(begun).Microseconds())/1000)
		}
	}
	slices.Sort(times)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(times[len(times)*95/100], "p95-ms")
	b.ReportMetric(times[len(times)/2], "median-ms")
}

func journalID(i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(i)*2654435761, i)
}

// lookUp counts the records of an event below a subject.
func lookUp(b *testing.B, conn *stream.Conn, subject, id string) (n int) {
	b.Helper()
	err := conn.ReadJournal(b.Context(), subject, func(_ time.Time, data []byte) bool {
		if err := journal.Decode(data, func(r *journal.Record) bool {
			if r.ID == id {
				n++
			}
			return true
		}); err != nil {
			b.Fatal(err)
		}
		return true
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func fillJournal(b *testing.B, conn *stream.Conn, l journalLayout) {
	b.Helper()
	const atATime = 4000
	encoders, counts := map[string]*journal.Encoder{}, map[string]int{}
	var blocks []journal.Block
	store := func() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		if failed := conn.StoreJournal(ctx, blocks); len(failed) > 0 {
			b.Fatalf("%d of %d blocks were not kept", len(failed), len(blocks))
		}
		blocks = blocks[:0]
	}
	complete := func(subject string) {
		blocks = append(blocks, journal.Block{Subject: subject, Data: encoders[subject].Take()})
		counts[subject] = 0
		if len(blocks) == atATime {
			store()
		}
	}
	base := time.Now()
	for i := range journalRecords {
		n := i / recordsPerEvent
		r := journalRecord(journalID(n), n, i%recordsPerEvent, base.Add(time.Duration(i)*30*time.Microsecond))
		subject := l.subject(r.ID)
		e := encoders[subject]
		if e == nil {
			e = &journal.Encoder{}
			encoders[subject] = e
		}
		e.Add(r)
		if counts[subject]++; counts[subject] == l.perBlock {
			complete(subject)
		}
	}
	for subject, n := range counts {
		if n > 0 {
			complete(subject)
		}
	}
	store()
}

// journalRecord is one of the records of an event that is delivered at once.
func journalRecord(id string, n, which int, at time.Time) *journal.Record {
	r := &journal.Record{Broker: "default/live", ID: id, Source: "/rooms/42", Type: "com.example.gift.sent", Time: at}
	switch which {
	case 0:
		r.Kind, r.Peer = journal.Received, "10.1.2.3:40124"
	case 1:
		r.Kind, r.Sequence, r.Triggers = journal.Matched, uint64(n), []string{"default/gifts"}
		r.Attributes = []event.Attribute{
			{Name: event.SpecVersion, Value: "1.0"},
			{Name: event.ID, Value: id},
			{Name: event.Source, Value: r.Source},
			{Name: event.Type, Value: r.Type},
			{Name: event.Time, Value: at.Format(time.RFC3339Nano)},
			{Name: event.Subject, Value: "room-42"},
			{Name: event.DataContentType, Value: "application/json"},
			{Name: event.ArrivalTime, Value: at.Format(time.RFC3339Nano)},
			{Name: event.HopLimit, Value: "255", Kind: event.Integer},
		}
	default:
		r.Kind, r.Fate, r.Trigger = journal.Attempted, journal.Delivered, "default/gifts"
		r.Attempt, r.Status, r.Duration = 1, 200, time.Duration(n%977)*time.Microsecond
	}
	return r
}
