package dispatch_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/pkg/dispatch"
	"millrace.dev/test/harness"
)

// A dead subscriber: its events wait in the store without spending attempts, and come back when it does, each once, while
// another Trigger goes on undisturbed.
func TestBacklogOfADeadSubscriberWaitsAndDrains(t *testing.T) {
	f := newFixture(t)
	var up atomic.Bool
	dead := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	steady := newSubscriber(t, nil)
	f.serve(f.trigger("dead", "", dead.URL), f.trigger("steady", "", steady.URL))
	const count = 3000
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "the steady subscriber has everything", func() bool { return steady.total() == count })
	eventually(t, "all events are settled or wait", func() bool { return f.stored(f.names.Events) == 0 })
	attempts := dead.total()
	if attempts > count/2 {
		t.Errorf("%d attempts at a subscriber that is down, for %d events", attempts, count)
	}
	up.Store(true)
	f.waitEmpty()
	if c := f.counts("dead"); c.Delivered+c.Parked != count {
		t.Errorf("%d delivered and %d parked of %d", c.Delivered, c.Parked, count)
	}
	for i := range count {
		if n := steady.times(fmt.Sprint(i)); n != 1 {
			t.Fatalf("steady got event %d %d times", i, n)
		}
	}
	t.Logf("%d attempts while it was down", attempts)
}

// New events keep coming while a backlog drains: both get places, and all arrive once.
func TestBacklogDrainsBesideNewEvents(t *testing.T) {
	f := newFixture(t)
	var up atomic.Bool
	s := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
		time.Sleep(2 * time.Millisecond)
	})
	tr := f.trigger("t", "", s.URL)
	tr.MaxConcurrency = 8
	tr.Policy.Retries = 1000 // none is to be given up
	f.serve(tr)
	for i := range 1000 {
		f.publish("x", fmt.Sprint("old", i))
	}
	eventually(t, "the backlog has them", func() bool { return f.stored(f.names.Events) == 0 })
	up.Store(true)
	before := s.total()
	for i := range 500 {
		f.publish("x", fmt.Sprint("new", i))
	}
	f.waitEmpty()
	if got := s.total() - before; got != 1500 {
		t.Errorf("%d deliveries after it came back, want 1500", got)
	}
	for i := range 500 {
		if n := s.times(fmt.Sprint("new", i)); n != 1 {
			t.Fatalf("new event %d came %d times", i, n)
		}
	}
}

// More Triggers in trouble than backlogs are drained at a time: each makes progress.
func TestManyTriggersInTroubleAllRecover(t *testing.T) {
	f := newFixture(t)
	var up atomic.Bool
	s := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	const triggers, events = 40, 5
	var all []*dispatch.Trigger
	for i := range triggers {
		tr := f.trigger(fmt.Sprint("t", i), "", s.URL)
		tr.Policy.Retries = 1000
		all = append(all, tr)
	}
	f.serve(all...)
	for i := range events {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "nothing is left among the new events", func() bool { return f.stored(f.names.Events) == 0 })
	up.Store(true)
	f.waitEmpty()
	for i := range triggers {
		if c := f.counts(fmt.Sprint("t", i)); c.Delivered != events {
			t.Errorf("trigger %d: %d of %d delivered", i, c.Delivered, events)
		}
	}
}

// What waits survives the process: another one finds it in the store.
func TestBacklogIsFoundAfterARestart(t *testing.T) {
	f := newFixture(t)
	var up atomic.Bool
	s := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	tr := f.trigger("t", "", s.URL)
	tr.Policy.Retries = 1000
	tr.Policy.BackoffDelay = 50 * time.Millisecond
	f.serve(tr)
	const count = 500
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "all wait", func() bool { return f.stored(f.names.Events) == 0 })
	f.stop(10 * time.Second)
	if got := f.stored(f.names.Retries); got != count {
		t.Fatalf("%d deliveries wait after the stop, want %d", got, count)
	}
	up.Store(true)
	before := s.total()
	f.start(dispatch.Options{})
	f.serve(tr)
	f.waitEmpty()
	if got := s.total() - before; got != count {
		t.Errorf("%d deliveries after the restart, want %d", got, count)
	}
}

// Two processes share the backlog.
func TestTwoProcessesShareTheBacklog(t *testing.T) {
	f := newFixture(t)
	var up atomic.Bool
	s := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		time.Sleep(time.Millisecond)
	})
	tr := f.trigger("t", "", s.URL)
	tr.Policy.Retries = 1000
	f.serve(tr)
	const count = 1000
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "all wait", func() bool { return f.stored(f.names.Events) == 0 })
	f.start(dispatch.Options{})
	f.serve(tr)
	up.Store(true)
	before := s.total()
	f.waitEmpty()
	if got := s.total() - before; got != count {
		t.Errorf("%d deliveries by two processes, want %d", got, count)
	}
}

// Somebody deletes the consumers: they are made again, and nothing is lost.
func TestDeletedConsumersAreMadeAgain(t *testing.T) {
	f := newFixture(t)
	flaky := newSubscriber(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	f.serve(f.trigger("t", "", flaky.URL))
	f.publish("x", "a")
	f.waitEmpty()
	for _, s := range []string{f.names.Events, f.names.Retries} {
		harness.DeleteConsumers(t, f.server, s)
	}
	f.publish("x", "b")
	f.waitEmpty()
	if got := flaky.times("b"); got != 2 {
		t.Errorf("b was tried %d times, want 2", got)
	}
}

// Events that wait too long for a subscriber that is down go to the dead letter sink, if the Trigger says so, without an
// attempt spent on them.
func TestBacklogMaxAge(t *testing.T) {
	f := newFixture(t)
	f.stop(0)
	seen := newDiary()
	f.start(dispatch.Options{Recorder: seen})
	dead := newSubscriber(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	var data atomic.Value
	sink := newSubscriber(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		data.Store(r.Header.Get("ce-knativeerrorcode"))
	})
	tr := f.trigger("t", "", dead.URL)
	tr.Policy.Retries = 1000
	tr.Policy.BackoffDelay = 10 * time.Second // those that were tried wait longer than the test
	tr.DeadLetterSink = mustURL(t, sink.URL)
	f.serve(tr)
	const count = 300
	for i := range count {
		f.publish("x", fmt.Sprint(i))
	}
	eventually(t, "the gate is closed and the rest waits", func() bool { return f.stored(f.names.Events) == 0 })
	tried := dead.total()
	if sink.total() != 0 {
		t.Fatalf("%d events given up although no age was set", sink.total())
	}
	tr2 := *tr
	tr2.Policy.BacklogMaxAge = 50 * time.Millisecond
	f.serve(&tr2)
	eventually(t, "the events of the backlog are given up", func() bool { return sink.total() >= count-tried })
	eventually(t, "it is told that they waited too long, and where they went", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		n := 0
		for _, fates := range seen.fates {
			if i := slices.Index(fates, "expired"); i >= 0 && slices.Contains(fates[i:], "dead_lettered") {
				n++
			}
		}
		return n >= count-tried
	})
	if data.Load() != "500" {
		t.Errorf("knativeerrorcode %v", data.Load())
	}
	if probes := dead.total() - tried; probes > 20 {
		t.Errorf("%d attempts while giving up", probes)
	}
}
