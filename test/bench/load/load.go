package load

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"millrace.dev/test/bench/ledger"
)

// Options say what load to make.
type Options struct {
	// Hosts that the connections are spread over, each an address and port.
	Hosts []string
	// Request that is sent.
	Request Request
	// Connections, each with one request under way at a time. Default 64.
	Connections int
	// Duration of the load.
	Duration time.Duration
	// Rate of events a second. At 0 each connection sends its next event as soon as the last was answered (and the book's
	// window has room).
	Rate int
	// Book in which the events are entered.
	Book *ledger.Ledger
}

// Result is what the load was.
type Result struct {
	// Events that were accepted. Of these, all are in the book.
	Events int64
	// Elapsed until the last of them was answered.
	Elapsed time.Duration
	// Latency from when an event was due to be sent until it was accepted, in microseconds. With a Rate an event is due
	// when its turn comes, whether or not a connection is free then, so that a stall counts for all events that it holds up.
	Latency *hdrhistogram.Histogram
}

// Run makes the load. Any answer but 202 is an error.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Connections == 0 {
		o.Connections = 64
	}
	conns, err := dialAll(o)
	defer closeAll(conns)
	if err != nil {
		return Result{}, err
	}
	g, ctx := errgroup.WithContext(ctx)
	sending, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	s := &sender{book: o.Book, latency: ledger.NewHistogram()}
	start := time.Now()
	if o.Rate > 0 {
		due := make(chan time.Time, o.Rate*int(o.Duration/time.Second+1))
		for _, c := range conns {
			g.Go(func() error { return s.sendDue(ctx, c, due) })
		}
		pace(sending, start, o, due)
	} else {
		for _, c := range conns {
			g.Go(func() error { return s.sendAlways(sending, c) })
		}
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	return Result{Events: s.latency.TotalCount(), Elapsed: time.Since(start), Latency: s.latency}, nil
}

func dialAll(o Options) ([]*Conn, error) {
	var conns []*Conn
	for i := range o.Connections {
		c, err := Dial(o.Hosts[i%len(o.Hosts)], o.Request)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// pace puts the time of each event into due when it has come, and closes due at the end.
func pace(ctx context.Context, start time.Time, o Options, due chan<- time.Time) {
	defer close(due)
	for n := range int(float64(o.Rate) * o.Duration.Seconds()) {
		at := start.Add(time.Duration(n) * time.Second / time.Duration(o.Rate))
		sleepUntil(at)
		if ctx.Err() != nil && time.Since(at) < 0 {
			return
		}
		due <- at
	}
}

// sender is what the connections share.
type sender struct {
	book *ledger.Ledger

	mu      sync.Mutex
	latency *hdrhistogram.Histogram
}

func (s *sender) sendDue(ctx context.Context, c *Conn, due <-chan time.Time) error {
	for at := range due {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.send(c, at); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) sendAlways(ctx context.Context, c *Conn) error {
	for s.book.Acquire(ctx) {
		if err := s.send(c, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) send(c *Conn, due time.Time) error {
	seq := s.book.Send(due)
	if _, err := c.Post(seq); err != nil {
		return fmt.Errorf("event %d: %w", seq, err)
	}
	took := time.Since(due)
	s.mu.Lock()
	defer s.mu.Unlock()
	ledger.Record(s.latency, took)
	return nil
}
