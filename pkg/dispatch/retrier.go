package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

const (
	// scanEvery is how often backlogs are looked after without being told of a change.
	scanEvery = 100 * time.Millisecond
	// surveyEvery is how often the store is asked what waits in it: other processes write to it too, and we may have crashed.
	surveyEvery = 3 * time.Second
	// maxOpen is how many backlogs are drained at a time in one process. Every consumer of a work queue makes each ack on it
	// a little slower.
	maxOpen = 32
	// slice is how long one backlog is drained while others wait for their turn.
	slice = time.Second
	// drainBatch is how many events of a backlog are fetched at a time at most.
	drainBatch = 64
	// consumerIdle is how long the store keeps a consumer that nobody uses.
	consumerIdle = 5 * time.Second
	// maxDelayed bounds the deliveries of one class of delay that are held until they are due, over all processes.
	maxDelayed = 512
	// maxDirect of them may be under way in one process: a subscriber that does not answer holds them as long as it likes.
	maxDirect = maxDelayed / 16
	// expireEvery is how often a backlog behind a closed gate is searched for events that have waited too long.
	expireEvery = time.Second
	// roomPoll is how long a drain waits for a place in its lane before it looks again.
	roomPoll = 50 * time.Millisecond
)

// retrier serves a Broker's retry stream: it takes deliveries up when they are due, and drains the backlogs of subscribers
// that take events again. What waits is in the store; the retrier remembers only which routes have something waiting.
type retrier struct {
	r    *runner
	wake chan struct{}
	work sync.WaitGroup // drains under way

	mu       sync.Mutex
	backlogs map[string]*backlog // by route key
	classes  [stream.DelayClasses]*delayClass
	drains   int  // under way
	crowded  bool // backlogs wait for a drain to end
	stopping bool
}

// backlog is what is known of the deliveries that wait for one route.
type backlog struct {
	key      string
	some     bool   // something waits, as far as known
	count    uint64 // at the last survey
	draining bool
	served   time.Time
	// queue is open while it is drained, and until what was taken from it is settled: it alone knows what that is. Only a
	// drain uses it, and run while there is none.
	queue    *stream.Queue
	size     int64     // of the events met last, in bytes
	orphaned time.Time // since when no Trigger is known for it
}

func newRetrier(r *runner) *retrier {
	return &retrier{r: r, wake: make(chan struct{}, 1), backlogs: map[string]*backlog{}}
}

func (t *retrier) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run looks after the retry stream until ctx ends.
func (t *retrier) run(ctx context.Context) {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	var surveyed time.Time
	for ctx.Err() == nil {
		if time.Since(surveyed) >= surveyEvery {
			t.survey(ctx)
			surveyed = time.Now()
		}
		t.r.divide(time.Now())
		t.sweepQueues()
		t.scan(ctx)
		select {
		case <-ctx.Done():
		case <-t.wake:
		case <-tick.C:
		}
	}
}

// stored notes that a delivery was written to the retry stream.
func (t *retrier) stored(key string, delay time.Duration) {
	if delay > 0 {
		t.serveClass(t.r.base, stream.DelayClass(delay))
		return
	}
	t.mu.Lock()
	b := t.backlog(key)
	news := !b.some
	b.some = true
	t.mu.Unlock()
	if news {
		t.wakeUp()
	}
}

// backlog returns what is known of a route. The caller holds mu.
func (t *retrier) backlog(key string) *backlog {
	b := t.backlogs[key]
	if b == nil {
		b = &backlog{key: key}
		t.backlogs[key] = b
	}
	return b
}

func (t *retrier) waiting(key string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.backlogs[key]; b != nil {
		return b.count
	}
	return 0
}

