package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// parkingLot is a store of parked events in memory.
type parkingLot struct {
	mu      sync.Mutex
	events  map[uint64]stream.Parked
	last    uint64
	redrive error // what a redrive fails with
}

func (l *parkingLot) park(age time.Duration, uid string, p stream.Progress, e *event.Event) {
	l.last++
	parked := stream.Parked{Sequence: l.last, TriggerUID: uid, At: time.Now().Add(-age), Progress: p, Event: e}
	if e == nil {
		parked.Problem = stream.ErrCorrupt
	} else {
		parked.Size = len(e.Data)
	}
	l.events[l.last] = parked
}

func (l *parkingLot) ParkedState(context.Context, *stream.Names) (stream.ParkedState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return stream.ParkedState{Messages: uint64(len(l.events)), Last: l.last}, nil
}

func (l *parkingLot) StreamState(context.Context, string) (stream.State, error) {
	return stream.State{}, nil
}

func (l *parkingLot) ListParked(_ context.Context, _ *stream.Names, q stream.ParkedQuery) (stream.ParkedPage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	page := stream.ParkedPage{Pending: uint64(len(l.events))}
	for _, sequence := range slices.Sorted(maps.Keys(l.events)) {
		p := l.events[sequence]
		if sequence <= q.After || q.Until > 0 && sequence > q.Until || q.TriggerUID != "" && p.TriggerUID != q.TriggerUID {
			continue
		}
		if len(page.Events) == q.Limit {
			page.Next = page.Events[q.Limit-1].Sequence
			break
		}
		page.Events = append(page.Events, p)
	}
	return page, nil
}

func (l *parkingLot) GetParked(_ context.Context, _ *stream.Names, sequence uint64) (*stream.Parked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.events[sequence]
	if !ok {
		return nil, fmt.Errorf("get parked event %d: %w", sequence, stream.ErrNotParked)
	}
	return &p, nil
}

func (l *parkingLot) DeleteParked(_ context.Context, _ *stream.Names, sequence uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.events[sequence]; !ok {
		return stream.ErrNotParked
	}
	delete(l.events, sequence)
	return nil
}

func (l *parkingLot) PurgeParked(_ context.Context, _ *stream.Names, uid string, until uint64) (n uint64, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for sequence, p := range l.events {
		if sequence <= until && (uid == "" || uid == p.TriggerUID) {
			delete(l.events, sequence)
			n++
		}
	}
	return n, nil
}

func (l *parkingLot) Waits(context.Context, string, uint64) (bool, error) { return true, nil }

func (l *parkingLot) Oldest(context.Context, string, string) (time.Time, error) {
	return time.Now().Add(-90 * time.Second), nil
}

func (l *parkingLot) PublishRetry(context.Context, *stream.Names, string, stream.Message, stream.Progress) (uint64, error) {
	return 0, l.redrive
}

// held are the Triggers that were paused by hand, of those there are.
type held struct {
	mu sync.Mutex
	by map[string]bool
}

func (h *held) Pause(trigger string, paused bool) (adminapi.PauseState, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was, ok := h.by[trigger]
	if !ok {
		return adminapi.PauseState{}, false
	}
	h.by[trigger] = paused
	return adminapi.PauseState{Trigger: trigger, Paused: paused, Changed: was != paused, Override: paused}, true
}

const deletedUID = "0c5ad8d1-6b9e-5d7f-9a54-3b6ab4f5c001"

// newAdmin serves an admin API with a few parked events of a Broker, and returns its URL. Of the Brokers that a case may
// name in its comment, "two brokers" adds another one, "full store" lets redrives fail, "rooms is paused" says so, and "a filter" pauses none by hand.
func newAdmin(t *testing.T, comment string) string {
	t.Helper()
	lot := &parkingLot{events: map[uint64]stream.Parked{}}
	down := stream.Progress{Attempt: 11, Code: 503, Cause: "overloaded: request 1234", Destination: "http://gifts.default.svc/"}
	for i := range 3 {
		lot.park(3*time.Hour-time.Duration(i)*time.Hour, "uid-gifts", down, parkedEvent(t, fmt.Sprint("gift-", i)))
	}
	bad := stream.Progress{Attempt: 1, Code: 400, Cause: "no such \x1b[31mroom\nat line 12", First: time.Unix(1_760_000_000, 0)}
	lot.park(90*time.Minute, "uid-rooms", bad, parkedEvent(t, "room-1"))
	lot.park(30*time.Minute, deletedUID, stream.Progress{Attempt: 3, Cause: "dial tcp 10.0.0.17:8080: connect: connection refused"}, parkedEvent(t, "old-1"))
	lot.park(5*time.Minute, "uid-rooms", stream.Progress{}, nil)
	if strings.Contains(comment, "full store") {
		lot.redrive = stream.ErrFull
	}
	catalog := adminapi.Catalog{"default/live": {Names: stream.NewNames("default", "live", "u1"), URL: "http://127.0.0.1:8080/default/live", Triggers: map[string]adminapi.Trigger{
		"uid-gifts": {Name: "default/gifts", Ready: true}, "uid-rooms": {Name: "default/rooms"},
	}}}
	if strings.Contains(comment, "two brokers") {
		catalog["other/b"] = &adminapi.Broker{Names: stream.NewNames("other", "b", "u2")}
	}
	var pauses adminapi.Pauser = &held{by: map[string]bool{"default/gifts": false, "default/rooms": strings.Contains(comment, "rooms is paused")}}
	if strings.Contains(comment, "a filter") {
		pauses = nil
	}
	s := httptest.NewServer(adminapi.New(adminapi.Options{
		Pauses: pauses,
		Reader: lot, Remover: lot, Redriver: lot, Logger: slog.New(slog.DiscardHandler),
		Catalog: func() adminapi.Catalog { return catalog },
		Journal: newDiary(),
		Counts: func() []adminapi.TriggerCounts {
			return []adminapi.TriggerCounts{{Broker: "default/live", Trigger: "default/gifts", Matched: 7, Attempts: 9, Failed: 5, Delivered: 4, Waiting: 2, Width: 32, RateLimit: 50}}
		},
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func parkedEvent(t *testing.T, id string) *event.Event {
	t.Helper()
	e, err := event.DecodeJSON([]byte(`{"specversion":"1.0","id":"` + id + `","source":"/rooms/1","type":"com.example.live.gift.sent",` +
		`"datacontenttype":"application/json","data":{"gift":"rocket"}}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestParseRate(t *testing.T) {
	for text, want := range map[string]float64{"50": 50, "50/s": 50, "30/m": 0.5, "0.5/s": 0.5, "3600/h": 1} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("parseRate(%q) = %g, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "5/d", "NaN", "Inf", "1/s/s"} {
		if got, err := parseRate(text); err == nil {
			t.Errorf("parseRate(%q) = %g", text, got)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 90 * time.Second: "1m", 47 * time.Hour: "47h", 50 * time.Hour: "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%s) = %s, want %s", d, got, want)
		}
	}
}
