package chaos

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// breakage is a kind of fault: do breaks something, holds it for the given time where that has a meaning, and mends it.
// It returns the name of what was broken.
type breakage struct {
	kind string
	do   func(m *mayhem, hold time.Duration) string
}

// kills end processes as a crash does.
func kills(nodes int) []breakage {
	all := []breakage{
		{"kill a filter", func(m *mayhem, hold time.Duration) string { return m.kill(hold, m.aFilter().process) }},
		{"kill a NATS server", func(m *mayhem, hold time.Duration) string { return m.kill(hold, m.aNode()) }},
		{"kill an ingress", func(m *mayhem, hold time.Duration) string { return m.kill(hold, m.anIngress().process) }},
		{"kill all filters", func(m *mayhem, hold time.Duration) string {
			return m.kill(hold, processesOf(m.world.filters)...)
		}},
		{"kill everything", func(m *mayhem, hold time.Duration) string { return m.kill(hold, m.world.processes()...) }},
	}
	if nodes > 1 {
		all = append(all, breakage{"kill the NATS cluster", func(m *mayhem, hold time.Duration) string {
			return m.kill(hold, m.world.nodes...)
		}})
	}
	return all
}

// mildFaults leave all processes alive. In a long run one is a pause so long that others take over what the paused filter
// has, which it does not know when it goes on.
func mildFaults(long bool) []breakage {
	all := []breakage{
		{"cut a filter's connection", func(m *mayhem, _ time.Duration) string { f := m.aFilter(); f.cut(); return f.name }},
		{"take the sink down", func(m *mayhem, hold time.Duration) string { return m.down(m.subscribers.drain, sinkName, hold) }},
		{"pause a filter", func(m *mayhem, hold time.Duration) string { return m.freeze(m.aFilter().process, hold) }},
		{"take a subscriber down", func(m *mayhem, hold time.Duration) string { return m.down(m.subscribers.faint, "fragile", hold) }},
		{"pause a NATS server", func(m *mayhem, hold time.Duration) string { return m.freeze(m.aNode(), hold) }},
		{"part a filter from NATS", func(m *mayhem, hold time.Duration) string { return m.part(m.aFilter(), hold) }},
		{"cut an ingress's connection", func(m *mayhem, _ time.Duration) string { i := m.anIngress(); i.cut(); return i.name }},
		{"part an ingress from NATS", func(m *mayhem, hold time.Duration) string { return m.part(m.anIngress(), hold) }},
		{"stall a filter's connection", func(m *mayhem, hold time.Duration) string { return m.stall(m.aFilter(), hold) }},
		{"pause an ingress", func(m *mayhem, hold time.Duration) string { return m.freeze(m.anIngress().process, hold) }},
		{"stall a subscriber's connections", func(m *mayhem, hold time.Duration) string {
			m.subscribers.faint.stall(true)
			m.hold(hold)
			m.subscribers.faint.stall(false)
			return "fragile"
		}},
	}
	if long {
		all = append(all, breakage{"pause a filter for long", func(m *mayhem, hold time.Duration) string {
			return m.freeze(m.aFilter().process, ackWait+hold)
		}})
	}
	return all
}

// ackWait is how long the store waits for a sign of life of a message before it gives it to somebody else.
const ackWait = 10 * time.Second

// mayhem breaks one thing after the other.
type mayhem struct {
	t           testing.TB
	ctx         context.Context //nolint:containedctx // lifetime of the run, which every fault is bounded by
	world       *world
	subscribers *subscribers
	ledger      *ledger
	rand        *rand.Rand
}

// run breaks things, evenly spread over the given time: so many kills, and as many milder faults in between. Every kind
// has its turn before any comes again.
func (m *mayhem) run(count int, over time.Duration) {
	hard := newDeck(m.rand, kills(len(m.world.nodes)))
	mild := newDeck(m.rand, mildFaults(over >= time.Minute))
	start := time.Now()
	for i := range 2 * count {
		wait(m.ctx, time.Until(start.Add(over*time.Duration(i+1)/time.Duration(2*count+1))))
		if m.ctx.Err() != nil {
			return
		}
		if i%2 == 0 {
			m.inflict(hard.draw())
		} else {
			m.inflict(mild.draw())
		}
	}
}

func (m *mayhem) inflict(b breakage) {
	f := fault{Kind: b.kind, From: time.Now()}
	hold := 100*time.Millisecond + time.Duration(m.rand.Int64N(int64(2500*time.Millisecond)))
	f.Target = b.do(m, hold)
	f.Until = time.Now()
	m.ledger.note(f)
	acked, _ := m.ledger.progress()
	m.t.Logf("%6d accepted: %s (%s) for %s", acked, f.Kind, f.Target, f.Until.Sub(f.From).Round(10*time.Millisecond))
}

func (m *mayhem) aFilter() *member { return one(m.rand, m.world.filters...) }

func (m *mayhem) anIngress() *member { return one(m.rand, m.world.ingresses...) }

// aNode is a NATS server whose loss the others survive: a cluster that is not whole yet is let recover first.
func (m *mayhem) aNode() *process {
	for _, n := range m.world.nodes {
		n.waitReady(m.t)
	}
	return one(m.rand, m.world.nodes...)
}

func (m *mayhem) hold(d time.Duration) { wait(m.ctx, d) }

func (m *mayhem) kill(hold time.Duration, victims ...*process) string {
	names := ""
	for _, p := range victims {
		p.kill()
		names += " " + p.name
	}
	m.hold(hold)
	for _, p := range victims {
		p.start(m.t)
	}
	return names[1:]
}

func (m *mayhem) freeze(p *process, hold time.Duration) string {
	p.pause()
	m.hold(hold)
	p.resume()
	return p.name
}

func (m *mayhem) down(p *proxy, name string, hold time.Duration) string {
	p.refuse(true)
	p.cut()
	m.hold(hold)
	p.refuse(false)
	return name
}

func (m *mayhem) part(who *member, hold time.Duration) string {
	who.refuse(true)
	who.cut()
	m.hold(hold)
	who.refuse(false)
	return who.name
}

func (m *mayhem) stall(who *member, hold time.Duration) string {
	who.stall(true)
	m.hold(hold)
	who.stall(false)
	return who.name
}

// deck deals kinds of faults in a random order, all of them before it is shuffled again.
type deck struct {
	rand *rand.Rand
	all  []breakage
	left []breakage
}

func newDeck(r *rand.Rand, all []breakage) *deck { return &deck{rand: r, all: all} }

func (d *deck) draw() breakage {
	if len(d.left) == 0 {
		for _, i := range d.rand.Perm(len(d.all)) {
			d.left = append(d.left, d.all[i])
		}
	}
	b := d.left[0]
	d.left = d.left[1:]
	return b
}
