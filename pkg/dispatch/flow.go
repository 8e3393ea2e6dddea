package dispatch

import (
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// goodPace is how often deliveries of a Broker must end for it to be worth waiting for room in a lane: an event that goes
	// by way of the backlog is written, fetched and acked a second time, which takes about as long.
	goodPace = time.Millisecond
	// paceSamples is how many of them the mean is over: enough for those that began together and so end together.
	paceSamples = 64
	// patience bounds the wait for room for one event, how long no delivery may end meanwhile, and as what a pause between
	// two deliveries counts at most.
	patience = 50 * time.Millisecond
	// hungryAfter is how long a lane must have had room to count as hungry: where all compete for the processor each has now and then.
	hungryAfter = 2 * time.Millisecond
	// watchFor is how long a lane counts as one that may want events after it was last offered one.
	watchFor = 10 * time.Second
)

// pace is how quickly deliveries end while there are any.
type pace struct {
	mean time.Duration // between two of them
	last time.Time     // when one ended, or the first began
}

// newPace assumes the best.
func newPace() pace { return pace{mean: goodPace} }

func (p *pace) step(now time.Time) {
	p.mean += (min(now.Sub(p.last), patience) - p.mean) / paceSamples
	p.last = now
}

// good says whether more deliveries will end soon: as they have, and unless none has for long.
func (p *pace) good(now time.Time) bool { return p.mean <= goodPace && now.Sub(p.last) < patience }

// flow holds the events of a Broker back while a lane that they are for is full, as long as deliveries go on quickly and no
// other lane has nothing to do for it. An event that finds no room is otherwise written to the backlog, which costs as much
// as to deliver it, and would slow down what is too slow already.
type flow struct {
	moved chan struct{} // signaled when a delivery has ended

	mu     sync.Mutex
	pace   pace               // of all lanes together
	queued map[*lane]struct{} // those with events queued, among them some where there are none any more

	// Only the goroutine that handles events uses these.
	lanes []*lane // those that were offered events lately
	timer *time.Timer
}

// watched is what a flow knows of a lane.
type watched struct {
	listed  bool
	offered time.Time
}

func newFlow() *flow {
	f := &flow{moved: make(chan struct{}, 1), pace: newPace(), queued: map[*lane]struct{}{}, timer: time.NewTimer(patience)}
	f.timer.Stop()
	return f
}

// begin notes that there is something to deliver again.
func (f *flow) begin(now time.Time) {
	f.mu.Lock()
	f.pace.last = now
	f.mu.Unlock()
}

// step notes that a delivery has ended.
func (f *flow) step(now time.Time) {
	f.mu.Lock()
	f.pace.step(now)
	f.mu.Unlock()
	signal(f.moved)
}

func (f *flow) good(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pace.good(now)
}

// queuing notes that events wait in a lane.
func (f *flow) queuing(l *lane) {
	f.mu.Lock()
	f.queued[l] = struct{}{}
	f.mu.Unlock()
}

// emptied notes that none does.
func (f *flow) emptied(l *lane) {
	f.mu.Lock()
	delete(f.queued, l)
	f.mu.Unlock()
}

// queues returns the lanes in which events may wait: of very many Triggers few have any.
func (f *flow) queues() []*lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.queued))
}

// offered notes that a lane is offered an event.
func (f *flow) offered(l *lane, now time.Time) {
	l.watched.offered = now
	if !l.watched.listed {
		l.watched.listed = true
		f.lanes = append(f.lanes, l)
	}
}

// await waits until l may have room for an event that was offered at since. It reports false if it is not worth waiting
// for, or stop is closed.
func (f *flow) await(l *lane, since time.Time, stop <-chan struct{}) bool {
	now := time.Now()
	if now.Sub(since) >= patience || l.shut() || !f.good(now) || f.hungry(l, now) {
		return false
	}
	f.timer.Reset(patience)
	defer f.timer.Stop()
	select {
	case <-f.moved:
	case <-f.timer.C:
	case <-stop:
		return false
	}
	return true
}

// hungry says whether a lane beside l has nothing to do. It forgets lanes that were not offered an event for long.
func (f *flow) hungry(l *lane, now time.Time) bool {
	for i := 0; i < len(f.lanes); {
		other := f.lanes[i]
		if now.Sub(other.watched.offered) > watchFor {
			last := len(f.lanes) - 1
			f.lanes[i], f.lanes[last] = f.lanes[last], nil
			f.lanes = f.lanes[:last]
			other.watched.listed = false
			continue
		}
		if other != l && other.hungry(now) {
			return true
		}
		i++
	}
	return false
}
