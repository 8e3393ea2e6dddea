package stream

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// FilterGroup is the group of the processes that deliver events, SourceGroup that of those that run sources.
const (
	FilterGroup = "filter"
	SourceGroup = "source"
)

// servingPrefix and a group's name are the subject on which its members are asked what they serve, and reportPrefix and that
// name the one on which they are asked how an object is.
const (
	servingPrefix = "millrace.serving."
	reportPrefix  = "millrace.report."
)

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
	return p.answer(servingPrefix, func(m *nats.Msg) {
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
}

// Report has this member tell observers of its group how the object with a UID is, until [Peers.Leave]; nil stands for an
// object that it does not know. report is called by several goroutines.
func (p *Peers) Report(report func(uid string) []byte) error {
	return p.answer(reportPrefix, func(m *nats.Msg) {
		if m.Reply == "" {
			return
		}
		// The id has no line break. An answer that is lost counts as none.
		_ = m.Respond(slices.Concat([]byte(p.id), []byte{'\n'}, report(string(m.Data))))
	})
}

func (p *Peers) answer(prefix string, reply nats.MsgHandler) error {
	sub, err := p.conn.nc.Subscribe(prefix+p.group, reply)
	if err != nil {
		return fmt.Errorf("answer for %s: %w", p.group, err)
	}
	p.answers = append(p.answers, sub)
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
	waiting, err := o.members()
	if members = len(waiting); members == 0 {
		return 0, 0, err
	}
	heard := map[string]bool{}
	err = o.ask(ctx, question{servingPrefix, v.UID + " " + v.State, patience}, func(answer []byte) bool {
		id := string(answer[1:])
		heard[id] = true
		if answer[0] == answerYes {
			delete(waiting, id)
		}
		return len(heard) < members
	})
	return members, len(waiting), err
}

// Reports returns how many members the group has, and what those said within patience who know the object with that UID. The
// error is as that of [Observer.Ask].
func (o *Observer) Reports(ctx context.Context, uid string, patience time.Duration) (members int, reports [][]byte, err error) {
	waiting, err := o.members()
	if members = len(waiting); members == 0 {
		return 0, nil, err
	}
	err = o.ask(ctx, question{reportPrefix, uid, patience}, func(answer []byte) bool {
		id, report, ok := bytes.Cut(answer, []byte{'\n'})
		if ok && len(report) > 0 && waiting[string(id)] {
			reports = append(reports, report)
		}
		delete(waiting, string(id))
		return len(waiting) > 0
	})
	return members, reports, err
}

// members are the ids of the group's members, none with an error.
func (o *Observer) members() (map[string]bool, error) {
	if !o.peers.conn.Connected() {
		return nil, errNotConnected()
	}
	if time.Since(o.since) < beatEvery+beatEvery/2 {
		return nil, fmt.Errorf("%w: not every member of %s can have been heard of yet", ErrUnavailable, o.peers.group)
	}
	return o.peers.members(time.Now()), nil
}

// question is what the members of a group are asked, and for how long their answers are waited for.
type question struct {
	prefix, text string
	patience     time.Duration
}

// ask hands the answers to take until that returns false, or patience ends.
func (o *Observer) ask(ctx context.Context, q question, take func(answer []byte) bool) error {
	answers := make(chan *nats.Msg, 64)
	inbox := nats.NewInbox()
	nc := o.peers.conn.nc
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }()
		err = nc.PublishRequest(q.prefix+o.peers.group, inbox, []byte(q.text))
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w: %w", o.peers.group, ErrUnavailable, err)
	}
	timer := time.NewTimer(q.patience)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case m := <-answers:
			if len(m.Data) == 0 || !take(m.Data) { // the server says that nobody listens, or all have answered
				return nil
			}
		}
	}
}
