package journal_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
)

// memoryStore keeps blocks in memory.
type memoryStore struct {
	mu     sync.Mutex
	blocks []journal.Block
	refuse bool
	calls  atomic.Int64
	hang   chan struct{} // if not nil, StoreJournal waits for it
}

func (s *memoryStore) StoreJournal(_ context.Context, blocks []journal.Block) []journal.Block {
	s.mu.Lock()
	hang, refuse := s.hang, s.refuse
	defer s.calls.Add(1)
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if refuse {
		return append([]journal.Block(nil), blocks...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks = append(s.blocks, blocks...)
	return nil
}

func (s *memoryStore) ReadJournal(_ context.Context, subject string, each func(time.Time, []byte) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		if b.Subject == subject && !each(time.Now(), b.Data) {
			break
		}
	}
	return nil
}

func (s *memoryStore) FollowJournal(context.Context, func([]byte)) error { return nil }

func randomRecord(r *rand.Rand, id string) journal.Record {
	at := time.UnixMicro(1_790_000_000_000_000 + r.Int64N(1e9))
	rec := journal.Record{
		Kind: journal.Kind(1 + r.IntN(6)), Fate: journal.Fate(r.IntN(9)), DeadLetter: r.IntN(2) == 0, Time: at,
		Broker: "default/live", ID: id, Source: fmt.Sprint("/s/", r.IntN(5)), Type: fmt.Sprint("t", r.IntN(5)),
	}
	if r.IntN(2) == 0 {
		rec.Sequence, rec.Peer = r.Uint64(), "10.0.0.1:1234"
		rec.Triggers = []string{"default/a", "default/b"}
		rec.Attributes = []event.Attribute{
			{Name: "id", Value: id},
			{Name: "source", Value: rec.Source},
			{Name: "type", Value: rec.Type},
			{Name: "n", Value: "3", Kind: event.Integer},
			{Name: "subject", Value: strings.Repeat("é", r.IntN(90))},
		}
	} else {
		rec.Trigger, rec.Attempt, rec.Status = "default/a", 1+r.IntN(9), 503
		rec.Reason, rec.Cause, rec.Duration = "status", "busy", time.Duration(r.IntN(1e6))*time.Microsecond
		rec.Due = at.Add(time.Second)
	}
	return rec
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	r := rand.New(rand.NewPCG(1, 2))
	want := map[string][]journal.Record{}
	for range 5000 {
		id := fmt.Sprint("event-", r.IntN(2000))
		rec := randomRecord(r, id)
		w.Record(&rec)
		want[id] = append(want[id], rec)
	}
	w.Stop(t.Context())
	for id, records := range want {
		f, err := journal.Find(t.Context(), store, id)
		if err != nil || len(f.Records) != len(records) || len(f.Gaps) != 0 {
			t.Fatalf("%s: got %d records, %d gaps, %v; want %d", id, len(f.Records), len(f.Gaps), err, len(records))
		}
		for _, rec := range records {
			found := false
			for _, got := range f.Records {
				found = found || cmp.Equal(rec, got)
			}
			if !found {
				t.Fatalf("%s: no %+v in %+v", id, rec, f.Records)
			}
		}
	}
	if s := w.Stats(); s.Kept != 5000 || s.Dropped != 0 {
		t.Errorf("got %+v", s)
	}
}

// More records of one shard than a block holds.
func TestBlocksOfOneShard(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	const records = 3000
	source := func(i int) string { return fmt.Sprintf("/%d/%s", i%1500, strings.Repeat("s", i%97)) }
	at := time.UnixMicro(1_790_000_000_000_000)
	for i := range records {
		w.Record(&journal.Record{
			Kind: journal.Received, ID: "1", Broker: "default/live", Source: source(i), Type: fmt.Sprint("t", i%7), Peer: source(i / 2), Time: at.Add(time.Duration(i) * time.Millisecond),
		})
	}
	w.Stop(t.Context())
	f, err := journal.Find(t.Context(), store, "1")
	if err != nil || len(f.Records) != records || len(store.blocks) < 2 {
		t.Fatalf("got %d records in %d blocks, %v", len(f.Records), len(store.blocks), err)
	}
	for i := range f.Records {
		r := &f.Records[i]
		if r.Broker != "default/live" || r.Source != source(i) || r.Type != fmt.Sprint("t", i%7) || r.Peer != source(i/2) {
			t.Fatalf("record %d: got %+v", i, r)
		}
	}
}

// Blocks in which strings that come again are numbers are in stores, though no version writes them any more.
func TestStringsThatAreNumbersAreRead(t *testing.T) {
	const block = "\x01\xfd\x01\xf0a\x80\x80\xaf\xa2\xdb\xff\xad\x06\x01\x88\b\x00\x00\fdefault/live\aevent-0\x00\t/rooms/42\x00\x04gift\x00\x0e" +
		"10.1.2.3:40124\xe8\a\x02\xac0\x00\x01\aevent-0\x02\x03\x01\x00\bfilter-1\x01\x00\r\x11T\x90gifts\x00\x04\x00\asubject\x00\aroom-42\x00\x01n\x01\x010" +
		"\x01\x88\b\x80\x89z\x11F 1\x02\x03\x04\xe8\a\x02\xac06\x14\x00\x18\x02\x05\x01\x06\x00\x04\a\x15;(\b\x01\x011\x01\x88\b\x80\x92\xf4\x01\x11\x80\x00" +
		"2\x15:6\x15\x00\x00\x03F;\x00\x002"
	at := time.UnixMicro(1_790_000_000_000_000)
	var got, want []journal.Record
	for i := range 3 {
		r := journal.Record{Time: at.Add(time.Duration(i) * time.Second), Broker: "default/live", ID: fmt.Sprint("event-", i), Source: "/rooms/42", Type: "gift"}
		received, matched := r, r
		received.Kind, received.Peer, received.Duration = journal.Received, "10.1.2.3:40124", time.Millisecond
		matched.Kind, matched.Peer, matched.Sequence, matched.Due = journal.Matched, "filter-1", uint64(i+1), at
		matched.Triggers = []string{"default/gifts"}
		matched.Attributes = []event.Attribute{
			{Name: "id", Value: r.ID},
			{Name: "source", Value: r.Source},
			{Name: "type", Value: r.Type},
			{Name: "subject", Value: "room-42"},
			{Name: "n", Value: fmt.Sprint(i), Kind: event.Integer},
		}
		want = append(want, received, matched)
	}
	err := journal.Decode([]byte(block), func(r *journal.Record) bool { got = append(got, *r); return true })
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestAFullBufferDropsAndTellsOfTheGap(t *testing.T) {
	hang := make(chan struct{})
	store := &memoryStore{hang: hang}
	w := journal.NewWriter(journal.WriterOptions{Store: store, Buffer: 16, Name: "filter-1", Logger: slog.New(slog.DiscardHandler)})
	for i := range 1000 { // none of which may block
		w.Record(&journal.Record{Kind: journal.Received, ID: fmt.Sprint(i), Broker: "default/live"})
	}
	close(hang)
	w.Stop(t.Context())
	s := w.Stats()
	if s.Kept+s.Dropped != 1000 || s.Dropped == 0 {
		t.Errorf("got %+v, want 1000 in all, some dropped", s)
	}
	f, err := journal.Find(t.Context(), store, "0")
	if err != nil || len(f.Records) != 1 {
		t.Fatalf("got %+v, %v", f, err)
	}
	var told uint64
	for _, g := range f.Gaps {
		told += g.Sequence
		if g.Peer != "filter-1" || g.Due.IsZero() || g.Due.After(g.Time) {
			t.Errorf("got gap %+v", g)
		}
	}
	if told != s.Dropped {
		t.Errorf("the gaps tell of %d records, %d were dropped", told, s.Dropped)
	}
}

func TestBlocksWaitForAStoreThatIsAway(t *testing.T) {
	store := &memoryStore{refuse: true}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	for i := range 100 {
		w.Record(&journal.Record{Kind: journal.Received, ID: fmt.Sprint(i)})
	}
	for deadline := time.Now().Add(time.Minute); store.calls.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	store.mu.Lock()
	store.refuse = false
	store.mu.Unlock()
	w.Stop(t.Context())
	if s := w.Stats(); s.Kept != 100 || s.Dropped != 0 {
		t.Errorf("got %+v, want all kept", s)
	}
}

func TestRefusedBlocksAreCounted(t *testing.T) {
	store := &memoryStore{refuse: true}
	w := journal.NewWriter(journal.WriterOptions{Store: store, Logger: slog.New(slog.DiscardHandler)})
	for i := range 100 {
		w.Record(&journal.Record{Kind: journal.Received, ID: fmt.Sprint(i)})
	}
	w.Stop(t.Context())
	w.Record(&journal.Record{Kind: journal.Received, ID: "late"})
	if s := w.Stats(); s.Kept != 0 || s.Dropped != 101 {
		t.Errorf("got %+v", s)
	}
}

func TestLongTextsAreBounded(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	long := strings.Repeat("x", 1<<20)
	w.Record(&journal.Record{
		Kind: journal.Matched, ID: "1", Source: long, Type: long, Cause: long, Peer: long,
		Attributes: []event.Attribute{{Name: "a", Value: "1"}, {Name: "b", Value: long}},
	})
	w.Stop(t.Context())
	f, err := journal.Find(t.Context(), store, "1")
	if err != nil || len(f.Records) != 1 {
		t.Fatalf("got %d records, %v", len(f.Records), err)
	}
	r := f.Records[0]
	if len(r.Source) > 2048 || len(r.Cause) > 2048 || !r.Cut || len(r.Attributes) != 4 {
		t.Errorf("got source of %d, cause of %d, cut %v, %d attributes", len(r.Source), len(r.Cause), r.Cut, len(r.Attributes))
	}
}

func FuzzDecode(f *testing.F) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 50 {
		rec := randomRecord(r, fmt.Sprint(i))
		w.Record(&rec)
	}
	w.Stop(f.Context())
	for _, b := range store.blocks {
		f.Add(b.Data)
	}
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(_ *testing.T, data []byte) {
		_ = journal.Decode(data, func(*journal.Record) bool { return true }) // it neither panics nor runs away
	})
}

func BenchmarkRecord(b *testing.B) {
	w := journal.NewWriter(journal.WriterOptions{Store: discard{}})
	defer w.Stop(b.Context())
	attributes := []event.Attribute{
		{Name: "specversion", Value: "1.0"},
		{Name: "id", Value: "1"},
		{Name: "source", Value: "/s"},
		{Name: "type", Value: "t"},
		{Name: "time", Value: "2026-01-01T00:00:00Z"},
		{Name: "datacontenttype", Value: "application/json"},
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Record(&journal.Record{
			Kind: journal.Matched, Broker: "default/live", ID: "event-1234567", Source: "/s", Type: "t", Sequence: uint64(i),
			Attributes: attributes,
		})
	}
}

type discard struct{ *memoryStore }

func (discard) StoreJournal(context.Context, []journal.Block) []journal.Block { return nil }
