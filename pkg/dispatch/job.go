package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

const (
	// storeRetry is the pause before a write to the store that failed is tried again; doubled up to maxStoreRetry.
	storeRetry    = 100 * time.Millisecond
	maxStoreRetry = 5 * time.Second
	// replyPatience is how long storing a reply is tried before the delivery counts as failed, and the subscriber is asked
	// again.
	replyPatience = 10 * time.Second
)

// settlement acks a stored message when every lane has settled its part of it.
type settlement struct {
	delivery *stream.Delivery
	open     atomic.Int32
	budget   *budget
	held     *atomic.Int64 // what the budget has given for a lane; nil if it was not for one
	after    func()        // called when all is settled; may be nil
}

// newSettlement waits for room in the budget. It returns nil if ctx ends before there is any: the message then stays
// unsettled and comes again.
func newSettlement(ctx context.Context, d *stream.Delivery, parts int, b *budget) *settlement {
	if !b.take(ctx, d.Event) {
		return nil
	}
	s := &settlement{delivery: d, budget: b}
	s.open.Store(int32(parts))
	return s
}

func (s *settlement) done() {
	if s.open.Add(-1) != 0 {
		return
	}
	s.delivery.Ack()
	s.release()
	if s.after != nil {
		s.after()
	}
}

// giveBack leaves the message to be handed out again after delay. Nothing of it may have been settled.
func (s *settlement) giveBack(delay time.Duration) {
	s.delivery.Retry(delay)
	s.release()
}

func (s *settlement) release() {
	s.budget.give(s.delivery.Event)
	if s.held != nil {
		s.held.Add(-s.budget.share(s.delivery.Event))
	}
}

// job is the delivery of one event to one Trigger's subscriber or dead letter sink.
type job struct {
	to       *route
	event    *event.Event
	origin   string // names the stored message it came from, to make writes that follow from it idempotent
	progress stream.Progress
	settle   *settlement
	taken    time.Time // when it was taken up here
	pins     bool      // it keeps an accepted event unsettled, not one of the retry stream
}

func (j *job) size() int { return sizeOf(j.event) }

// messageID names what follows from the job's next attempt. The same attempt repeated after a crash gives the same id,
// so its copy is stored once.
func (j *job) messageID(what string) string {
	return what + "/" + j.origin + "/" + j.to.key + "/" + strconv.Itoa(j.progress.Attempt)
}

func formatSequence(n uint64) string { return strconv.FormatUint(n, 10) }

// run makes one attempt and settles the job by its result.
func (r *runner) run(j job) {
	if !j.to.lane.turn(r.base.Done()) {
		j.to.counts.overflowed.Add(1)
		r.postpone(j, 0, observe.Overflowed)
		return
	}
	now := time.Now()
	if j.progress.First.IsZero() {
		j.progress.First = now
	}
	if j.to.sink == nil {
		r.runDeadLetter(j)
		return
	}
	j.to.counts.attempts.Add(1)
	if !r.opts.NoLatencies {
		j.to.counts.process.Observe(now.Sub(j.taken), now, j.event)
	}
	span, carried := r.beginAttempt(&j, now)
	result := r.opts.Sender.Send(r.base, &delivery.Request{
		Headers: carried, URL: j.to.Subscriber, Event: j.event, Timeout: j.to.Policy.Timeout, Format: j.to.Policy.Format,
		Namespace: j.to.Namespace, HTTP2Cleartext: j.to.Policy.HTTP2Cleartext,
	})
	if span != nil {
		span.End(result.Status, result.Reason().String())
	}
	j.to.lane.learn(conditionOf(result)) // before the reply is stored: a store that is away is not the subscriber's fault
	if result.Reply != nil {
		if span != nil && !carriesTrace(result.Reply) {
			span.Tie(result.Reply)
		}
		result.Err = r.storeReply(&j, result.Reply)
	}
	r.settle(j, result, now)
}

