package adminapi

import (
	"cmp"
	"net/http"
	"slices"
	"time"
)

// Stats are counts at one moment; two of them make rates.
type Stats struct {
	At       time.Time       `json:"at"`
	Brokers  []BrokerCounts  `json:"brokers"`
	Triggers []TriggerCounts `json:"triggers"`
}

// BrokerCounts are those of a Broker, as the store has them: they hold for all processes.
type BrokerCounts struct {
	Broker string `json:"broker"`
	// Stored is how many events were ever accepted, Unsettled how many of them are not settled by all their Triggers, and
	// Bytes what these take.
	Stored    uint64 `json:"stored"`
	Unsettled uint64 `json:"unsettled"`
	Bytes     uint64 `json:"bytes"`
	// Oldest is when the oldest unsettled event was stored; absent if there is none.
	Oldest *time.Time `json:"oldest,omitempty"`
	// Retrying is how many deliveries wait for another attempt or in a backlog, Parked how many were given up.
	Retrying uint64 `json:"retrying"`
	Parked   uint64 `json:"parked"`
}

// TriggerCounts are those of a Trigger in one process since that began.
type TriggerCounts struct {
	Broker  string `json:"broker"`
	Trigger string `json:"trigger"`
	// Ready says whether it is in effect, Reason why it is not. The other counts are 0 then.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Matched events, Attempts at the subscriber, Failed ones of these, and what became of events.
	Matched      uint64 `json:"matched"`
	Attempts     uint64 `json:"attempts"`
	Failed       uint64 `json:"failed"`
	Delivered    uint64 `json:"delivered"`
	DeadLettered uint64 `json:"deadLettered"`
	Parked       uint64 `json:"parked"`
	// Waiting deliveries in the backlog, of all processes.
	Waiting uint64 `json:"waiting"`
	// Oldest is since when the oldest of them has waited for the subscriber; absent if none does, or if it was not looked at: that is
	// done for [maxOldest] Triggers.
	Oldest *time.Time `json:"oldest,omitempty"`
	// Active deliveries under way of at most Width, and Queued ones in memory.
	Active int `json:"active"`
	Queued int `json:"queued"`
	Width  int `json:"width"`
	// Down says that the subscriber is known not to take events: it is only probed.
	Down bool `json:"down,omitempty"`
	// Paused says that no delivery is to begin.
	Paused bool `json:"paused,omitempty"`
	// RateLimit is how many requests the subscriber may get in any second, from all processes; 0 is no limit.
	RateLimit int `json:"rateLimit,omitempty"`
}

// maxOldest bounds for how many Triggers an answer asks the store for the oldest delivery that waits.
const maxOldest = 100

func (h *Handler) getStats(w http.ResponseWriter, r *http.Request) {
	s := Stats{At: h.opts.Now(), Brokers: []BrokerCounts{}, Triggers: []TriggerCounts{}}
	namespace, _ := namespaceOf(r) // was looked at before
	known := map[string]int{}      // where it is in s
	if h.opts.Counts != nil {
		for _, t := range h.opts.Counts() {
			if inNamespace(t.Broker, namespace) {
				t.Ready = true
				known[t.Trigger] = len(s.Triggers)
				s.Triggers = append(s.Triggers, t)
			}
		}
	}
	looks := 0
	for _, b := range h.brokersFor(r) {
		c, err := h.countBroker(r, b)
		if err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		s.Brokers = append(s.Brokers, c)
		for uid, t := range b.Triggers {
			i, ok := known[t.Name]
			if !ok {
				s.Triggers = append(s.Triggers, TriggerCounts{Broker: b.key(), Trigger: t.Name, Ready: t.Ready, Reason: t.Reason})
				continue
			}
			if s.Triggers[i].Waiting == 0 || looks == maxOldest {
				continue
			}
			looks++
			oldest, err := h.opts.Reader.Oldest(r.Context(), b.Names.Retries, b.Names.BacklogPrefix()+uid)
			if err != nil {
				writeProblem(w, problemOf(err))
				return
			}
			if !oldest.IsZero() {
				s.Triggers[i].Oldest = &oldest
			}
		}
	}
	slices.SortFunc(s.Triggers, func(x, y TriggerCounts) int {
		return cmp.Or(cmp.Compare(x.Broker, y.Broker), cmp.Compare(x.Trigger, y.Trigger))
	})
	writeJSON(w, s)
}

func (h *Handler) countBroker(r *http.Request, b *Broker) (BrokerCounts, error) {
	c := BrokerCounts{Broker: b.key()}
	events, err := h.opts.Reader.StreamState(r.Context(), b.Names.Events)
	if err != nil {
		return c, err
	}
	retries, err := h.opts.Reader.StreamState(r.Context(), b.Names.Retries)
	if err != nil {
		return c, err
	}
	parked, err := h.opts.Reader.ParkedState(r.Context(), b.Names)
	if err != nil {
		return c, err
	}
	c.Stored, c.Unsettled, c.Bytes = events.Last, events.Messages, events.Bytes
	if events.Messages > 0 {
		c.Oldest = &events.Oldest
	}
	c.Retrying, c.Parked = retries.Messages, parked.Messages
	return c, nil
}
