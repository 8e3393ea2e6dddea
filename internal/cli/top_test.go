package cli

import (
	"strings"
	"testing"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/terminal"
)

// TestTopAddsUpFilters has three filters that share the deliveries to one Trigger, of which one begins anew and one is silent now and then.
func TestTopAddsUpFilters(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	look := func(seconds int, stored, matched, delivered, waiting uint64, paused bool) *adminapi.Stats {
		return &adminapi.Stats{
			At:       at.Add(time.Duration(seconds) * time.Second),
			Brokers:  []adminapi.BrokerCounts{{Broker: "n/b", Stored: stored}},
			Triggers: []adminapi.TriggerCounts{{Broker: "n/b", Trigger: "n/t", Ready: true, Matched: matched, Delivered: delivered, Waiting: waiting, Width: 100, Active: 1, Paused: paused}},
		}
	}
	type want struct {
		filters                    int
		stored, matched, delivered float64
		ever, waiting              uint64
		width                      int
		paused                     bool
	}
	for name, c := range map[string]struct {
		before, now []*adminapi.Stats
		want        want
	}{
		"one": {
			[]*adminapi.Stats{look(0, 100, 100, 90, 10, false)},
			[]*adminapi.Stats{look(2, 120, 120, 100, 20, false)},
			want{1, 10, 10, 5, 120, 20, 100, false},
		},
		"two, a moment apart": {
			[]*adminapi.Stats{look(0, 100, 60, 60, 9, false), look(1, 110, 50, 50, 10, false)},
			[]*adminapi.Stats{look(2, 120, 80, 80, 7, false), look(3, 130, 52, 52, 8, true)},
			want{2, 10, 11, 11, 132, 8, 200, true},
		},
		"one that began anew": {
			[]*adminapi.Stats{look(0, 100, 60, 60, 0, false), look(0, 100, 50, 50, 0, false)},
			[]*adminapi.Stats{look(2, 120, 80, 80, 0, false), look(2, 120, 4, 4, 0, false)},
			want{2, 10, 12, 12, 84, 0, 200, false},
		},
		"one that is silent": {
			[]*adminapi.Stats{look(0, 100, 60, 60, 0, false), look(0, 100, 5000, 5000, 0, false)},
			[]*adminapi.Stats{look(2, 120, 80, 80, 0, false), nil},
			want{1, 10, 10, 10, 80, 0, 100, false},
		},
		"one that was silent": {
			[]*adminapi.Stats{nil, look(0, 100, 60, 60, 0, false)},
			[]*adminapi.Stats{look(2, 120, 5000, 5000, 0, false), look(2, 120, 80, 80, 0, false)},
			want{2, 10, 10, 10, 5080, 0, 200, false},
		},
	} {
		r := newTopReport(c.before, c.now)
		if len(r.Brokers) != 1 || len(r.Triggers) != 1 {
			t.Errorf("%s: %+v", name, r)
			continue
		}
		b, x := r.Brokers[0], r.Triggers[0]
		if got := (want{r.Filters, b.StoredRate, x.MatchedRate, x.DeliveredRate, x.Matched, x.Waiting, x.Width, x.Paused}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// How many filters the figures are of is said where it is not one of one.
func TestTopSaysWhoIsSilent(t *testing.T) {
	for _, c := range []struct {
		filters, silent int
		want            string
	}{
		{1, 0, "over 0.0 s\n"}, {3, 0, "over 0.0 s, 3 filters\n"}, {2, 1, ", 2 of 3 filters: "},
	} {
		var b strings.Builder
		r := topReport{Filters: c.filters, Silent: c.silent}
		if err := r.write(&b, terminal.Style{}, false); err != nil || !strings.Contains(b.String(), c.want) {
			t.Errorf("%d filters and %d silent: %q, %v", c.filters, c.silent, b.String(), err)
		}
	}
}
