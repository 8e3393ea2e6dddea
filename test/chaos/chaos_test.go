package chaos

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"millrace.dev/test/harness"
)

// maxAckPending bounds what can be in flight in one consumer of the broker.
const maxAckPending = 8192

// TestChaos builds the programs and breaks them. With any of the environment variables set, it makes that one run only.
func TestChaos(t *testing.T) {
	c, asked := fromEnvironment(t)
	if testing.Short() && !asked {
		t.Skip("takes half a minute")
	}
	bin := harness.Build(t, "millrace.dev/cmd/broker-ingress", "millrace.dev/cmd/broker-filter", "github.com/nats-io/nats-server/v2")
	if asked {
		checkRun(t, bin, c)
		return
	}
	t.Run("failpoints", func(t *testing.T) {
		t.Parallel()
		testFailpoints(t, bin)
	})
	t.Run("some faults", func(t *testing.T) {
		t.Parallel()
		checkRun(t, bin, short())
	})
	t.Run("no fault", func(t *testing.T) {
		t.Parallel()
		c := short()
		c.Kills, c.Events, c.Duration = 0, 1_000, 4*time.Second
		checkRun(t, bin, c)
	})
}

// checkRun makes a run and fails if anything was lost, was given a wrong fate, or was repeated too often.
func checkRun(t *testing.T, bin string, c config) {
	t.Helper()
	r := run(t, bin, c)
	r.write(t)
	v := r.Verdict
	if v.Lost > 0 || len(v.Mistakes) > 0 {
		t.Errorf("%d lost, %d mistakes; to repeat: %s", v.Lost, len(v.Mistakes), r.Rerun)
	}
	if most := 2 * c.Kills * maxAckPending; v.Duplicates > most {
		t.Errorf("%d events were repeated, want at most %d", v.Duplicates, most)
	}
	for _, a := range v.Accounts {
		if a.Matched == 0 {
			t.Errorf("no event matched %s: the run says nothing about it", a.Role)
		}
	}
}

// run is one run: start everything, post and break, mend everything, wait until all is settled, judge.
func run(t *testing.T, bin string, c config) *report {
	t.Helper()
	start := time.Now()
	p := newPlan(c.Seed)
	l := newLedger(t, c.ledgerDir(t))
	subs := newSubscribers(t, p, l)
	w := newWorld(t, bin, p.manifest(c.Nodes, subs.url), size{c.Nodes, c.Ingresses, c.Filters})
	t.Logf("%s: %d events in %s", c.rerun(), c.Events, c.Duration)

	ctx, cancel := context.WithTimeout(t.Context(), c.Duration+c.SettleWithin)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { newProducers(l, w.brokers).run(ctx, c.Events, c.Duration) })
	m := &mayhem{t: t, ctx: ctx, world: w, subscribers: subs, ledger: l, rand: rand.New(rand.NewPCG(c.Seed, 0))}
	m.run(c.Kills, c.Duration)
	w.waitReady(t)
	mended := time.Now()
	wg.Wait()

	s := openStore(t, w.stores)
	waitSettled(ctx, t, s, l)
	settled := time.Since(mended)
	s.parked(t, l.park)
	return &report{
		Config: c, Rerun: c.rerun(), Took: time.Since(start), Settled: settled, Verdict: judgeBooks(p, l.read(t)),
	}
}

// waitSettled waits until the broker's work queues are empty. If they do not become so, the verdict says what is missing.
func waitSettled(ctx context.Context, t *testing.T, s *store, l *ledger) {
	t.Helper()
	for told := time.Now(); ; wait(ctx, 100*time.Millisecond) {
		n, err := s.queued(ctx)
		if err == nil && n == 0 {
			return
		}
		acked, last := l.progress()
		if ctx.Err() != nil {
			t.Errorf("%d messages are not settled (%v); the last delivery was %s ago", n, err, time.Since(last).Round(time.Second))
			return
		}
		if time.Since(told) > 5*time.Second {
			t.Logf("%6d accepted; %d messages to be settled, the last delivery %s ago", acked, n, time.Since(last).Round(100*time.Millisecond))
			told = time.Now()
		}
	}
}
