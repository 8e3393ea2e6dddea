package e2esources

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/test/harness"
)

// pulse looks at how a Broker's stream grows, so that a test can say how long nothing was stored after each thing that was done.
type pulse struct {
	stop context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	last  uint64
	grew  time.Time
	marks []mark
}

// mark is something that was done, and the longest time after it in which nothing was stored: to the end if it goes on from before, and to
// the next mark at most if it began later. The time after the last that is stored does not count.
type mark struct {
	what     string
	at       time.Time
	stored   uint64
	standing time.Duration
}

func startPulse(t *testing.T, c *harness.Cluster) *pulse {
	t.Helper()
	conn, err := nats.Connect(c.NATSURL(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulse{stop: cancel, done: make(chan struct{}), grew: time.Now()}
	name := harness.BrokerNames(t, c.Manifests, "b").Events
	go func() {
		defer close(p.done)
		defer conn.Close()
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			ask, cancel := context.WithTimeout(ctx, time.Second)
			s, err := js.Stream(ask, name)
			cancel()
			if err == nil {
				p.note(s.CachedInfo().State.LastSeq)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-p.done; p.report(t) })
	return p
}

func (p *pulse) note(stored uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stored > p.last {
		now := time.Now()
		next := now
		for i := len(p.marks) - 1; i >= 0; i-- {
			m := &p.marks[i]
			if m.at.Before(p.grew) {
				m.standing = max(m.standing, next.Sub(p.grew))
				break
			}
			m.standing, next = max(m.standing, now.Sub(m.at)), m.at
		}
		p.last, p.grew = stored, now
	}
}

// mark notes that something was done.
func (p *pulse) mark(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marks = append(p.marks, mark{what: what, at: time.Now(), stored: p.last})
}

// report logs what was done, and how long the stream stood still after it.
func (p *pulse) report(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.marks {
		t.Logf("after %5.1f s, %7d stored: %s; nothing was stored for at most %.1f s after it", m.at.Sub(p.marks[0].at).Seconds(), m.stored, m.what, m.standing.Seconds())
	}
}
