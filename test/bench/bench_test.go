package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"millrace.dev/test/bench/load"
	"millrace.dev/test/bench/rig"
)

func TestPayload(t *testing.T) {
	var data struct{ Amount int }
	if err := json.Unmarshal(payload, &data); err != nil || len(payload) != dataBytes || data.Amount != amount {
		t.Errorf("%d bytes, amount %d, %v", len(payload), data.Amount, err)
	}
}

func TestSumOf(t *testing.T) {
	text := "# TYPE a_total counter\na_total{trigger=\"x y\"} 3\na_total{trigger=\"z\"} 4.5e1\na_total_more{} 7\n"
	if sum, err := sumOf(text, "a_total"); err != nil || sum != 48 {
		t.Errorf("got %v, %v, want 48", sum, err)
	}
	if _, err := sumOf(text, "b_total"); err == nil {
		t.Error("a metric that is not there has a sum")
	}
}

func TestScenariosAreFoundByName(t *testing.T) {
	chosen, err := choose([]string{"latency", "ingest"})
	if err != nil || len(chosen) != 2 || chosen[0].name != "latency" {
		t.Errorf("got %v, %v", chosen, err)
	}
	if _, err := choose([]string{"speed"}); err == nil {
		t.Error("an unknown scenario was found")
	}
}

// A broker that accepts events and delivers none, or delivers them twice, must fail the run.
func TestLossAndRepetitionFailTheRun(t *testing.T) {
	for name, deliver := range map[string]func(t *target, seq uint64){
		"lost":  func(*target, uint64) {},
		"twice": func(t *target, seq uint64) { t.book.Receive(0, seq); t.book.Receive(0, seq) },
		"stray": func(t *target, seq uint64) { t.book.Receive(0, seq); t.book.Receive(1, seq) },
	} {
		t.Run(name, func(t *testing.T) {
			target, err := newTarget("t", 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				deliver(target, target.book.Sent()-1) // one event at a time is under way
				w.WriteHeader(http.StatusAccepted)
			}))
			defer broker.Close()
			target.book.Begin(0)
			for range 3 {
				if err := postOnce(strings.TrimPrefix(broker.URL, "http://"), target.request, target.book.Send(time.Now())); err != nil {
					t.Fatal(err)
				}
			}
			if err := newBench().close(target); err == nil {
				t.Error("the run did not fail")
			}
		})
	}
}

// What a slice sent is what the check of the store is asked for.
func TestASliceChecksWhatItSent(t *testing.T) {
	target, err := newTarget("t", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer broker.Close()
	target.rig, target.hosts = &rig.Rig{}, []string{strings.TrimPrefix(broker.URL, "http://")}
	target.request = load.Binary("/", eventType, payload)
	asked := int64(0)
	target.settle = func(_ context.Context, events int64) error {
		asked = events
		return nil
	}
	s, err := newBench().slice(t.Context(), target, 20*time.Millisecond, false)
	if err != nil || s.events == 0 || asked != s.events {
		t.Errorf("%d events, of which settle was asked for %d: %v", s.events, asked, err)
	}
}

func newBench() *bench { return &bench{report: newReport("smoke", nil), started: time.Now()} }
