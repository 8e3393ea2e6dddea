package stream

import (
	"context"
	"sync"
	"time"
)

// rememberSettled is how many settled messages are remembered at least: more than the acks that can be under way.
const rememberSettled = 4096

// messageID tells a message from all others: a stream that was made anew counts from 1 again, but at another time.
type messageID struct {
	sequence uint64
	stored   int64 // Unix nanoseconds
}

// flightStatus is what inFlight knows of a message.
type flightStatus uint8

const (
	unknown flightStatus = iota
	underWay
	settled
)

// memory is what is known of messages, whichever of the consumers that followed each other handed them out.
type memory struct {
	mu       sync.Mutex
	underWay map[messageID]struct{}
	settled  [2]map[messageID]struct{} // lately
}

func newMemory() *memory { return &memory{underWay: map[messageID]struct{}{}} }

// status tells what is known of a message.
func (m *memory) status(id messageID) flightStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.underWay[id]; ok {
		return underWay
	}
	for _, set := range m.settled {
		if _, ok := set[id]; ok {
			return settled
		}
	}
	return unknown
}

// remember notes a settled message in the younger of two sets; the older is forgotten when the younger is full. The caller
// holds mu.
func (m *memory) remember(id messageID) {
	if len(m.settled[0]) >= rememberSettled || m.settled[0] == nil {
		m.settled[1], m.settled[0] = m.settled[0], make(map[messageID]struct{}, rememberSettled)
	}
	m.settled[0][id] = struct{}{}
}

// inFlight is the list of the unsettled messages of one consumer, the one whose last sign of life is oldest first. Touching
// one moves it to the end, so a round of extension looks only at those that need it.
type inFlight struct {
	*memory // its mu guards the list too

	head  *Delivery
	tail  *Delivery
	count int
	empty chan struct{} // closed when the list gets empty; nil unless somebody waits
}

func (f *inFlight) add(d *Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.underWay[d.id] = struct{}{}
	f.count++
	f.append(d)
}

func (f *inFlight) append(d *Delivery) {
	d.touched = time.Now()
	d.prev, d.next = f.tail, nil
	if f.tail == nil {
		f.head = d
	} else {
		f.tail.next = d
	}
	f.tail = d
}

func (f *inFlight) unlink(d *Delivery) {
	if d.prev == nil {
		f.head = d.next
	} else {
		d.prev.next = d.next
	}
	if d.next == nil {
		f.tail = d.prev
	} else {
		d.next.prev = d.prev
	}
	d.prev, d.next = nil, nil
}

// remove takes a message off the list. One that was acked is remembered for a while.
func (f *inFlight) remove(d *Delivery, acked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlink(d)
	f.count--
	delete(f.underWay, d.id)
	if acked {
		f.remember(d.id)
	}
	if f.count == 0 && f.empty != nil {
		close(f.empty)
		f.empty = nil
	}
}

// olderThan returns the messages untouched for at least age and touches them.
func (f *inFlight) olderThan(age time.Duration) []*Delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := time.Now().Add(-age)
	var old []*Delivery
	for d := f.head; d != nil && !d.touched.After(limit); d = f.head {
		old = append(old, d)
		f.unlink(d)
		f.append(d)
	}
	return old
}

func (f *inFlight) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// wait returns when nothing is in flight, or with ctx's error.
func (f *inFlight) wait(ctx context.Context) error {
	f.mu.Lock()
	if f.count == 0 {
		f.mu.Unlock()
		return nil
	}
	if f.empty == nil {
		f.empty = make(chan struct{})
	}
	empty := f.empty
	f.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
