package replay

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

const (
	// lookEvery is how often a process looks for replays that nobody works on.
	lookEvery = 2 * time.Second
	// saveEvery is how often progress is written at least, and abandoned after how long without that a replay has no owner.
	saveEvery, abandoned = time.Second, 10 * time.Second
	// maxWaiting is how many events may wait for the Trigger before more are given to it: a replay must neither fill the stream in which they
	// wait, nor go on for long after it was canceled.
	maxWaiting = 1000
	// writers is how many events are written at a time.
	writers = 16
)

// Redriver hands a delivery to a Trigger.
type Redriver interface {
	PublishRetry(ctx context.Context, to *stream.Names, triggerUID string, m stream.Message, at stream.Progress) (uint64, error)
}

// Worker works on replays.
type Worker struct {
	Store    Store
	Redriver Redriver
	// Find returns a Trigger by the namespace/name of its Broker and its UID, and false if there is no such Trigger.
	Find func(broker, uid string) (Target, bool)
	Log  *slog.Logger

	id      string
	mu      sync.Mutex
	mine    map[string]bool
	working sync.WaitGroup
}

// Run works on replays that nobody else works on, until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	w.id, w.mine = newID(), map[string]bool{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			w.working.Wait()
			return
		case <-tick.C:
		}
	}
}

// look takes up the replays that have no owner.
func (w *Worker) look(ctx context.Context) {
	records, err := w.Store.ListReplays(ctx)
	if err != nil {
		w.Log.DebugContext(ctx, "cannot look for replays now", slog.Any("error", err))
		return
	}
	for _, record := range records {
		r, err := read(record)
		if err != nil || r.State != Running || r.Owner != "" && time.Since(r.Beat) < abandoned {
			continue
		}
		if _, known := w.Find(r.Broker, r.TriggerUID); !known && time.Since(r.Created) < abandoned {
			continue // another process may know of it
		}
		w.mu.Lock()
		busy := w.mine[r.ID]
		w.mine[r.ID] = true
		w.mu.Unlock()
		if busy {
			continue
		}
		w.working.Go(func() {
			job := &job{w: w, r: r, revision: record.Revision}
			job.run(ctx)
			w.mu.Lock()
			delete(w.mine, r.ID)
			w.mu.Unlock()
		})
	}
}

// job is a replay that this process works on.
type job struct {
	w        *Worker
	r        Replay
	revision uint64
	saved    time.Time
	due      time.Time // when the next event may be given to the Trigger
}

var (
	errGone = errors.New("the Trigger was deleted")
	errWait = errors.New("later")
)

// run works on the replay until it has ended, or ctx does; then another process may go on.
func (j *job) run(ctx context.Context) {
	log := j.w.Log.With(slog.String("replay", j.r.ID), slog.String("trigger", j.r.Trigger))
	j.r.Owner = j.w.id
	err := j.save(ctx)
	for err == nil && j.r.State == Running {
		err = j.step(ctx)
		switch {
		case ctx.Err() != nil:
			j.r.Owner = ""
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveEvery)
			_ = j.save(last) // if it fails, another process waits for a while before it goes on
			cancel()
			return
		case errors.Is(err, errWait), errors.Is(err, stream.ErrUnavailable), errors.Is(err, stream.ErrBusy), errors.Is(err, stream.ErrFull):
			if err = j.save(ctx); errors.Is(err, stream.ErrUnavailable) {
				err = nil // the progress is written later
			}
			sleep(ctx, saveEvery/4)
		case errors.Is(err, stream.ErrChanged):
		case err != nil:
			j.r.State, j.r.Problem = Failed, err.Error()
			err = j.save(ctx)
		}
	}
	if err != nil {
		log.InfoContext(ctx, "left a replay", slog.Any("error", err))
		return
	}
	log.InfoContext(ctx, "replay ended", slog.String("state", j.r.State), slog.Uint64("examined", j.r.Examined), slog.Uint64("replayed", j.r.Replayed))
}

// step works on one page of the archive.
func (j *job) step(ctx context.Context) error {
	to, known := j.w.Find(j.r.Broker, j.r.TriggerUID)
	switch {
	case !known:
		return errGone
	case to.Filter == nil:
		return errWait
	}
	sel, err := newSelector(j.r.Selection, to.Filter)
	if err != nil {
		return err
	}
	counts, err := j.w.Store.SubjectCounts(ctx, to.Names.Retries, to.Names.BacklogPrefix())
	if err != nil || counts[to.Names.BacklogPrefix()+j.r.TriggerUID] >= maxWaiting {
		return errWait
	}
	page, err := j.w.Store.ReadArchive(ctx, to.Names, stream.ArchiveQuery{After: j.r.After, Since: j.r.Since, Until: j.r.End})
	if err != nil {
		return err
	}
	give := j.giveAll
	if j.r.Rate > 0 {
		give = j.giveSlowly
	}
	if err := give(ctx, to.Names, sel, page.Events); err != nil {
		return err
	}
	if page.Next == 0 {
		j.r.State, j.r.Owner = Done, ""
	}
	return j.save(ctx)
}

// giveAll gives the selected events of a page to the Trigger.
func (j *job) giveAll(ctx context.Context, n *stream.Names, sel *selector, events []stream.Archived) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	var given uint64
	for i := range events {
		if sel.selects(&events[i]) {
			given++
			g.Go(func() error { return j.give(gctx, n, &events[i]) })
		}
	}
	if err := g.Wait(); err != nil {
		return err // the page is repeated; what is there already is not stored again
	}
	if len(events) > 0 {
		j.r.After = events[len(events)-1].Sequence
		j.r.Examined += uint64(len(events))
		j.r.Replayed += given
	}
	return nil
}

// giveSlowly does so at the rate that is asked for, one after the other.
func (j *job) giveSlowly(ctx context.Context, n *stream.Names, sel *selector, events []stream.Archived) error {
	for i := range events {
		if sel.selects(&events[i]) {
			for wait := time.Until(j.due); wait > 0; wait = time.Until(j.due) {
				sleep(ctx, min(wait, saveEvery))
				if err := j.saveIfDue(ctx); err != nil {
					return err
				}
			}
			j.due = time.Now().Add(time.Duration(float64(time.Second) / j.r.Rate))
			if err := j.give(ctx, n, &events[i]); err != nil {
				return err
			}
			j.r.Replayed++
		}
		j.r.After = events[i].Sequence
		j.r.Examined++
		if err := j.saveIfDue(ctx); err != nil {
			return err
		}
	}
	return nil
}

// give puts a marked copy into the Trigger's backlog, from where it is delivered like any event. Its message id has it stored once, as
// long as the store remembers that.
func (j *job) give(ctx context.Context, n *stream.Names, a *stream.Archived) error {
	a.Event.Set(Attribute, j.r.ID, event.String)
	id := "replay/" + j.r.ID + "/" + strconv.FormatUint(a.Sequence, 10)
	_, err := j.w.Redriver.PublishRetry(ctx, n, j.r.TriggerUID, stream.Message{Event: a.Event, ID: id}, stream.Progress{Since: time.Now()})
	return err
}

func (j *job) saveIfDue(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if time.Since(j.saved) < saveEvery {
		return nil
	}
	return j.save(ctx)
}

// save writes how far the replay is. The error matches [stream.ErrChanged] if it was canceled, or another process works on it.
func (j *job) save(ctx context.Context) error {
	now := time.Now()
	j.r.Beat = now.UTC()
	revision, err := put(ctx, j.w.Store, &j.r, j.revision)
	if err == nil {
		j.revision, j.saved = revision, now
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
