package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// The operations of JetStream's fast-ingest batch publish (ADR-50 of the NATS project, server 2.14 and later), as they are written into
// the reply subject of each message of a series, which is <inbox>.<id>.<flow>.fail.<number>.<operation>.$FI.
const (
	seriesStart  = "0.$FI"
	seriesAppend = "1.$FI"
	seriesCommit = "2.$FI"
	// seriesEnd commits too, with a message that is not stored.
	seriesEnd = "3.$FI"
	// seriesFlow is how often the server says how far it is, in messages, if it has nothing against it.
	seriesFlow = "500"
)

// PublishInOrder stores the messages, at most [MaxBatch] of them, in the Broker's stream of accepted events in order, and returns how many
// of them, from the first, it knows to be stored. If that is not all, err says why the next was not; it is as that of
// [Publisher.Publish]. No message is stored when one before it was not. Every message must have an ID, so that it may be published again
// when it is not known whether it is stored.
//
// It is for what is published much of: an atomic batch, as Publish stores it, is written to disk twice by the server. The server passes over
// messages that are known to it, whichever of a series they are, so that those cost no more than others.
func (p *Publisher) PublishInOrder(ctx context.Context, to *Names, msgs ...Message) (stored int, err error) {
	fit := 0
	for fit < len(msgs) && err == nil {
		if err = p.checkSize(msgs[fit].Event); err == nil {
			fit++
		}
	}
	stored, failure := p.putSeries(ctx, to, msgs[:fit])
	if failure != nil {
		return stored, failure
	}
	return stored, err
}

func (p *Publisher) putSeries(ctx context.Context, to *Names, msgs []Message) (int, error) {
	switch {
	case len(msgs) > MaxBatch:
		return 0, fmt.Errorf("%w: at most %d events are stored at once", ErrTooLarge, MaxBatch)
	case len(msgs) < 2:
		return p.putEach(ctx, to, msgs)
	}
	stream := p.conn.health.events(to)
	down, err := p.open(stream)
	if err != nil {
		return 0, err
	}
	bounded, end, err := p.begin(ctx, stream, down, p.series)
	if err != nil {
		return 0, err
	}
	stored, err := p.sendSeries(bounded, to, msgs)
	end()
	if errors.Is(err, errNoSeries) {
		return p.putEach(ctx, to, msgs)
	}
	return stored, p.suspicious(stream, err)
}

// errNoSeries says that the stream was made before there were series: nothing is stored, and messages are to be published one by one.
var errNoSeries = errors.New("the stream takes no series of messages")

// sendSeries publishes the messages as one series and waits for what comes of it.
func (p *Publisher) sendSeries(ctx context.Context, to *Names, msgs []Message) (stored int, err error) {
	var size int64
	for i := range msgs {
		size += int64(len(msgs[i].Event.Data)) + messageOverhead
	}
	release, err := p.reserve(size)
	if err != nil {
		return 0, err
	}
	defer release()
	inbox := p.conn.nc.NewInbox()
	answers, err := p.conn.nc.SubscribeSync(inbox + ".>")
	if err != nil {
		return 0, p.publishError(err, 0)
	}
	defer func() { _ = answers.Unsubscribe() }() // fails only without a connection
	reply := inbox + "." + nuid.Next() + "." + seriesFlow + ".fail."
	for i := range msgs {
		operation := seriesAppend
		switch i {
		case 0:
			operation = seriesStart
		case len(msgs) - 1:
			operation = seriesCommit
		}
		msg := newMessage(to.EventSubject, &msgs[i])
		msg.Reply = reply + strconv.Itoa(i+1) + "." + operation
		if err := p.conn.nc.PublishMsg(msg); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	s := series{count: len(msgs)}
	for {
		answer, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			return s.stored, s.unknown(p.publishError(err, 0))
		}
		ended := s.refused
		if over, err := s.enter(answer.Data); over {
			return s.stored, err
		}
		if s.refused && !ended {
			end := nats.Msg{Subject: to.EventSubject, Reply: reply + strconv.Itoa(len(msgs)+1) + "." + seriesEnd}
			if err := p.conn.nc.PublishMsg(&end); err != nil {
				return s.stored, s.unknown(p.publishError(err, 0))
			}
		}
	}
}

// series is what the server has said about a series of messages.
type series struct {
	count   int
	begun   bool  // the server has taken the series up
	stored  int   // how many from the first are stored at least
	failure error // why the one after the last that will be stored is not
	refused bool  // one was refused for its size, which the server notices before it looks for the series, and so does not end that
}

// seriesAnswer is any of the server's answers: how far it is, a gap, why a message is not stored, or the end.
type seriesAnswer struct {
	Type     string              `json:"type"` // ack, gap, err; that of the end has none
	Sequence int                 `json:"seq"`  // at the end, it is the stream's
	Count    int                 `json:"count"`
	Error    *jetstream.APIError `json:"error"`
}

// enter takes an answer in. over says that it was the last that matters.
func (s *series) enter(data []byte) (over bool, err error) {
	var a seriesAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return true, s.unknown(fmt.Errorf("%w: the server's answer makes no sense: %w", ErrUnavailable, err))
	}
	switch {
	case a.Type == "ack":
		s.begun, s.stored = true, min(max(s.stored, a.Sequence), s.count)
	case a.Type == "gap":
		s.fail(fmt.Errorf("%w: a message got lost on its way", ErrUnavailable))
	case a.Error != nil:
		return s.enterError(a.Type, a.Error)
	case a.Type == "":
		s.stored = min(max(s.stored, a.Count), s.count)
		if s.stored == s.count {
			return true, nil
		}
		s.fail(fmt.Errorf("%w: the server ended a series of messages early", ErrUnavailable))
		return true, s.failure
	}
	return false, nil
}

func (s *series) enterError(kind string, api *jetstream.APIError) (over bool, err error) {
	failure := apiError(api)
	switch {
	case kind == "err": // the end follows
		s.fail(failure)
		return false, nil
	case api.ErrorCode == codeSeriesDisabled:
		return true, errNoSeries
	case api.ErrorCode == codeSeriesUnknown && !s.begun && s.failure != nil:
		return true, s.failure // that of the first message, which would have begun it
	case errors.Is(failure, ErrTooLarge):
		s.fail(failure)
		s.refused = true
		return false, nil
	}
	return true, s.unknown(failure)
}

// fail takes note of a failure, of which the first counts: it is that of the message at which the series ended.
func (s *series) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
}

// unknown is why the series failed where it is not known how many messages are stored: more may be than s.stored says. So it is never
// what is wrong with one message.
func (s *series) unknown(otherwise error) error {
	if s.failure != nil && !errors.Is(s.failure, ErrTooLarge) {
		return s.failure
	}
	return otherwise
}
