package dispatch

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// delayClass holds the deliveries of one class of delay until they are due. It fetches only so many ahead: within a class
// deliveries fall due nearly in the order in which they were written.
type delayClass struct {
	t        *retrier
	consumer *stream.Consumption
	budget   *budget

	mu      sync.Mutex
	held    map[*stream.Delivery]heldDelivery
	direct  int // deliveries under way without a detour over the backlog
	stopped bool
}

// serveClass makes sure that a class of delay is looked after.
func (t *retrier) serveClass(ctx context.Context, class int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.classes[class] != nil || t.stopping {
		return
	}
	c := &delayClass{t: t, held: map[*stream.Delivery]heldDelivery{}, budget: t.r.opts.budgets.delayed[class]}
	var err error
	c.consumer, err = t.r.opts.Conn.Consume(ctx, stream.ConsumeOptions{
		Stream: t.r.names.Retries, Name: "delay-" + strconv.Itoa(class), FilterSubject: t.r.names.DelayPrefix(class) + "*",
		SubjectPrefix: t.r.names.DelayPrefix(class), MaxAckPending: maxDelayed, Logger: t.r.log,
	}, c.hold)
	if err != nil {
		t.r.log.DebugContext(ctx, "cannot serve delayed deliveries yet", slog.Int("class", class), slog.Any("error", err))
		return
	}
	t.classes[class] = c
}

// heldDelivery is one that waits for its time.
type heldDelivery struct {
	timer  *time.Timer
	settle *settlement
}

// hold keeps a delivery until it is due.
func (c *delayClass) hold(d *stream.Delivery) {
	s := newSettlement(c.t.r.base, d, 1, c.budget)
	if s == nil {
		return
	}
	wait := max(0, time.Until(d.Progress().Due))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		s.giveBack(wait)
		return
	}
	c.held[d] = heldDelivery{timer: time.AfterFunc(wait, func() { c.due(d, s) }), settle: s}
}

// due takes a delivery up: at once if its lane has a place, else by way of the backlog, so that a slow subscriber does not
// hold the places of its class.
func (c *delayClass) due(d *stream.Delivery, s *settlement) {
	c.mu.Lock()
	delete(c.held, d)
	direct := c.direct < maxDirect && c.budget.left() >= c.budget.limit/2
	c.mu.Unlock()
	v := c.t.r.view.Load()
	rt := v.byKey[d.Key()]
	if rt == nil {
		// Not in effect, not known yet, or deleted: the backlog keeps it until that is clear.
		c.t.r.postpone(c.t.job(&route{Trigger: &Trigger{}, key: d.Key(), name: d.Key()}, d, s), 0, observe.Overflowed)
		return
	}
	j := c.t.job(rt, d, s)
	if direct && rt.lane.start(c.counted(j), c.t.r.run) {
		return
	}
	c.t.r.postpone(j, 0, observe.Overflowed)
}

// counted counts the job among the direct ones until it is settled.
func (c *delayClass) counted(j job) job {
	c.mu.Lock()
	c.direct++
	c.mu.Unlock()
	j.settle.after = func() {
		c.mu.Lock()
		c.direct--
		c.mu.Unlock()
	}
	return j
}

// stop gives back what is held and waits for what is under way until ctx ends.
func (c *delayClass) stop(ctx context.Context) {
	c.mu.Lock()
	c.stopped = true
	held := c.held
	c.held = nil
	c.mu.Unlock()
	for d, h := range held {
		if h.timer.Stop() {
			h.settle.giveBack(max(0, time.Until(d.Progress().Due)))
		}
	}
	if err := c.consumer.Stop(ctx); err != nil {
		c.t.r.log.WarnContext(ctx, "stopped before everything was settled; what is left comes again", slog.Any("error", err))
	}
}
