package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// Sink takes events.
type Sink interface {
	// Send sends the messages in order and returns how many of them, from the first, are taken for good. If that is not all of
	// them, the error says why the next was not; it is a [*Failure] unless ctx has ended.
	Send(ctx context.Context, msgs []Message) (taken int, err error)
	// Batch is how many messages are best sent at once.
	Batch() int
}

// Failure is why a sink did not take an event.
type Failure struct {
	// Down says that the sink takes no event now, whichever it is, so that nothing is held against this one.
	Down bool
	// Result is what came of the attempt, in terms of HTTP, and URL where it was sent to; nil for a Broker's stream.
	Result delivery.Result
	URL    *url.URL
}

// Error says what the sink answered.
func (f *Failure) Error() string {
	switch {
	case f.Result.Err != nil:
		return f.Result.Err.Error()
	case f.URL == nil && len(f.Result.Body) > 0:
		return string(f.Result.Body)
	}
	return fmt.Sprintf("the sink answered %d %s", f.Result.Status, http.StatusText(f.Result.Status))
}

// Unwrap returns the error of the attempt, if there was one.
func (f *Failure) Unwrap() error { return f.Result.Err }

// Store keeps events; [stream.Publisher] is one.
type Store interface {
	PublishInOrder(ctx context.Context, to *stream.Names, msgs ...stream.Message) (stored int, err error)
}

// BrokerSink stores events in the stream of a Broker, as its ingress does, without HTTP between. Messages of one call are
// stored in order, and none when one before it was not.
type BrokerSink struct {
	store  Store
	to     *stream.Names
	scope  string
	limits event.Limits
	tracer observe.Tracer
	broker *observe.Broker
}

// NewBrokerSink returns a Sink that stores events for the Broker with the given names. scope is put before the keys of
// messages, so that those of one source are not taken for those of another. limits are those of the Broker's ingress.
func NewBrokerSink(store Store, to *stream.Names, scope string, limits event.Limits) *BrokerSink {
	return &BrokerSink{store: store, to: to, scope: scope, limits: limits}
}

// Trace has t make a span of each event until it is stored; nil for none. It is called before the first Send.
func (s *BrokerSink) Trace(t observe.Tracer) {
	s.tracer, s.broker = t, observe.NewBroker(s.to.Namespace, s.to.Name, s.to.UID)
}

// Batch implements [Sink].
func (s *BrokerSink) Batch() int { return stream.MaxBatch }

// Send implements [Sink].
func (s *BrokerSink) Send(ctx context.Context, msgs []Message) (int, error) {
	stored := make([]stream.Message, 0, len(msgs))
	var refused error
	for i := range msgs {
		if refused = s.admit(&msgs[i]); refused != nil {
			break
		}
		stored = append(stored, stream.Message{Event: msgs[i].Event, ID: s.scope + "/" + msgs[i].Key})
	}
	taken, err := s.publish(ctx, stored)
	if err == nil {
		err = refused
	}
	s.endSpans(msgs, taken, err)
	return taken, err
}

// endSpans ends the spans of the messages that were taken, and that of the next if it will never be.
func (s *BrokerSink) endSpans(msgs []Message, taken int, err error) {
	if s.tracer == nil {
		return
	}
	for i := range msgs[:taken] {
		msgs[i].endSpan("")
	}
	if f := (*Failure)(nil); errors.As(err, &f) && !f.Down {
		msgs[taken].endSpan("rejected")
	}
}

func (m *Message) endSpan(reason string) {
	if m.span != nil {
		m.span.End(0, reason)
		m.span = nil
	}
}

// admit does for a message what the ingress does for a request, once.
func (s *BrokerSink) admit(m *Message) error {
	if m.admitted {
		return nil
	}
	if err := m.Event.CheckSize(s.limits); err != nil {
		return rejected(http.StatusRequestEntityTooLarge, err)
	}
	if err := event.Admit(m.Event, time.Now()); err != nil {
		return rejected(http.StatusBadRequest, err)
	}
	m.admitted = true
	if s.tracer != nil {
		if m.span = s.tracer.Begin(observe.Read, time.Now(), s.broker, nil, m.Event); m.span != nil {
			m.span.Tie(m.Event)
		}
	}
	return nil
}

// publish stores messages and says how many.
func (s *BrokerSink) publish(ctx context.Context, msgs []stream.Message) (int, error) {
	stored, err := s.store.PublishInOrder(ctx, s.to, msgs...)
	switch {
	case err == nil:
		return stored, nil
	case ctx.Err() != nil:
		return stored, fmt.Errorf("store events: %w", err)
	case errors.Is(err, stream.ErrTooLarge):
		return stored, rejected(http.StatusRequestEntityTooLarge, err)
	}
	return stored, &Failure{Down: true, Result: delivery.Result{Err: err}}
}

// rejected is the failure of an event that will never be taken. The status is what the ingress would answer.
func rejected(status int, err error) *Failure {
	return &Failure{Result: delivery.Result{Status: status, Body: []byte(err.Error())}}
}

// HTTPOptions say where and how an HTTPSink posts events.
type HTTPOptions struct {
	// URL to post to.
	URL *url.URL
	// Host is the Host header; the default is the URL's.
	Host string
	// Namespace of the source, for the Kn-Namespace header.
	Namespace string
	// Timeout of a request and content mode.
	Timeout time.Duration
	Format  delivery.Format
}

// HTTPSink posts events to a URL, one at a time.
type HTTPSink struct {
	sender *delivery.Sender
	opts   HTTPOptions
}

// NewHTTPSink returns a Sink that posts events by the sender.
func NewHTTPSink(sender *delivery.Sender, o HTTPOptions) *HTTPSink {
	return &HTTPSink{sender: sender, opts: o}
}

// Batch implements [Sink].
func (s *HTTPSink) Batch() int { return 1 }

// Send implements [Sink].
func (s *HTTPSink) Send(ctx context.Context, msgs []Message) (int, error) {
	for i := range msgs {
		r := s.sender.Send(ctx, &delivery.Request{
			URL: s.opts.URL, Host: s.opts.Host, Event: msgs[i].Event, Timeout: s.opts.Timeout, Format: s.opts.Format,
			Namespace: s.opts.Namespace, NoReply: true,
		})
		switch delivery.Classify(r.Status, r.Err) {
		case delivery.Delivered:
		case delivery.Abandoned:
			return i, fmt.Errorf("post event: %w", r.Err)
		default:
			return i, &Failure{Result: r, URL: s.opts.URL}
		}
	}
	return len(msgs), nil
}