func (r *runner) settle(j job, result delivery.Result, begun time.Time) {
	j.progress.Attempt++
	counts := j.to.counts
	d := delivery.Decide(j.to.Policy, j.progress.Attempt, result, rand.Float64())
	ended := begun.Add(result.Duration)
	if !r.opts.NoLatencies {
		counts.responses.Of(result.Status, reasonOf(result)).Observe(result.Duration, ended, j.event)
	}
	if d.Action != delivery.Done {
		r.logAttempt(slog.LevelWarn, &j, result, d)
	}
	r.tellAttempt(&j, result, d, begun)
	if d.Action == delivery.Done {
		r.logDelivered(&j, result, d)
	}
	switch d.Action {
	case delivery.Done:
		if result.Ignored != delivery.IgnoredNothing {
			counts.repliesIgnored.Add(1)
		}
		counts.delivered.Add(1)
		if arrived, err := time.Parse(time.RFC3339Nano, j.event.Value(event.ArrivalTime)); err == nil && !r.opts.NoLatencies {
			counts.endToEnd.Observe(ended.Sub(arrived), ended, j.event)
		}
		j.settle.done()
		r.tellFate(&j, observe.Delivered, 0, ended)
	case delivery.RetryIn:
		counts.retried.Add(1)
		note(&j.progress, j.to.Subscriber, result)
		r.postpone(j, d.Delay, observe.Retried)
	case delivery.GiveUp:
		note(&j.progress, j.to.Subscriber, result)
		r.giveUp(j, result)
	case delivery.Leave:
		// The process is stopping: the message stays unsettled and comes again.
	}
}

// conditionOf says what an attempt shows of the subscriber. Most answers show that it works, even if it refuses the event.
func conditionOf(result delivery.Result) condition {
	switch reason := result.Reason(); {
	case reason == delivery.ReasonTimeout, result.Status == http.StatusTooManyRequests, result.Status == http.StatusServiceUnavailable:
		return overloaded
	case reason == delivery.ReasonNetwork, result.Status >= http.StatusInternalServerError:
		return failing
	default:
		return healthy
	}
}

// note keeps what an operator wants to know about a failed attempt with the event.
func note(p *stream.Progress, to *url.URL, result delivery.Result) {
	p.Code = result.Status
	p.Destination = to.Redacted()
	p.Cause = string(result.Body)
	if result.Err != nil {
		p.Cause = result.Err.Error()
	}
}

// logAttempt writes one wide record of an attempt: who, where to, how it went, what follows. It tells neither data nor header values, nor
// what a URL has beside its place, which may be a secret.
func (r *runner) logAttempt(level slog.Level, j *job, result delivery.Result, d delivery.Decision) {
	if !r.log.Enabled(r.base, level) {
		return
	}
	to, target := "subscriber", j.to.Subscriber
	if j.to.sink == nil {
		to, target = "dead letter sink", j.to.DeadLetterSink
	}
	attrs := []slog.Attr{
		slog.String("trigger", j.to.name),
		slog.String("to", to),
		slog.String("destination", place(target)),
		slog.String("event_id", j.event.Value(event.ID)),
		slog.String("event_source", j.event.Value(event.Source)),
		slog.String("event_type", j.event.Value(event.Type)),
		slog.Int("bytes", len(j.event.Data)),
		slog.String("origin", j.origin),
		slog.Int("attempt", j.progress.Attempt),
		slog.Int("status", result.Status),
		slog.String("reason", d.Reason.String()),
		slog.String("action", d.Action.String()),
		slog.Duration("retry_in", d.Delay),
		slog.Duration("duration", result.Duration),
	}
	if arrived, err := time.Parse(time.RFC3339Nano, j.event.Value(event.ArrivalTime)); err == nil {
		attrs = append(attrs, slog.Duration("age", time.Since(arrived)))
	}
	if trace, ok := observe.TraceID(j.event); ok {
		attrs = append(attrs, slog.String("trace_id", trace))
	}
	if result.Err != nil {
		attrs = append(attrs, slog.Any("error", result.Err))
	}
	if d.Action == delivery.Done {
		r.log.LogAttrs(r.base, level, "delivered", attrs...)
		return
	}
	r.log.LogAttrs(r.base, level, "delivery attempt failed", attrs...)
}

