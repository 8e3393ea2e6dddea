package dispatch

import (
	"sync"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/observe"
)

const (
	// What waits in memory for a free place in a lane is what the lane does in half of maxQueueAge, but between minQueued and
	// maxQueued events, and maxQueuedBytes. More goes to the backlog.
	minQueued      = 16
	maxQueued      = 1024
	maxQueuedBytes = 8 << 20
	// maxQueueAge is how long an event waits in memory before it goes to the backlog instead: until then it counts as
	// unsettled in the store, and a slow subscriber must not hold many of those.
	maxQueueAge = 250 * time.Millisecond
	// slowDown is what a lane's width is multiplied by when the subscriber is overloaded, at most once a slowDownPause.
	slowDown      = 0.7
	slowDownPause = 500 * time.Millisecond
)

// lane bounds the deliveries to one Trigger's subscriber in this process. Its width, the number of deliveries under way at a
// time, falls when the subscriber says or shows that it is overloaded, and rises again as it takes events. A lane outlives
// changes of its Trigger.
type lane struct {
	// room is signaled when a place becomes free.
	room chan struct{}
	// flow is that of the lanes of the same Broker.
	flow *flow
	// places are those of all lanes together.
	places *places
	// backlogged is how many bytes of the budget for events of backlogs deliveries of the lane hold.
	backlogged atomic.Int64

	mu          sync.Mutex
	gate        gate
	paused      bool // by hand
	idle        bool // other processes have all that there is of a limit
	spacing     spacing
	max         int
	width       float64 // 1 … max
	slowedAt    time.Time
	active      int
	fresh       int   // of them, deliveries of accepted events
	pinned      int64 // active and queued jobs that keep an accepted event unsettled
	pinnedBytes int64
	queue       []queued
	queuedBytes int
	queueKnown  bool // to the flow
	behind      bool // a backlog waits, which is to get its share of the places
	pace        pace
	roomySince  time.Time // zero while it is not roomy

	// limited says whether there is a limit to the rate of deliveries. turns has room for the one whose turn is next.
	limited atomic.Bool
	turns   chan struct{}

	// watched is for flow.
	watched watched
}

type queued struct {
	job
	since time.Time
}

func newLane(p *places, f *flow) *lane {
	return &lane{room: make(chan struct{}, 1), turns: make(chan struct{}, 1), places: p, flow: f, pace: newPace()}
}

// unlock ends a change of the lane.
func (l *lane) unlock() {
	switch roomy := l.roomy(); {
	case !roomy:
		l.roomySince = time.Time{}
	case l.roomySince.IsZero():
		l.roomySince = time.Now()
	}
	l.mu.Unlock()
}

// setMax changes how many deliveries may be under way. A lower number takes effect as running ones end.
func (l *lane) setMax(n int) {
	l.mu.Lock()
	defer l.unlock()
	l.resize(n)
}

func (l *lane) resize(n int) {
	n = max(1, n)
	if l.max == 0 || l.width > float64(n) || l.width == float64(l.max) {
		l.width = float64(n)
	}
	l.max = n
}

// setPaused says whether deliveries may begin. Those under way go on.
func (l *lane) setPaused(paused bool) {
	l.mu.Lock()
	defer l.unlock()
	l.paused = paused
}

// part is what a process has of the limits of a Trigger.
type part struct {
	concurrency int
	limited     bool
	rate        int // deliveries a second, if that is limited
}

// setPart gives the lane what this process has of its Trigger's limits. Of nothing no delivery begins.
func (l *lane) setPart(p part, now time.Time) {
	l.mu.Lock()
	defer l.unlock()
	l.resize(p.concurrency)
	l.idle = p.concurrency == 0 || p.limited && p.rate == 0
	l.limited.Store(p.limited)
	if !p.limited {
		p.rate, l.spacing = 0, spacing{}
	}
	l.spacing.set(p.rate, now)
}

// barred says whether no event is to wait for the lane in memory.
func (l *lane) barred() bool { return l.gate.closed || l.paused || l.idle }

// down says whether the subscriber is known to be down.
func (l *lane) down() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gate.closed && !l.paused
}

// turn waits until a delivery that has a place may begin. It reports false if the lane was paused meanwhile, or has no part of a limit any more.
func (l *lane) turn(stop <-chan struct{}) bool {
	if !l.limited.Load() {
		return true
	}
	l.turns <- struct{}{}
	defer func() { <-l.turns }()
	for {
		wait, ok := l.begins(time.Now())
		if !ok || wait <= 0 {
			return ok
		}
		select {
		case <-stop:
			return true // it will not be sent
		case <-time.After(wait):
		}
	}
}

