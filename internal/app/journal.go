package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// JournalOptions say whether and for how long it is kept what became of events.
type JournalOptions struct {
	// Off has none kept, and none served.
	Off bool
	// Limits of the journal, which all processes share.
	stream.JournalLimits
}

// journalist keeps the journal of a process. What it cannot keep is counted and harms nothing else.
type journalist struct {
	*journal.Writer
	conn   *stream.Conn
	limits stream.JournalLimits
	log    *slog.Logger
	fault  atomic.Pointer[string] // why the stream is not as it should be
}

// newJournalist returns nil if there is to be no journal.
func newJournalist(conn *stream.Conn, o *Options) *journalist {
	if o.Journal.Off {
		return nil
	}
	host, _ := os.Hostname()
	return &journalist{
		Writer: journal.NewWriter(journal.WriterOptions{Store: conn, Name: cmp.Or(o.NATS.Name, "millrace") + " on " + host, Logger: o.Logger}),
		conn:   conn, limits: o.Journal.JournalLimits, log: o.Logger,
	}
}

// recorder is what to tell of events; nil if there is no journal.
func (j *journalist) recorder() observe.Recorder {
	if j == nil {
		return nil
	}
	return j.Writer
}

// run makes the stream, and looks now and then whether it is there, until ctx ends. It belongs to no Broker, so whoever
// writes to it makes it, in a cluster too.
func (j *journalist) run(ctx context.Context) {
	before := ""
	for {
		err := j.conn.EnsureJournal(ctx, j.limits)
		pause := verifyEvery
		if errors.Is(err, stream.ErrUnavailable) {
			pause = provisionRetry
		}
		now := ""
		if err != nil {
			now = err.Error()
		}
		j.fault.Store(&now)
		if err != nil && now != before && ctx.Err() == nil {
			j.log.WarnContext(ctx, "the journal is not as it should be, events go on without it; trying again", slog.Any("error", err))
		}
		before = now
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// faults are what people should know of the journal.
func (j *journalist) faults() map[string]string {
	if fault := j.fault.Load(); fault != nil && *fault != "" {
		return map[string]string{"journal": *fault}
	}
	return nil
}