// place is where a URL leads to, without user information, query and fragment.
func place(u *url.URL) string {
	if u == nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// logDelivered writes a record of one in so many successes, if that is wanted.
func (r *runner) logDelivered(j *job, result delivery.Result, d delivery.Decision) {
	n := uint64(max(0, r.opts.LogDeliveries))
	if n != 0 && r.successes.Add(1)%n == 0 {
		r.logAttempt(slog.LevelInfo, j, result, d)
	}
}

// beginAttempt begins the span of an attempt, if the event's trace is recorded, and returns the headers that carry it.
func (r *runner) beginAttempt(j *job, at time.Time) (observe.Span, []event.Header) {
	if r.opts.Tracer == nil {
		return nil, nil
	}
	span := r.opts.Tracer.Begin(observe.Deliver, at, r.broker, j.to.seen, j.event)
	if span == nil {
		return nil, nil
	}
	return span, span.Headers()
}

func carriesTrace(e *event.Event) bool {
	return slices.ContainsFunc(e.Headers, func(h event.Header) bool { return h.Name == "Traceparent" })
}

func reasonOfStore(err error) string {
	if err != nil {
		return "store"
	}
	return ""
}

// reasonOf tells why there was no answer, for metrics.
func reasonOf(result delivery.Result) string {
	if result.Status != 0 {
		return ""
	}
	return result.Reason().String()
}

func (r *runner) tellAttempt(j *job, result delivery.Result, d delivery.Decision, begun time.Time) {
	if r.opts.Recorder == nil {
		return
	}
	answer := ""
	if d.Action != delivery.Done {
		answer = string(result.Body)
	}
	r.opts.Recorder.Attempted(observe.Attempt{
		Trigger: j.to.seen, Event: j.event, Origin: j.origin, Again: j.settle.delivery.Deliveries() > 1, DeadLetter: j.to.sink == nil, Number: j.progress.Attempt,
		At: begun, Took: result.Duration, Destination: j.to.address, Status: result.Status,
		Reason: result.Reason().String(), Err: result.Err, Answer: answer, Action: d.Action.String(), Delay: d.Delay,
	})
}

// tellFate tells where the job ended or waits since when; sequence is that of the message that it waits as.
func (r *runner) tellFate(j *job, fate observe.Fate, sequence uint64, at time.Time) {
	if r.opts.Recorder == nil || j.to.seen == nil { // a Trigger that is not in effect cannot be told of
		return
	}
	r.opts.Recorder.Settled(observe.Settlement{
		Trigger: j.to.seen, Event: j.event, Origin: j.origin, Fate: fate, Attempts: j.progress.Attempt, At: at, Due: j.progress.Due,
		Sequence: sequence,
	})
}

func (r *runner) tellReply(j *job, reply *event.Event, dropped bool) {
	if r.opts.Recorder == nil {
		return
	}
	r.opts.Recorder.Replied(observe.Reply{Trigger: j.to.seen, Event: reply, To: j.event, At: time.Now(), Dropped: dropped})
}

// storeReply admits a reply like any other event and stores it. A reply that has passed too many hops is dropped: storing
// it would keep a loop alive, and trying again would not help.
func (r *runner) storeReply(j *job, reply *event.Event) error {
	if err := event.Admit(reply, time.Now()); err != nil {
		j.to.counts.repliesDropped.Add(1)
		r.log.Warn("drop a reply", slog.String("trigger", j.to.name), slog.Any("error", err))
		r.tellReply(j, reply, true)
		return nil
	}
	m := stream.Message{Event: reply, ID: j.messageID("reply")}
	ctx, cancel := context.WithTimeout(r.base, replyPatience)
	defer cancel()
	var span observe.Span
	if r.opts.Tracer != nil {
		span = r.opts.Tracer.Begin(observe.Store, time.Now(), r.broker, j.to.seen, reply)
	}
	err := insist(ctx, func(ctx context.Context) error { return r.opts.Publisher.Publish(ctx, r.names, m) }, passing)
	if span != nil {
		span.End(0, reasonOfStore(err))
	}
	switch {
	case err == nil:
		j.to.counts.replies.Add(1)
		r.tellReply(j, reply, false)
	case errors.Is(err, stream.ErrTooLarge):
		return delivery.ErrReplyTooLarge
	}
	return err
}

// insist writes until the store takes it, an error is not to be tried again, or ctx ends, and returns the last error.
func insist(ctx context.Context, write func(context.Context) error, again func(err error, pause time.Duration) bool) error {
	for pause := storeRetry; ; pause = min(2*pause, maxStoreRetry) {
		err := write(ctx)
		if err == nil || !again(err, pause) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// passing tells errors of a store that is away or busy from those that stay.
func passing(err error, _ time.Duration) bool {
	return errors.Is(err, stream.ErrUnavailable) || errors.Is(err, stream.ErrBusy)
}

// postpone writes the job to the retry stream, to be due after delay, and settles it here. Without a delay it waits in
// the backlog until the route takes it.
func (r *runner) postpone(j job, delay time.Duration, why observe.Fate) {
	now := time.Now()
	if j.progress.Since.IsZero() {
		j.progress.Since = now
	}
	if delay > 0 {
		j.progress.Due = now.Add(delay)
	}
	m := stream.Message{Event: j.event, ID: j.messageID("retry")}
	if delay <= 0 {
		m.ID = j.messageID("wait")
	}
	var sequence uint64
	if r.store(&j, func(ctx context.Context) (err error) {
		sequence, err = r.opts.Publisher.PublishRetry(ctx, r.names, j.to.key, m, j.progress)
		return err
	}) {
		r.retries.stored(j.to.key, delay)
		r.tellFate(&j, why, sequence, time.Now())
	}
}

// giveUp takes the job to the dead letter sink, or parks it if there is none.
func (r *runner) giveUp(j job, result delivery.Result) {
	if j.to.DeadLetterSink == nil {
		r.park(j)
		return
	}
	j.event = delivery.DeadLetter(j.event, delivery.Failure{
		URL: j.to.Subscriber, Result: result, Attempts: j.progress.Attempt, Trigger: j.to.name,
	})
	j.to, j.progress.DeadLetter, j.progress.Attempt, j.progress.Since = j.to.sink, true, 0, time.Time{}
	if !j.to.lane.offer(j, r.free(), r.run) {
		r.postpone(j, 0, observe.Overflowed)
	}
}

func (r *runner) park(j job) {
	m := stream.Message{Event: j.event, ID: j.messageID("park")}
	var sequence uint64
	if r.store(&j, func(ctx context.Context) (err error) {
		sequence, err = r.opts.Publisher.Park(ctx, r.names, j.to.UID, m, j.progress)
		return err
	}) {
		j.to.counts.parked.Add(1)
		r.tellFate(&j, observe.Parked, sequence, time.Now())
	}
}

// runDeadLetter makes one attempt at the dead letter sink. As long as the sink does not take the event it is tried again:
// it is the last place there is.
func (r *runner) runDeadLetter(j job) {
	if j.to.DeadLetterSink == nil { // the Trigger was changed since
		r.park(j)
		return
	}
	begun := time.Now()
	span, carried := r.beginAttempt(&j, begun)
	result := r.opts.Sender.Send(r.base, &delivery.Request{
		Headers: carried, URL: j.to.DeadLetterSink, Event: j.event, Timeout: j.to.Policy.Timeout, Format: delivery.Binary,
		Namespace: j.to.Namespace, NoReply: true,
	})
	if span != nil {
		span.End(result.Status, result.Reason().String())
	}
	j.progress.Attempt++
	j.to.lane.learn(conditionOf(result))
	outcome := delivery.Classify(result.Status, result.Err)
	switch {
	case outcome == delivery.Delivered:
		j.to.counts.deadLettered.Add(1)
		r.tellAttempt(&j, result, delivery.Decision{Action: delivery.Done}, begun)
		j.settle.done()
		r.tellFate(&j, observe.DeadLettered, 0, time.Now())
	case outcome == delivery.Abandoned:
		// The process is stopping: the message stays unsettled and comes again.
	case result.Reason() == delivery.ReasonUnsendable:
		r.park(j) // no sink can take it: HTTP itself cannot carry it
	default:
		d := delivery.Decision{Action: delivery.RetryIn, Delay: j.to.Policy.Delay(j.progress.Attempt, rand.Float64()), Reason: result.Reason()}
		r.logAttempt(slog.LevelWarn, &j, result, d)
		r.tellAttempt(&j, result, d, begun)
		r.postpone(j, d.Delay, observe.Retried)
	}
}

// store writes until the store takes it, then settles the job; false if the dispatcher was stopped before.
func (r *runner) store(j *job, write func(context.Context) error) bool {
	err := insist(r.base, write, func(err error, pause time.Duration) bool {
		r.log.Warn("cannot store a delivery, trying again",
			slog.String("trigger", j.to.name), slog.Duration("retry_in", pause), slog.Any("error", err))
		return true
	})
	if err == nil {
		j.settle.done()
	}
	return err == nil
}
