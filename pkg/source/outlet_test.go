package source_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
)

// script is a Sink that answers one event at a time from a list, and then takes everything.
type script struct {
	answers []error
	got     []*event.Event
	times   []time.Time
}

func (s *script) Batch() int { return 10 }

func (s *script) Send(_ context.Context, msgs []source.Message) (int, error) {
	for i := range msgs {
		s.times = append(s.times, time.Now())
		if len(s.answers) > 0 {
			err := s.answers[0]
			s.answers = s.answers[1:]
			if err != nil {
				return i, err
			}
		}
		s.got = append(s.got, msgs[i].Event)
	}
	return len(msgs), nil
}

func ids(events []*event.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.Value(event.ID))
	}
	return all
}

func messages(n int) []source.Message {
	msgs := make([]source.Message, n)
	for i := range msgs {
		e := &event.Event{}
		e.Set(event.SpecVersion, "1.0", event.String)
		e.Set(event.ID, fmt.Sprint(i), event.String)
		e.Set(event.Source, "/test", event.String)
		e.Set(event.Type, "test", event.String)
		msgs[i] = source.Message{Event: e, Key: fmt.Sprint(i)}
	}
	return msgs
}

func status(code int) error {
	return &source.Failure{Result: delivery.Result{Status: code}}
}

func away() error {
	return &source.Failure{Down: true, Result: delivery.Result{Err: errors.New("away")}}
}

func repeat(err error, n int) []error { return slices.Repeat([]error{err}, n) }

// TestSettle says what becomes of events, by what the sink and the dead letter sink answer.
func TestSettle(t *testing.T) {
	policy := delivery.Policy{Retries: 2, BackoffDelay: time.Second, BackoffMax: time.Second}
	for name, c := range map[string]struct {
		sink, dead []error
		noDead     bool
		drop       bool
		sent       []string
		buried     []string
		stats      source.OutletStats
		least      time.Duration // how long it takes at least
	}{
		"taken":                        {sent: []string{"0", "1", "2"}, stats: source.OutletStats{Sent: 3}},
		"tried again":                  {sink: []error{nil, status(503), status(500)}, sent: []string{"0", "1", "2"}, stats: source.OutletStats{Sent: 3, Failed: 2}, least: 1800 * time.Millisecond},
		"out of attempts":              {sink: repeat(status(503), 3), sent: []string{"1", "2"}, buried: []string{"0"}, stats: source.OutletStats{Sent: 2, DeadLettered: 1, Failed: 3}},
		"rejected":                     {sink: []error{nil, status(400)}, sent: []string{"0", "2"}, buried: []string{"1"}, stats: source.OutletStats{Sent: 2, DeadLettered: 1, Failed: 1}},
		"down costs no attempts":       {sink: repeat(away(), 50), sent: []string{"0", "1", "2"}, stats: source.OutletStats{Sent: 3, Failed: 50}, least: 45 * time.Second},
		"dead letter sink is tried on": {sink: []error{status(400)}, dead: repeat(status(503), 20), sent: []string{"1", "2"}, buried: []string{"0"}, stats: source.OutletStats{Sent: 2, DeadLettered: 1, Failed: 21}},
		"blocked until taken":          {sink: repeat(status(400), 7), noDead: true, sent: []string{"0", "1", "2"}, stats: source.OutletStats{Sent: 3, Failed: 7}},
		"dropped":                      {sink: []error{nil, status(400)}, noDead: true, drop: true, sent: []string{"0", "2"}, stats: source.OutletStats{Sent: 2, Dropped: 1, Failed: 1}},
		"both reject, dropped":         {sink: []error{status(400)}, dead: []error{status(413)}, drop: true, sent: []string{"1", "2"}, stats: source.OutletStats{Sent: 2, Dropped: 1, Failed: 2}},
		"both reject, blocked":         {sink: []error{status(400)}, dead: []error{status(413)}, sent: []string{"0", "1", "2"}, stats: source.OutletStats{Sent: 3, Failed: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink, dead := &script{answers: c.sink}, &script{answers: c.dead}
				o := source.OutletOptions{Sink: sink, DeadLetter: dead, Policy: policy, Drop: c.drop, Logger: slog.New(slog.DiscardHandler)}
				if c.noDead {
					o.DeadLetter = nil
				}
				outlet := source.NewOutlet(o)
				settled, start := 0, time.Now()
				outlet.Settle(t.Context(), messages(3), func(n int) { settled += n })
				if settled != 3 {
					t.Errorf("%d messages are settled", settled)
				}
				if took := time.Since(start); took < c.least {
					t.Errorf("it took %v, want at least %v", took, c.least)
				}
				if got := ids(sink.got); !slices.Equal(got, c.sent) {
					t.Errorf("sent %v, want %v", got, c.sent)
				}
				if got := ids(dead.got); !slices.Equal(got, c.buried) {
					t.Errorf("dead letters %v, want %v", got, c.buried)
				}
				stats := outlet.Stats()
				if (stats.LastError != "") != (stats.Failed > 0) {
					t.Errorf("the last error is %q", stats.LastError)
				}
				stats.LastError, stats.LastErrorAt = "", time.Time{}
				if stats != c.stats {
					t.Errorf("stats %+v, want %+v", stats, c.stats)
				}
			})
		})
	}
}

// TestDeadLetterSaysWhy checks what a dead letter tells.
func TestDeadLetterSaysWhy(t *testing.T) {
	dead := &script{}
	outlet := source.NewOutlet(source.OutletOptions{
		Sink: &script{answers: []error{status(http.StatusTeapot)}}, DeadLetter: dead, Logger: slog.New(slog.DiscardHandler),
	})
	outlet.Settle(t.Context(), messages(1), func(int) {})
	if len(dead.got) != 1 {
		t.Fatalf("%d dead letters", len(dead.got))
	}
	for name, want := range map[string]string{delivery.ErrorCode: "418", delivery.ErrorAttempts: "1", event.ID: "0"} {
		if got := dead.got[0].Value(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := dead.got[0].Validate(); err != nil {
		t.Error(err)
	}
}

// TestSettleEnds ends with its context, whatever it waits for, and says what is settled.
func TestSettleEnds(t *testing.T) {
	for name, o := range map[string]source.OutletOptions{
		"sink is down":             {Sink: &script{answers: append([]error{nil}, repeat(away(), 1000)...)}},
		"blocked":                  {Sink: &script{answers: append([]error{nil}, repeat(status(400), 1000)...)}},
		"dead letter sink is down": {Sink: &script{answers: []error{nil, status(400)}}, DeadLetter: &script{answers: repeat(away(), 1000)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o.Logger, o.Policy = slog.New(slog.DiscardHandler), delivery.DefaultPolicy()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				settled := 0
				source.NewOutlet(o).Settle(ctx, messages(3), func(n int) { settled += n })
				if settled != 1 {
					t.Errorf("%d messages are settled, want 1", settled)
				}
			})
		})
	}
}
