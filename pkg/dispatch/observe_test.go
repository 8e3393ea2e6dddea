package dispatch_test

import (
	"net/http"
	"sync"
	"testing"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

// diary keeps all that a Recorder is told.
type diary struct {
	mu       sync.Mutex
	matches  map[string][]string // Triggers by event
	attempts map[string][]observe.Attempt
	fates    map[string][]string // of event/trigger
}

func newDiary() *diary {
	return &diary{matches: map[string][]string{}, attempts: map[string][]observe.Attempt{}, fates: map[string][]string{}}
}

func (*diary) Arrived(observe.Arrival) {}

func (d *diary) Matched(m observe.Match) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := m.Event.Value(event.ID)
	d.matches[id] = []string{m.Broker.Key}
	for _, t := range m.Triggers {
		d.matches[id] = append(d.matches[id], t.Key)
	}
}

func (d *diary) Attempted(a observe.Attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts[a.Event.Value(event.ID)] = append(d.attempts[a.Event.Value(event.ID)], a)
}

func (d *diary) Settled(s observe.Settlement) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fates[s.Event.Value(event.ID)] = append(d.fates[s.Event.Value(event.ID)], s.Fate.String())
}

func (d *diary) Replied(x observe.Reply) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fate := "stored"
	if x.Dropped {
		fate = "dropped"
	}
	d.fates[x.To.Value(event.ID)] = append(d.fates[x.To.Value(event.ID)], "reply "+x.Event.Value(event.ID)+" "+fate)
}

func TestARecorderIsToldOfEachStep(t *testing.T) {
	f := newFixture(t)
	f.stop(0)
	seen := newDiary()
	f.start(dispatch.Options{Recorder: seen})
	s := newSubscriber(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Ce-Id") {
		case "flaky":
			if n == 1 {
				w.WriteHeader(http.StatusBadGateway)
			}
		case "poison":
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	f.serve(f.trigger("a", "wanted", s.URL))
	f.publish("unwanted", "other")
	f.publish("wanted", "fine", "flaky", "poison")
	f.waitEmpty()
	eventually(t, "all fates are told", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.fates["fine"]) == 1 && len(seen.fates["flaky"]) >= 2 && len(seen.fates["poison"]) == 1
	})

	seen.mu.Lock()
	defer seen.mu.Unlock()
	if got := seen.matches["other"]; len(got) != 1 || got[0] != "default/live" {
		t.Errorf("other: matched %v", got)
	}
	if got := seen.matches["fine"]; len(got) != 2 || got[1] != "default/a" {
		t.Errorf("fine: matched %v", got)
	}
	for id, want := range map[string][]string{"fine": {"delivered"}, "flaky": {"retried", "delivered"}, "poison": {"parked"}} {
		got := seen.fates[id]
		if len(got) < len(want) || got[0] != want[0] || got[len(got)-1] != want[len(want)-1] {
			t.Errorf("%s: fates %v, want %v", id, got, want)
		}
	}
	flaky := seen.attempts["flaky"]
	if len(flaky) != 2 || flaky[0].Status != http.StatusBadGateway || flaky[0].Reason != delivery.ReasonStatus.String() ||
		flaky[0].Action != "retry" || flaky[0].Number != 1 || flaky[1].Number != 2 || flaky[1].Action != "done" ||
		flaky[0].Destination != s.URL || flaky[1].Origin[0] != 'r' {
		t.Errorf("flaky: attempts %+v", flaky)
	}

	latencies := f.dispatchers[0].Latencies()
	if len(latencies) != 1 || latencies[0].EndToEnd.Count != 2 || latencies[0].Process.Count != 4 || len(latencies[0].Attempts) != 3 {
		t.Errorf("latencies: %+v", latencies)
	}
	if b := f.dispatchers[0].BrokerStats(); len(b) != 1 || b[0].Consumed != 4 || b[0].Unmatched != 1 {
		t.Errorf("broker: %+v", b)
	}
	f.serve()
	if got := f.dispatchers[0].Latencies(); len(got) != 0 {
		t.Errorf("a Trigger that is gone leaves %+v", got)
	}
}
