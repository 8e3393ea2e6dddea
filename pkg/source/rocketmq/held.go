package rocketmq

import (
	"context"
	"strconv"
	"sync"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"
	"golang.org/x/sync/errgroup"
)

const (
	// maxHeld and maxHeldBytes bound the messages of a topic that were received and are not settled.
	maxHeld, maxHeldBytes = 2048, 64 << 20
	// messageOverhead stands for a message's bookkeeping when bytes are counted.
	messageOverhead = 1024
	// renewers and ackers are how many requests of the kind are under way at a time.
	renewers, ackers = 16, 4
	// maxAcks is how many messages are acknowledged at once.
	maxAcks = 64
	// ackPause is the pause before a request to acknowledge is repeated.
	ackPause = 500 * time.Millisecond
)

// held is a message that was received and is not acknowledged.
type held struct {
	message  *v2.Message
	topic    string
	received time.Time

	mu       sync.Mutex
	from     *client   // that received it
	handle   string    // the receipt to acknowledge or to hide it with
	until    time.Time // when the server hands it out again
	renewing bool
	settled  bool
}

// identity tells a message from all others of a source, and is the same when it is received again. The producer's client
// makes the id; the time guards against one that repeats itself.
func identity(m *v2.Message) string {
	p := m.GetSystemProperties()
	return m.GetTopic().GetName() + "/" + p.GetMessageId() + "/" + strconv.FormatInt(p.GetBornTimestamp().AsTime().UnixMilli(), 36)
}

func (h *held) bytes() int64 {
	n := len(h.message.GetBody()) + messageOverhead
	for k, v := range h.message.GetUserProperties() {
		n += len(k) + len(v)
	}
	return int64(n)
}

// shelf has the messages that are held of all topics.
type shelf struct {
	mu    sync.Mutex
	free  sync.Cond // something left the shelf
	items map[string]*held
	bytes int64
	// reserved are places for messages that are being received.
	reserved int
	peak     int64 // of the bytes of a message, lately
	// lost counts acknowledgments that the server did not take: these messages are received again.
	lost uint64
}

func newShelf() *shelf {
	s := &shelf{items: map[string]*held{}, peak: messageOverhead}
	s.free.L = &s.mu
	return s
}

// reserve waits for places for messages to receive, want at most, and returns for how many there are; 0 when ctx has ended.
// It divides the bytes by the largest message seen lately, so that a few large ones do not exceed them.
func (s *shelf) reserve(ctx context.Context, want, shares int) int {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ctx.Err() == nil {
		places := min(want, maxHeld-len(s.items)-s.reserved)
		if bytes := maxHeldBytes - s.bytes - int64(s.reserved)*s.peak; bytes > 0 && places > 0 {
			places = min(places, max(1, int(bytes/int64(shares)/s.peak)))
			s.reserved += places
			return places
		}
		s.free.Wait()
	}
	return 0
}

// put keeps messages for which places were reserved, and returns those that were not there yet. Of one that is there, since
// the server handed it out again, only the receipt is new.
func (s *shelf) put(messages []*held, reserved int) (fresh []*held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= reserved
	s.peak = max(messageOverhead, s.peak-s.peak/64)
	for _, h := range messages {
		s.peak = max(s.peak, h.bytes())
		id := identity(h.message)
		if known := s.items[id]; known != nil {
			known.mu.Lock()
			known.from, known.handle, known.until = h.from, h.handle, h.until
			known.mu.Unlock()
			continue
		}
		s.items[id] = h
		s.bytes += h.bytes()
		fresh = append(fresh, h)
	}
	s.free.Broadcast()
	return fresh
}

// remove lets go of a message.
func (s *shelf) remove(h *held, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := identity(h.message)
	if s.items[id] != h {
		return
	}
	delete(s.items, id)
	s.bytes -= h.bytes()
	if lost {
		s.lost++
	}
	s.free.Broadcast()
}

// all returns the messages that are held and not settled.
func (s *shelf) all() []*held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []*held
	for _, h := range s.items {
		h.mu.Lock()
		if !h.settled {
			open = append(open, h)
		}
		h.mu.Unlock()
	}
	return open
}

// keeper hides what is held from others, and acknowledges what is settled.
type keeper struct {
	shelf     *shelf
	invisible time.Duration
	warn      func(context.Context, error)
	acks      chan *held
}

func newKeeper(invisible time.Duration, warn func(context.Context, error)) *keeper {
	return &keeper{shelf: newShelf(), invisible: invisible, warn: warn, acks: make(chan *held, 2*maxHeld)}
}

