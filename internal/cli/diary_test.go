package cli

import (
	"context"
	"os"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
)

// TestMain has times told alike everywhere.
func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// diary is a journal of one event, gift-0, in memory.
type diary []byte

func newDiary() diary {
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	of := func(r journal.Record) journal.Record {
		at = at.Add(time.Second)
		r.Time, r.Broker, r.ID, r.Source, r.Type = at, "default/live", "gift-0", "/rooms/1", "com.example.live.gift.sent"
		return r
	}
	var attributes []event.Attribute
	attributes = append(attributes, event.Attribute{Name: event.Subject, Value: "room-1"})
	var e journal.Encoder
	for _, r := range []journal.Record{
		of(journal.Record{Kind: journal.Received, Peer: "127.0.0.1:40000"}),
		of(journal.Record{Kind: journal.Matched, Sequence: 1, Due: at, Cause: "0af7651916cd43dd8448eb211c80319c", Triggers: []string{"default/gifts"}, Attributes: attributes}),
		of(journal.Record{Kind: journal.Attempted, Trigger: "default/gifts", Attempt: 1, Status: 503, Reason: "status", Cause: "overloaded", Duration: 20 * time.Millisecond}),
		of(journal.Record{Kind: journal.Settled, Trigger: "default/gifts", Fate: journal.Parked, Sequence: 1}),
	} {
		e.Add(&r)
	}
	return e.Take()
}

func (diary) StoreJournal(context.Context, []journal.Block) []journal.Block { return nil }

func (d diary) ReadJournal(_ context.Context, subject string, each func(time.Time, []byte) bool) error {
	if subject != journal.Subject(journal.Shard("gift-0")) {
		return nil
	}
	each(time.Date(2026, 1, 2, 15, 4, 30, 0, time.UTC), d)
	return nil
}

func (d diary) FollowJournal(ctx context.Context, each func([]byte)) error {
	each(d)
	<-ctx.Done()
	return nil
}
