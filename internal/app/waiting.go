package app

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/pkg/stream"
)

const (
	// sampleEvery is how old what is known of the store may be before a scrape has it looked up again.
	sampleEvery = 5 * time.Second
	// sampleTime bounds that, and maxOldest for how many Triggers of a Broker the oldest event is looked at.
	sampleTime = 10 * time.Second
	maxOldest  = 500
	// deadLetterSuffix ends the key under which what waits for a dead letter sink is kept.
	deadLetterSuffix = "_dl"
)

// waiting knows what waits in the store. It looks there when it is asked for, but not more often than every few seconds and
// never while somebody waits for the answer.
type waiting struct {
	conn    *stream.Conn
	catalog func() adminapi.Catalog
	log     *slog.Logger

	mu      sync.Mutex
	looking bool
	at      time.Time
	brokers []brokerWaiting
}

// brokerWaiting is what a Broker has stored.
type brokerWaiting struct {
	broker   string
	events   stream.State
	triggers map[string]triggerWaiting // by namespace/name
}

// triggerWaiting is what waits for one Trigger.
type triggerWaiting struct {
	// backlog is for a place at its subscriber or dead letter sink, delayed for the time of another attempt.
	backlog, delayed, parked uint64
	oldest                   time.Time // of backlog and delayed
}

// read returns what was found last, and has it looked up again if that was long ago.
func (w *waiting) read() []brokerWaiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.looking && time.Since(w.at) >= sampleEvery {
		w.looking = true
		go w.look()
	}
	return w.brokers
}

func (w *waiting) look() {
	ctx, cancel := context.WithTimeout(context.Background(), sampleTime)
	defer cancel()
	var brokers []brokerWaiting
	for key, b := range w.catalog() {
		found, err := w.lookAt(ctx, b)
		if err != nil {
			w.log.DebugContext(ctx, "cannot count what waits in the store yet", slog.String("broker", key), slog.Any("error", err))
			continue
		}
		found.broker = key
		brokers = append(brokers, found)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looking, w.at, w.brokers = false, time.Now(), brokers
}

func (w *waiting) lookAt(ctx context.Context, b *adminapi.Broker) (found brokerWaiting, err error) {
	n := b.Names
	if found.events, err = w.conn.StreamState(ctx, n.Events); err != nil {
		return found, err
	}
	retries, err := w.conn.SubjectCounts(ctx, n.Retries, n.RetryPrefix)
	if err != nil {
		return found, err
	}
	parked, err := w.conn.SubjectCounts(ctx, n.Parked, n.ParkedPrefix)
	if err != nil {
		return found, err
	}
	found.triggers = make(map[string]triggerWaiting, len(b.Triggers))
	for _, t := range b.Triggers {
		found.triggers[t.Name] = triggerWaiting{} // none is known, too
	}
	looks := 0
	for subject, count := range retries {
		kind, rest, _ := strings.Cut(strings.TrimPrefix(subject, n.RetryPrefix), ".")
		t, ok := b.Triggers[strings.TrimSuffix(rest[strings.LastIndexByte(rest, '.')+1:], deadLetterSuffix)]
		if !ok {
			continue
		}
		state := found.triggers[t.Name]
		if kind == "backlog" {
			state.backlog += count
		} else {
			state.delayed += count
		}
		if looks++; looks <= maxOldest {
			oldest, err := w.conn.Oldest(ctx, n.Retries, subject)
			if err != nil {
				return found, err
			}
			if !oldest.IsZero() && (state.oldest.IsZero() || oldest.Before(state.oldest)) {
				state.oldest = oldest
			}
		}
		found.triggers[t.Name] = state
	}
	for subject, count := range parked {
		if t, ok := b.Triggers[strings.TrimPrefix(subject, n.ParkedPrefix)]; ok {
			state := found.triggers[t.Name]
			state.parked += count
			found.triggers[t.Name] = state
		}
	}
	return found, nil
}