// begins reports how long a delivery has to wait, and false if it is not to wait.
func (l *lane) begins(now time.Time) (time.Duration, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.paused || l.idle:
		l.spacing.cancel(1)
		l.gate.cancel()
		return 0, false
	case !l.limited.Load():
		return 0, true
	}
	return l.spacing.begin(now), true
}

// setBehind says whether a backlog waits for the lane.
func (l *lane) setBehind(behind bool) {
	l.mu.Lock()
	defer l.unlock()
	l.behind = behind
}

// offer starts the job or queues it; false says that it is to wait in the store. run is called in a goroutine of its own
// that goes on with queued jobs as long as there are any. left is what all lanes together may still keep unsettled.
func (l *lane) offer(j job, left free, run func(job)) bool {
	l.mu.Lock()
	defer l.unlock()
	size := int64(j.size())
	if j.pins && !left.permits(l.pinned, l.pinnedBytes, size) || !l.take(j, run) {
		return false
	}
	if j.pins {
		l.pinned++
		l.pinnedBytes += size
	}
	return true
}

func (l *lane) take(j job, run func(job)) bool {
	if l.fresh < l.share() && l.active < int(l.width) && l.enter(l.patience()) {
		l.begin(j)
		go l.work(j, run)
		return true
	}
	size := j.size()
	if l.barred() || l.limited.Load() || len(l.queue) >= l.maxQueue() || l.queuedBytes+size > maxQueuedBytes {
		return false
	}
	l.queue = append(l.queue, queued{job: j, since: time.Now()})
	l.queuedBytes += size
	if !l.queueKnown {
		l.queueKnown = true
		l.flow.queuing(l)
	}
	return true
}

func (l *lane) maxQueue() int {
	return int(min(maxQueued, max(minQueued, maxQueueAge/2/max(1, l.pace.mean))))
}

// begin and end count a delivery under way, for which there is a place already.
func (l *lane) begin(j job) {
	if j.pins {
		l.fresh++
	}
}

func (l *lane) end(j job) {
	if j.pins {
		l.fresh--
	}
	l.unpin(j)
}

// share is how many places new events may take: all, or half of them while older events wait.
func (l *lane) share() int {
	if l.behind {
		return max(1, int(l.width)/2)
	}
	return int(l.width)
}

// start starts a due retry if there is a place for it now.
func (l *lane) start(j job, run func(job)) bool {
	l.mu.Lock()
	defer l.unlock()
	if l.active >= int(l.width) || !l.enter(maxQueueAge) {
		return false
	}
	go l.work(j, run)
	return true
}

// patience is how long a new event may wait for its turn: half as long as others while older events wait, which so come first.
func (l *lane) patience() time.Duration {
	if l.behind {
		return maxQueueAge / 2
	}
	return maxQueueAge
}

// enter takes a place for one delivery if the gate and what other lanes have taken permit it, and its turn comes within patience.
func (l *lane) enter(patience time.Duration) bool {
	now := time.Now()
	if l.paused || l.idle || l.places.more(l.active) == 0 || !l.admit(now, patience) {
		return false
	}
	if !l.gate.admit(now) {
		l.spacing.cancel(1)
		return false
	}
	if l.active == 0 {
		l.pace.last = now
	}
	l.occupy(1)
	return true
}

// admit says whether the turn of one more delivery comes within patience.
func (l *lane) admit(now time.Time, patience time.Duration) bool {
	return !l.limited.Load() || l.spacing.admit(now, patience)
}

func (l *lane) occupy(n int) {
	l.active += n
	l.places.take(n)
}

func (l *lane) vacate(n int) {
	l.active -= n
	l.places.give(n)
	signal(l.room)
}

// acquire takes up to n places for events of the backlog and returns how many it got, and whether it is worth waiting
// for more: a closed gate or a paused Trigger is not.
func (l *lane) acquire(n int) (got int, open bool) {
	l.mu.Lock()
	defer l.unlock()
	if l.barred() {
		if n == 0 || !l.enter(maxQueueAge) {
			return 0, false
		}
		return 1, true
	}
	claimed := min(len(l.queue), max(0, l.share()-l.fresh)) // places that queued events will take
	most := max(0, min(n, int(l.width)-l.active-claimed, l.places.more(l.active)))
	for now := time.Now(); got < most && l.admit(now, maxQueueAge); {
		got++
	}
	l.occupy(got)
	return got, true
}

// release gives back places that acquire took and for which there was no event.
func (l *lane) release(n int) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.unlock()
	l.gate.cancel()
	l.spacing.cancel(n)
	l.vacate(n)
}

