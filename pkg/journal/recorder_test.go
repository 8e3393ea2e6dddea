package journal_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/observe"
)

var seenBroker = observe.NewBroker("default", "live", "")

func eventOf(id, source string) *event.Event {
	e := &event.Event{}
	e.Set(event.ID, id, event.String)
	e.Set(event.Source, source, event.String)
	e.Set(event.Type, "t", event.String)
	return e
}

func find(t *testing.T, s journal.Store, id string) journal.Found {
	t.Helper()
	f, err := journal.Find(t.Context(), s, id)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Whoever sends what is refused does not fill the journal, and accepted events are all recorded all the same.
func TestRefusalsAreBoundedAndCounted(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store, Name: "ingress-1", Buffer: 16 << 20})
	const refused = 20_000
	for i := range refused {
		w.Arrived(observe.Arrival{
			Broker: seenBroker, Event: eventOf(fmt.Sprint("no", i), strings.Repeat("s", 2000)), From: "10.0.0.1:1", At: time.Now(), Refused: "too-large",
		})
		w.Arrived(observe.Arrival{Broker: seenBroker, Event: eventOf(fmt.Sprint("yes", i), "/s"), At: time.Now()})
	}
	w.Arrived(observe.Arrival{Broker: seenBroker, Event: eventOf("", "/s"), Refused: "invalid-event"}) // nobody could ask for it
	w.Stop(t.Context())
	s := w.Stats()
	if s.Dropped != 0 || s.Omitted == 0 || s.Kept+s.Omitted != 2*refused || s.Kept < refused+100 || s.Kept > refused+2000 {
		t.Errorf("got %+v", s)
	}
	if s.Blocks == 0 || s.Bytes == 0 || s.Blocks != uint64(len(store.blocks)) {
		t.Errorf("got %+v of %d blocks", s, len(store.blocks))
	}
	f := find(t, store, "no0")
	if len(f.Records) != 1 || f.Records[0].Kind != journal.Refused || f.Records[0].Reason != "too-large" {
		t.Errorf("the first: %+v", f.Records)
	}
	if len(f.Gaps) != 1 || f.Gaps[0].Reason != journal.OfRefusals || f.Gaps[0].Sequence != s.Omitted || f.Gaps[0].Peer != "ingress-1" {
		t.Errorf("gaps: %+v", f.Gaps)
	}
}

func TestEachOfTwoEventsNamesTheOther(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store})
	long := strings.Repeat("x", 3000) // an id is kept in part, and found in full
	tr := &observe.Trigger{Broker: seenBroker, Key: "default/ask"}
	w.Replied(observe.Reply{Trigger: tr, Event: eventOf("answer", "/b"), To: eventOf(long, "/a"), At: time.Now()})
	w.Replied(observe.Reply{Trigger: tr, Event: eventOf("loop", "/b"), To: eventOf("q", "/a"), At: time.Now(), Dropped: true})
	w.Stop(t.Context())
	for id, want := range map[string]journal.Record{
		"answer": {Kind: journal.Replied, Cause: long[:1024], Peer: "/a"},
		long:     {Kind: journal.Answered, Cause: "answer", Peer: "/b"},
		"loop":   {Kind: journal.Replied, Cause: "q", Peer: "/a", Fate: journal.Dropped},
		"q":      {Kind: journal.Answered, Cause: "loop", Peer: "/b", Fate: journal.Dropped},
	} {
		f := find(t, store, id)
		if len(f.Records) != 1 {
			t.Fatalf("%.9s: %+v", id, f.Records)
		}
		r := f.Records[0]
		if r.Kind != want.Kind || r.Cause != want.Cause || r.Peer != want.Peer || r.Fate != want.Fate || r.Trigger != "default/ask" {
			t.Errorf("%.9s: got %+v, want %+v", id, r, want)
		}
	}
}

func TestExpiredDeliveriesAreTold(t *testing.T) {
	store := &memoryStore{}
	w := journal.NewWriter(journal.WriterOptions{Store: store, Name: "filter-1"})
	tr := &observe.Trigger{Broker: seenBroker, Key: "default/slow"}
	w.Settled(observe.Settlement{Trigger: tr, Event: eventOf("e", "/s"), Fate: observe.Expired, At: time.Now()})
	w.Settled(observe.Settlement{Trigger: tr, Event: eventOf("e", "/s"), Fate: observe.Parked, At: time.Now(), Sequence: 7})
	w.Attempted(observe.Attempt{Trigger: tr, Event: eventOf("again", "/s"), Again: true, Number: 1, Action: "done"})
	w.Stop(t.Context())
	f := find(t, store, "e")
	if len(f.Records) != 2 || f.Records[0].Fate != journal.Expired || f.Records[1].Fate != journal.Parked || f.Records[1].Sequence != 7 ||
		f.Records[1].Peer != "filter-1" {
		t.Errorf("got %+v", f.Records)
	}
	if f := find(t, store, "again"); len(f.Records) != 1 || !f.Records[0].Again {
		t.Errorf("got %+v", f.Records)
	}
}
