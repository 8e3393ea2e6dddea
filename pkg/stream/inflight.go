package stream

import (
	"context"
	"sync"
	"time"
)

// inFlight is the list of unsettled messages, the one whose last sign of life is oldest first. Touching one moves it to
// the end, so a round of extension looks only at those that need it.
type inFlight struct {
	mu    sync.Mutex
	head  *Delivery
	tail  *Delivery
	count int
	empty chan struct{} // closed when count falls to zero; nil unless somebody waits
}

func (f *inFlight) add(d *Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
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

func (f *inFlight) remove(d *Delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unlink(d)
	f.count--
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