// settle has messages acknowledged.
func (k *keeper) settle(items []*held) {
	for _, h := range items {
		h.mu.Lock()
		h.settled = true
		renewing := h.renewing // then the renewal passes it on, for the receipt is about to change
		h.mu.Unlock()
		if !renewing {
			k.acks <- h
		}
	}
}

// renew extends, until ctx ends, the time that messages are hidden for once half of it is over.
func (k *keeper) renew(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var group errgroup.Group
		group.SetLimit(renewers)
		for _, h := range k.shelf.all() {
			if h.begin(k.invisible / 2) {
				group.Go(func() error {
					k.extend(ctx, h, k.invisible)
					return nil
				})
			}
		}
		_ = group.Wait() // none of them fails
	}
}

// begin reports whether the message is to be hidden for longer, which extend has to follow.
func (h *held) begin(left time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.settled || h.renewing || time.Until(h.until) > left {
		return false
	}
	h.renewing = true
	return true
}

// extend hides a message for a duration from now on. If the server does not do so it hands the message out again, which is
// then known.
func (k *keeper) extend(ctx context.Context, h *held, d time.Duration) {
	h.mu.Lock()
	from, before := h.from, h.handle
	h.mu.Unlock()
	now := time.Now()
	handle, err := from.hide(ctx, h.topic, h.message.GetSystemProperties().GetMessageId(), before, d)
	h.mu.Lock()
	if err == nil && h.handle == before {
		h.until = now.Add(d)
		if handle != "" {
			h.handle = handle
		}
	}
	h.renewing = false
	settled := h.settled
	h.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		k.warn(ctx, err)
	}
	if settled {
		k.acks <- h
	}
}

// release lets others have at once what is held and not settled. RocketMQ counts an attempt for each of these messages.
func (k *keeper) release(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(renewers)
	for _, h := range k.shelf.all() {
		group.Go(func() error {
			h.mu.Lock()
			from, handle := h.from, h.handle
			h.mu.Unlock()
			_, _ = from.hide(ctx, h.topic, h.message.GetSystemProperties().GetMessageId(), handle, time.Second) // it is handed out again anyway, later
			return nil
		})
	}
	_ = group.Wait() // none of them fails
}

// target is where messages are acknowledged together.
type target struct {
	from  *client
	topic string
}

// acknowledge acknowledges what is settled until ctx ends.
func (k *keeper) acknowledge(ctx context.Context) {
	var workers sync.WaitGroup
	for range ackers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case first := <-k.acks:
					k.send(ctx, k.gather(first))
				}
			}
		})
	}
	workers.Wait()
}

// gather takes as many messages as wait to be acknowledged, to a limit, by where they are.
func (k *keeper) gather(first *held) map[target][]*held {
	found := map[target][]*held{}
	add := func(h *held) {
		h.mu.Lock()
		to := target{h.from, h.topic}
		h.mu.Unlock()
		found[to] = append(found[to], h)
	}
	add(first)
	for range maxAcks - 1 {
		select {
		case h := <-k.acks:
			add(h)
		default:
			return found
		}
	}
	return found
}

func (k *keeper) send(ctx context.Context, found map[target][]*held) {
	for to, items := range found {
		entries := make([]*v2.AckMessageEntry, len(items))
		handles := make([]string, len(items))
		for i, h := range items {
			h.mu.Lock()
			handles[i] = h.handle
			h.mu.Unlock()
			entries[i] = &v2.AckMessageEntry{MessageId: h.message.GetSystemProperties().GetMessageId(), ReceiptHandle: handles[i]}
		}
		failed, err := to.from.ack(ctx, to.topic, entries)
		for i, h := range items {
			fault := err
			if err == nil {
				fault = failed[handles[i]]
			}
			k.acknowledged(ctx, h, handles[i], fault)
		}
	}
}

// acknowledged deals with the outcome of a request. One that failed is repeated as long as the receipt may be good; after
// that the server hands the message out again.
func (k *keeper) acknowledged(ctx context.Context, h *held, handle string, fault error) {
	if fault == nil {
		k.shelf.remove(h, false)
		return
	}
	if ctx.Err() != nil {
		return
	}
	k.warn(ctx, fault)
	h.mu.Lock()
	replaced := h.handle != handle // it was handed out again meanwhile
	over := time.Now().After(h.until) || isCode(fault, v2.Code_INVALID_RECEIPT_HANDLE)
	h.mu.Unlock()
	if over && !replaced {
		k.shelf.remove(h, true)
		return
	}
	time.AfterFunc(ackPause, func() {
		select {
		case k.acks <- h:
		case <-ctx.Done():
		}
	})
}