// run uses a place that acquire took.
func (l *lane) run(j job, run func(job)) { go l.work(j, run) }

func (l *lane) work(j job, run func(job)) {
	for ok := true; ok; j, ok = l.next(j) {
		run(j)
	}
}

// next takes the oldest queued job after one is done, or gives the place in the lane up.
func (l *lane) next(done job) (job, bool) {
	l.mu.Lock()
	defer l.unlock()
	l.end(done)
	now := time.Now()
	l.pace.step(now)
	l.flow.step(now)
	if len(l.queue) == 0 || l.fresh >= l.share() || l.active > int(l.width) || l.barred() || !l.admit(now, maxQueueAge) {
		l.vacate(1)
		return job{}, false
	}
	j := l.pop()
	l.begin(j)
	return j, true
}

func (l *lane) pop() job {
	j := l.queue[0].job
	l.queue[0] = queued{}
	l.queue = l.queue[1:]
	l.queuedBytes -= j.size()
	return j
}

// overdue takes the jobs off the queue that have waited too long, or all of them if the lane is barred.
func (l *lane) overdue(now time.Time) []job {
	l.mu.Lock()
	defer l.unlock()
	var old []job
	for len(l.queue) > 0 && (l.barred() || now.Sub(l.queue[0].since) > maxQueueAge) {
		j := l.pop()
		l.unpin(j)
		old = append(old, j)
	}
	if len(l.queue) == 0 {
		l.queueKnown = false
		l.flow.emptied(l)
	}
	return old
}

func (l *lane) unpin(j job) {
	if j.pins {
		l.pinned--
		l.pinnedBytes -= int64(j.size())
	}
}

// shut says whether it is not worth while to wait for room.
func (l *lane) shut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.barred() || l.limited.Load()
}

// roomy says whether the lane could take up another event at once.
func (l *lane) roomy() bool {
	return !l.barred() && !l.limited.Load() && len(l.queue) == 0 && l.fresh < l.share() && l.active < int(l.width)
}

// hungry says whether that has been so for a while.
func (l *lane) hungry(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.roomy() && now.Sub(l.roomySince) >= hungryAfter
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// condition is what an attempt shows of the subscriber.
type condition uint8

const (
	healthy    condition = iota // it took the event, or refused this one
	failing                     // it cannot be reached or answers with a server error
	overloaded                  // it says so (429, 503), or does not answer in time
)

// learn adapts the lane to what an attempt showed.
func (l *lane) learn(c condition) {
	l.mu.Lock()
	defer l.unlock()
	now := time.Now()
	if c == healthy {
		l.gate.succeeded()
		l.width = min(float64(l.max), l.width+1/max(1, l.width))
		return
	}
	l.gate.failed(now)
	if c == overloaded && now.Sub(l.slowedAt) >= slowDownPause {
		l.slowedAt = now
		l.width = max(1, l.width*slowDown)
	}
}

// laneState is a lane at one moment.
type laneState struct {
	active, queued, width int
	closed, paused        bool
}

func (l *lane) state() laneState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return laneState{active: l.active, queued: len(l.queue), width: int(l.width), closed: l.gate.closed, paused: l.paused}
}

// Counts are what a lane has done. Each matched event ends in exactly one of Delivered, DeadLettered and Parked.
type Counts struct {
	// Matched events, and those of them that found no place and went to the backlog at once.
	Matched, Overflowed uint64
	// Attempts made at the subscriber; Retried of them failed and were written to the retry stream.
	Attempts, Retried uint64
	// Delivered to the subscriber, DeadLettered to the sink, Parked in the store.
	Delivered, DeadLettered, Parked uint64
	// Replies stored; RepliesDropped for having passed too many hops, or ignored because they are no CloudEvents.
	Replies, RepliesDropped, RepliesIgnored uint64
}

type counters struct {
	matched, overflowed, attempts, retried  atomic.Uint64
	delivered, deadLettered, parked         atomic.Uint64
	replies, repliesDropped, repliesIgnored atomic.Uint64

	responses         observe.Responses
	process, endToEnd observe.Histogram
}

func (c *counters) read() Counts {
	return Counts{
		Matched: c.matched.Load(), Overflowed: c.overflowed.Load(),
		Attempts: c.attempts.Load(), Retried: c.retried.Load(),
		Delivered: c.delivered.Load(), DeadLettered: c.deadLettered.Load(), Parked: c.parked.Load(),
		Replies: c.replies.Load(), RepliesDropped: c.repliesDropped.Load(), RepliesIgnored: c.repliesIgnored.Load(),
	}
}
