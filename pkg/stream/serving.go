package stream

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// FilterGroup is the group of the processes that deliver events.
const FilterGroup = "filter"

// servingPrefix and a group's name are the subject on which its members are asked what they serve.
const servingPrefix = "millrace.serving."

// The first byte of an answer; the member's id follows.
const (
	answerYes = '+'
	answerNo  = '-'
)

// Version is an object in one of its states: its UID, and what tells the states apart. Neither holds a space.
type Version struct{ UID, State string }

// Answer has this member tell observers of its group whether it serves a version, until [Peers.Leave]. serves is called
// by several goroutines.
func (p *Peers) Answer(serves func(Version) bool) error {
	sub, err := p.conn.nc.Subscribe(servingPrefix+p.group, func(m *nats.Msg) {
		uid, state, ok := strings.Cut(string(m.Data), " ")
		if !ok || m.Reply == "" {
			return
		}
		answer := byte(answerNo)
		if serves(Version{uid, state}) {
			answer = answerYes
		}
		// An answer that is lost counts as no, and the question is asked again.
		_ = m.Respond(append([]byte{answer}, p.id...))
	})
	if err != nil {
		return fmt.Errorf("answer for %s: %w", p.group, err)
	}
	p.answers = sub
	return nil
}

// Observer knows the members of a group without being one.
type Observer struct {
	peers *Peers
	since time.Time
}

// Observe begins to watch the group, until [Observer.Close].
func (c *Conn) Observe(group string) (*Observer, error) {
	o := &Observer{peers: newPeers(c, group), since: time.Now()}
	o.peers.observing = true
	if err := o.peers.listen(); err != nil {
		return nil, fmt.Errorf("observe %s: %w", group, err)
	}
	o.peers.say(beatAsk)
	return o, nil
}

// Close ends the observation.
func (o *Observer) Close() { _ = o.peers.sub.Unsubscribe() }

// Ask returns how many members the group has, and how many of them have not said within patience that they serve the
// version. A member that died may count for some seconds. An error, which matches [ErrUnavailable], says that it is not
// known: the store is away, or not every member can have been heard of yet.
func (o *Observer) Ask(ctx context.Context, v Version, patience time.Duration) (members, behind int, err error) {
	if !o.peers.conn.Connected() {
		return 0, 0, errNotConnected()
	}
	if time.Since(o.since) < beatEvery+beatEvery/2 {
		return 0, 0, fmt.Errorf("%w: not every member of %s can have been heard of yet", ErrUnavailable, o.peers.group)
	}
	waiting := o.peers.members(time.Now())
	if members = len(waiting); members > 0 {
		err = o.ask(ctx, v, patience, waiting)
	}
	return members, len(waiting), err
}

// ask removes from waiting who says yes.
func (o *Observer) ask(ctx context.Context, v Version, patience time.Duration, waiting map[string]bool) error {
	answers := make(chan *nats.Msg, 64)
	inbox := nats.NewInbox()
	nc := o.peers.conn.nc
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = nc.PublishRequest(servingPrefix+o.peers.group, inbox, []byte(v.UID+" "+v.State))
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w: %w", o.peers.group, ErrUnavailable, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	heard := map[string]bool{}
	for expected := len(waiting); len(heard) < expected; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case m := <-answers:
			if len(m.Data) == 0 { // the server says that nobody listens
				return nil
			}
			id := string(m.Data[1:])
			heard[id] = true
			if m.Data[0] == answerYes {
				delete(waiting, id)
			}
		}
	}
	return nil
}
