package adminapi_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/stream"
)

// traced returns what is said of an event, given the records that there are, in a store in which message 1 of each of the Broker's streams
// has been settled.
func traced(t *testing.T, f *fixture, id string, records ...journal.Record) *adminapi.Trace {
	t.Helper()
	if err := f.conn.EnsureJournal(t.Context(), stream.JournalLimits{}); err != nil {
		t.Fatal(err)
	}
	w := journal.NewWriter(journal.WriterOptions{Store: f.conn})
	begin := time.Now().Add(-time.Minute)
	for i, r := range records {
		r.ID, r.Source, r.Type, r.Broker, r.Time = id, "/s", "t", broker, begin.Add(time.Duration(i)*time.Second)
		w.Record(&r)
	}
	w.Stop(t.Context())
	h := adminapi.New(adminapi.Options{
		Reader: f.conn, Remover: f.conn, Redriver: f.faults, Journal: f.conn, Logger: slog.New(slog.DiscardHandler),
		Catalog: func() adminapi.Catalog { return adminapi.Catalog{broker: {Names: f.names}} },
	})
	s := httptest.NewServer(h)
	defer s.Close()
	trace, err := (&adminapi.Client{URL: s.URL}).Trace(t.Context(), id, "", "")
	if err != nil || len(trace.Events) != 1 {
		t.Fatalf("got %+v, %v", trace, err)
	}
	return &trace
}

// What is not known is called so, and what is known to be missing is told.
func TestWhatIsMissingFromTheJournal(t *testing.T) {
	f := newFixture(t)
	held := newEvent("held")
	p := stream.NewPublisher(f.conn, 0)
	if err := p.Publish(t.Context(), f.names, stream.Message{Event: held}); err != nil {
		t.Fatal(err)
	}
	const a = "default/a"
	received := journal.Record{Kind: journal.Received}
	matched := func(sequence uint64) journal.Record {
		return journal.Record{Kind: journal.Matched, Sequence: sequence, Triggers: []string{a}, Peer: "filter-1"}
	}
	again := matched(9)
	again.Again = true
	attempt := func(n int, fate journal.Fate) journal.Record {
		return journal.Record{Kind: journal.Attempted, Trigger: a, Attempt: n, Status: 503, Fate: fate, Peer: "filter-1"}
	}
	settled := func(fate journal.Fate) journal.Record {
		return journal.Record{Kind: journal.Settled, Trigger: a, Fate: fate, Sequence: 77}
	}
	for id, c := range map[string]struct {
		records     []journal.Record
		fate        string // of the event
		triggerFate string
		missing     string // what is said to be missing of the Trigger
		note        string
	}{
		"under way":          {[]journal.Record{received, matched(1)}, "pending", "pending", "", ""},
		"killed":             {[]journal.Record{received, matched(2)}, "unknown", "unknown", "(here it was filter-1)", ""},
		"killed in a retry":  {[]journal.Record{received, matched(2), attempt(1, 0), settled(journal.Retrying)}, "unknown", "unknown", "killed", ""},
		"an attempt is lost": {[]journal.Record{received, matched(2), attempt(2, journal.Delivered)}, "settled", "delivered", "attempt 1", ""},
		"redriven": {
			[]journal.Record{
				received, matched(2), attempt(1, 0), settled(journal.Retrying), attempt(2, journal.GivenUp), settled(journal.Parked), attempt(1, journal.Delivered),
			}, "settled", "delivered", "", "",
		},
		"removed": {[]journal.Record{received, matched(2), attempt(1, journal.GivenUp), settled(journal.Parked)}, "settled", "parked", "", "not parked any more"},
		"expired": {
			[]journal.Record{received, matched(1), settled(journal.Waiting), settled(journal.Expired), attempt(1, journal.DeadLettered)},
			"settled", "dead_lettered", "", "longer than the Trigger allows",
		},
	} {
		t.Run(id, func(t *testing.T) {
			e := traced(t, f, id, c.records...).Events[0]
			if len(e.Triggers) != 1 || e.Fate != c.fate || e.Triggers[0].Fate != c.triggerFate {
				t.Fatalf("got %+v, want %s and %s", e, c.fate, c.triggerFate)
			}
			tt := e.Triggers[0]
			if (tt.Missing != nil) != (c.missing != "") || tt.Missing != nil && !strings.Contains(tt.Missing.Why, c.missing) {
				t.Errorf("missing: %+v, want %q", tt.Missing, c.missing)
			}
			if !strings.Contains(tt.Note, c.note) {
				t.Errorf("note %q, want %q", tt.Note, c.note)
			}
		})
	}
	e := traced(t, f, "again", received, again, attempt(1, journal.Delivered)).Events[0]
	if e.Missing == nil || !strings.Contains(e.Missing.Why, "handed it out again") {
		t.Errorf("again: %+v", e)
	}
	// The store holds an event of the time, so this one may wait to be read.
	if e := traced(t, f, "stored", received).Events[0]; e.Fate != "unknown" || e.Missing == nil || e.Missing.After == nil {
		t.Errorf("an event of before the oldest in the store: %+v", e)
	}
}

func TestRepliesAreTold(t *testing.T) {
	f := newFixture(t)
	e := traced(t, f, "q", journal.Record{Kind: journal.Received}, journal.Record{Kind: journal.Matched, Triggers: []string{"default/a"}},
		journal.Record{Kind: journal.Answered, Trigger: "default/a", Cause: "r", Peer: "/replies"},
		journal.Record{Kind: journal.Attempted, Trigger: "default/a", Attempt: 1, Status: 200, Fate: journal.Delivered}).Events[0]
	if len(e.Triggers) != 1 || len(e.Triggers[0].Replies) != 1 || e.Triggers[0].Replies[0].ID != "r" || e.Triggers[0].Replies[0].Source != "/replies" {
		t.Errorf("the event: %+v", e)
	}
	e = traced(t, f, "r", journal.Record{Kind: journal.Replied, Trigger: "default/a", Cause: "q", Peer: "/s", Fate: journal.Dropped}).Events[0]
	if e.Fate != "dropped" || len(e.ReplyTo) != 1 || e.ReplyTo[0].ID != "q" || !e.ReplyTo[0].Dropped {
		t.Errorf("the reply: %+v", e)
	}
}