// survey asks the store what waits in it.
func (t *retrier) survey(ctx context.Context) {
	counts, err := t.r.opts.Conn.SubjectCounts(ctx, t.r.names.Retries, t.r.names.RetryPrefix)
	if err != nil {
		t.r.log.DebugContext(ctx, "cannot survey the retry stream yet", slog.Any("error", err))
		return
	}
	backlogs := map[string]uint64{}
	for subject, n := range counts {
		kind, rest, _ := strings.Cut(strings.TrimPrefix(subject, t.r.names.RetryPrefix), ".")
		switch kind {
		case "backlog":
			backlogs[rest] = n
		case "delay":
			class, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(class); err == nil && n < stream.DelayClasses {
				t.serveClass(ctx, n)
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, b := range t.backlogs {
		b.count = backlogs[key]
		if b.count == 0 && !b.some && !b.draining && b.queue == nil {
			if rt := t.r.view.Load().byKey[key]; rt != nil {
				rt.lane.setBehind(false)
			}
			delete(t.backlogs, key)
		}
	}
	for key, n := range backlogs {
		b := t.backlog(key)
		b.count, b.some = n, true
	}
}

// sweepQueues moves events that wait too long for a place in their lane to the backlog.
func (t *retrier) sweepQueues() {
	now := time.Now()
	for _, l := range t.r.flow.queues() {
		for _, j := range l.overdue(now) {
			j.to.counts.overflowed.Add(1)
			go t.r.postpone(j, 0, observe.Overflowed)
		}
	}
}

// scan starts a drain for each backlog that can be drained, the one served longest ago first.
func (t *retrier) scan(ctx context.Context) {
	v := t.r.view.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return
	}
	var ready []*backlog
	for key, b := range t.backlogs {
		rt := v.byKey[key]
		if rt != nil {
			rt.lane.setBehind(b.some || b.draining)
		}
		if rt != nil || v.held[key] {
			b.orphaned = time.Time{}
		}
		if !b.draining && b.queue != nil && b.queue.InFlight() == 0 {
			t.close(b)
		}
		switch {
		case !b.some || b.draining:
		case rt != nil:
			ready = append(ready, b)
		case !v.held[key] && b.queue == nil:
			t.orphan(ctx, b)
		}
	}
	slices.SortFunc(ready, func(x, y *backlog) int { return cmp.Or(x.served.Compare(y.served), cmp.Compare(x.key, y.key)) })
	t.crowded = false
	for _, b := range ready {
		if t.drains == maxOpen {
			t.crowded = true
			return
		}
		t.begin(ctx, b, v.byKey[b.key])
	}
}

// begin drains the backlog in the background, if its lane has a place for at least one event. The caller holds mu.
func (t *retrier) begin(ctx context.Context, b *backlog, rt *route) {
	places, open := rt.lane.acquire(min(1, t.affordable(b, rt)))
	switch {
	case places > 0:
		t.inBackground(b, func() { t.drain(ctx, b, rt, places) })
	case !open && rt.sink != nil && rt.lane.down() && rt.Policy.BacklogMaxAge > 0 && time.Since(b.served) >= expireEvery:
		t.inBackground(b, func() { t.expire(ctx, b, rt) })
	}
}

// inBackground does something with the backlog. The caller holds mu.
func (t *retrier) inBackground(b *backlog, work func()) {
	b.draining, b.served = true, time.Now()
	t.drains++
	t.work.Go(func() {
		work()
		t.mu.Lock()
		b.draining = false
		t.drains--
		t.mu.Unlock()
		t.wakeUp()
	})
}

// orphan removes the backlog of a Trigger that was deleted. Another process may know of a new Trigger before we do, so it
// is removed only after the Trigger has been unknown for a while. The caller holds mu.
func (t *retrier) orphan(ctx context.Context, b *backlog) {
	if b.orphaned.IsZero() {
		b.orphaned = time.Now()
	}
	if time.Since(b.orphaned) < t.r.opts.OrphanGrace {
		return
	}
	err := t.r.opts.Conn.PurgeSubject(ctx, t.r.names.Retries, t.r.names.BacklogPrefix()+b.key)
	if err != nil {
		t.r.log.WarnContext(ctx, "cannot drop the backlog of a deleted trigger yet", slog.Any("error", err))
		return
	}
	t.r.log.InfoContext(ctx, "dropped the backlog of a deleted trigger", slog.String("trigger_uid", b.key), slog.Uint64("events", b.count))
	delete(t.backlogs, b.key)
}

// drain delivers the events of a backlog as fast as the lane has places, until there are none, or the gate closes, or
// others wait for their turn. places are the lane's places it has to begin with.
func (t *retrier) drain(ctx context.Context, b *backlog, rt *route, places int) {
	if !t.open(ctx, b, rt) {
		rt.lane.release(places)
		return
	}
	for begun := time.Now(); places > 0; places = t.morePlaces(ctx, b, rt, begun) {
		now := t.r.view.Load().byKey[b.key]
		if now == nil { // not in effect any more
			rt.lane.release(places)
			return
		}
		rt = now // a change of the Trigger holds for what is fetched from now on
		t.mu.Lock()
		b.some = false // unless something is written while we look
		t.mu.Unlock()
		fetched := t.fetch(ctx, b, rt, places)
		rt.lane.release(places - len(fetched))
		if len(fetched) == 0 {
			return
		}
		b.size = 0
		for _, d := range fetched {
			b.size = max(b.size, int64(sizeOf(d.Event)))
			t.runBacklogged(rt, d)
		}
		t.mu.Lock()
		b.some = true
		t.mu.Unlock()
	}
}

// fetch takes up to n deliveries from a backlog. If the store cannot be asked there are none for now.
func (t *retrier) fetch(ctx context.Context, b *backlog, rt *route, n int) []*stream.Delivery {
	fetched, err := b.queue.Fetch(n)
	if err != nil {
		t.r.log.DebugContext(ctx, "cannot fetch from a backlog", slog.String("trigger", rt.name), slog.Any("error", err))
	}
	return fetched
}

// open opens a backlog's queue, or reports false if the store cannot be asked now.
func (t *retrier) open(ctx context.Context, b *backlog, rt *route) bool {
	var err error
	if b.queue != nil {
		err = b.queue.Reopen(ctx)
	} else {
		b.queue, err = t.r.opts.Conn.OpenQueue(ctx, stream.ConsumeOptions{
			Stream: t.r.names.Retries, Name: "backlog-" + b.key, FilterSubject: t.r.names.BacklogPrefix() + b.key,
			MaxAckPending: maxDelayed, InactiveThreshold: consumerIdle, Logger: t.r.log,
		})
	}
	if err != nil {
		t.r.log.DebugContext(ctx, "cannot open a backlog yet", slog.String("trigger", rt.name), slog.Any("error", err))
	}
	return err == nil
}

// close lets go of a backlog's queue. It is not to be used meanwhile.
func (t *retrier) close(b *backlog) {
	q := b.queue
	b.queue = nil
	t.work.Go(func() {
		if err := q.Close(t.r.base); err != nil && !errors.Is(err, context.Canceled) {
			t.r.log.Debug("close a backlog", slog.Any("error", err))
		}
	})
}

// expire gives up the events at the head of a backlog that have waited too long for a subscriber that is down.
func (t *retrier) expire(ctx context.Context, b *backlog, rt *route) {
	if !t.open(ctx, b, rt) {
		return
	}
	for more := true; more && ctx.Err() == nil; {
		fetched := t.fetch(ctx, b, rt, max(1, min(drainBatch, t.affordable(b, rt))))
		more = len(fetched) > 0
		for _, d := range fetched {
			if !t.expired(rt, d) {
				d.Retry(0)
				more = false
			}
		}
	}
}

// expired gives the delivery up if it has waited too long and there is room for that.
func (t *retrier) expired(rt *route, d *stream.Delivery) bool {
	p := d.Progress()
	since := p.Since
	if !p.First.IsZero() && p.First.Before(since) {
		since = p.First
	}
	if since.IsZero() || time.Since(since) <= rt.Policy.BacklogMaxAge {
		return false
	}
	s := t.settlement(rt, d)
	if s == nil {
		return false
	}
	j := t.job(rt, d, s)
	t.r.tellFate(&j, observe.Expired, 0, time.Now())
	t.r.giveUp(j, delivery.Result{Err: fmt.Errorf("%w for %s", errExpired, rt.Policy.BacklogMaxAge)})
	return true
}

// errExpired is why an event is given up that no attempt was made at in time.
var errExpired = errors.New("the subscriber was down, and the event waited")

// morePlaces waits for places in the lane; 0 says that the drain should end.
func (t *retrier) morePlaces(ctx context.Context, b *backlog, rt *route, begun time.Time) int {
	for {
		t.mu.Lock()
		turnOver := t.stopping || t.crowded && time.Since(begun) > slice
		t.mu.Unlock()
		if turnOver || ctx.Err() != nil {
			return 0
		}
		places, open := rt.lane.acquire(min(drainBatch, t.affordable(b, rt)))
		if places > 0 || !open {
			return places
		}
		select {
		case <-ctx.Done():
		case <-rt.lane.room:
		case <-time.After(roomPoll):
		}
	}
}

// affordable is how many more events of the backlog there is memory for. Until their size is known, that is one.
func (t *retrier) affordable(b *backlog, rt *route) int {
	n := t.r.opts.budgets.backlog.affords(rt.lane.backlogged.Load(), b.size)
	if b.size == 0 {
		return min(1, n)
	}
	return n
}

// settlement takes the room for a delivery of the route's backlog; nil says that there is none for it now.
func (t *retrier) settlement(rt *route, d *stream.Delivery) *settlement {
	budget := t.r.opts.budgets.backlog
	if !budget.takeFor(&rt.lane.backlogged, d.Event) {
		return nil
	}
	s := &settlement{delivery: d, budget: budget, held: &rt.lane.backlogged}
	s.open.Store(1)
	return s
}

// runBacklogged uses a place in the lane for a delivery of the backlog, or gives both back if there is no room for it.
func (t *retrier) runBacklogged(rt *route, d *stream.Delivery) {
	s := t.settlement(rt, d)
	if s == nil {
		d.Retry(0)
		rt.lane.release(1)
		return
	}
	rt.lane.run(t.job(rt, d, s), t.r.run)
}

// job makes a job of a delivery from the retry stream.
func (t *retrier) job(rt *route, d *stream.Delivery, s *settlement) job {
	p := d.Progress()
	p.Due = time.Time{}
	return job{to: rt, event: d.Event, origin: "r" + formatSequence(d.Sequence()), progress: p, settle: s, taken: time.Now()}
}

// stop ends all drains and gives back what is not due, waiting for what is under way until ctx ends.
func (t *retrier) stop(ctx context.Context) {
	t.mu.Lock()
	t.stopping = true
	classes := t.classes
	t.mu.Unlock()
	for _, c := range classes {
		if c != nil {
			t.work.Go(func() { c.stop(ctx) })
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.work.Wait() // so that nobody uses the queues any more
		for _, b := range t.backlogs {
			if b.queue != nil {
				t.close(b)
			}
		}
		t.work.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
