package stream

import (
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

const (
	// peerPrefix and a group's name are the subject on which its members tell of themselves.
	peerPrefix = "millrace.peers."
	// beatEvery is how often one does, and silentAfter how long one that is not heard of counts on. A process that was
	// killed, or hangs, is one that others need not make room for.
	beatEvery   = 2 * time.Second
	silentAfter = 7 * time.Second
	// partsKept is how long what a member that left has done counts: its part goes to the others after that.
	partsKept = 2 * time.Second
	// settling is how long a new member waits until all others have heard of it, and have told of themselves.
	settling = beatEvery + beatEvery/2
)

// The first byte of a beat; the member's id follows.
const (
	beatJoin  = '?' // asks the others to tell of themselves at once
	beatAsk   = '!' // does so without being one of them
	beatHere  = '+'
	beatLeave = '-'
)

// Peers knows how many processes share a kind of work. Each tells the others of itself by plain NATS messages, so a count
// is some seconds behind, and while NATS is away it stays as it was: it serves to divide what is shared fairly, not to agree.
type Peers struct {
	conn  *Conn
	group string
	id    string
	// observing says that this process is no member itself.
	observing bool
	sub       *nats.Subscription
	answers   []*nats.Subscription // of [Peers.Answer] and [Peers.Report]
	count     atomic.Int32
	stop      chan struct{}
	beating   sync.WaitGroup

	mu    sync.Mutex
	heard map[string]time.Time // by id
	left  map[string]time.Time // when members left, by id
	since time.Time            // when others began to hear of this one
}

// Join makes this process one of the group's, until [Peers.Leave].
func (c *Conn) Join(group string) (*Peers, error) {
	p := newPeers(c, group)
	p.hear(beatHere, p.id, time.Now())
	if err := p.listen(); err != nil {
		return nil, fmt.Errorf("join %s: %w", group, err)
	}
	p.say(beatJoin)
	p.beating.Go(p.beat)
	return p, nil
}

func newPeers(c *Conn, group string) *Peers {
	return &Peers{
		conn: c, group: group, id: nuid.Next(), stop: make(chan struct{}), heard: map[string]time.Time{}, left: map[string]time.Time{}, since: time.Now(),
	}
}

// listen begins to hear of the others.
func (p *Peers) listen() (err error) {
	p.sub, err = p.conn.nc.Subscribe(peerPrefix+p.group, func(m *nats.Msg) {
		if len(m.Data) > 1 {
			p.receive(m.Data[0], string(m.Data[1:]))
		}
	})
	return err
}

// Count is the number of processes, this one included: at least 1.
func (p *Peers) Count() int { return int(p.count.Load()) }

// Settled reports whether every other member can be expected to know of this one, and this one of them. A member without NATS is not:
// the others do without it before long.
func (p *Peers) Settled(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.since) >= settling && p.conn.Connected()
}

// unsettle notes that nobody has heard of this member of late.
func (p *Peers) unsettle(now time.Time) {
	if !p.conn.Connected() {
		p.mu.Lock()
		p.since = now
		p.mu.Unlock()
	}
}

// Part is what this member has of n things that the group divides: all parts together are n, so that some members have none
// if n is small. When members come it becomes less at once, when they go it becomes more after a while.
func (p *Peers) Part(n int, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	rank, members := 0, len(p.heard)
	for id := range p.heard {
		if id < p.id {
			rank++
		}
	}
	for id, when := range p.left {
		switch {
		case now.Sub(when) > partsKept:
			delete(p.left, id)
		case p.heard[id].IsZero():
			members++
			if id < p.id {
				rank++
			}
		}
	}
	return (n - rank + members - 1) / members
}

// Leave tells the others that this process is none of them any more.
func (p *Peers) Leave() {
	close(p.stop)
	p.beating.Wait()
	_ = p.sub.Unsubscribe()
	for _, answers := range p.answers {
		_ = answers.Unsubscribe()
	}
	p.say(beatLeave)
}

func (p *Peers) beat() {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.say(beatHere)
			p.hear(beatHere, p.id, now)
			p.unsettle(now)
		}
	}
}

// say publishes a beat. One that is lost is made good by the next.
func (p *Peers) say(what byte) {
	if !p.conn.Connected() {
		return // publishing would wait for a lock while the connection is being opened
	}
	if err := p.conn.nc.Publish(peerPrefix+p.group, append([]byte{what}, p.id...)); err != nil {
		p.conn.log.Debug("cannot tell peers of this process", slog.Any("error", err))
	}
}

func (p *Peers) receive(what byte, id string) {
	if id == p.id {
		return
	}
	if what != beatAsk {
		p.hear(what, id, time.Now())
	}
	if !p.observing && (what == beatJoin || what == beatAsk) {
		p.say(beatHere)
	}
}

// members are the ids of those heard of lately.
func (p *Peers) members(now time.Time) map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	members := make(map[string]bool, len(p.heard))
	for id, last := range p.heard {
		members[id] = now.Sub(last) <= silentAfter
	}
	maps.DeleteFunc(members, func(_ string, alive bool) bool { return !alive })
	return members
}

// hear notes a beat, forgets who has been silent for too long, and counts.
func (p *Peers) hear(what byte, id string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if what == beatLeave {
		delete(p.heard, id)
		p.left[id] = now
	} else {
		p.heard[id] = now
	}
	for other, last := range p.heard {
		if now.Sub(last) > silentAfter {
			delete(p.heard, other)
		}
	}
	p.count.Store(int32(len(p.heard)))
}
