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

// inFlight is the list of unsettled messages, the one whose last sign of life is oldest first. Touching one moves it to
// the end, so a round of extension looks only at those that need it. It also remembers what was settled lately.
type inFlight struct {
	mu     sync.Mutex
	head   *Delivery
	tail   *Delivery
	known  map[messageID]struct{} // the messages in the list
	recent [2]map[messageID]struct{}
	empty  chan struct{} // closed when the list gets empty; nil unless somebody waits
}

func (f *inFlight) add(d *Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known = map[messageID]struct{}{}
	}
	f.known[d.id] = struct{}{}
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
	delete(f.known, d.id)
	if acked {
		f.remember(d.id)
	}
	if len(f.known) == 0 && f.empty != nil {
		close(f.empty)
		f.empty = nil
	}
}

// remember notes a settled message in the younger of two sets; the older is forgotten when the younger is full.
func (f *inFlight) remember(id messageID) {
	if len(f.recent[0]) >= rememberSettled || f.recent[0] == nil {
		f.recent[1], f.recent[0] = f.recent[0], make(map[messageID]struct{}, rememberSettled)
	}
	f.recent[0][id] = struct{}{}
}

// status tells what is known of a message.
func (f *inFlight) status(id messageID) flightStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.known[id]; ok {
		return underWay
	}
	for _, set := range f.recent {
		if _, ok := set[id]; ok {
			return settled
		}
	}
	return unknown
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
	return len(f.known)
}

// wait returns when nothing is in flight, or with ctx's error.
func (f *inFlight) wait(ctx context.Context) error {
	f.mu.Lock()
	if len(f.known) == 0 {
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
