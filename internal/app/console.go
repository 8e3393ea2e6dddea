package app

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/objects"
)

const readyPoll = 10 * time.Millisecond

// console tells a person what dev mode serves, each time that it changes.
type console struct {
	out     io.Writer
	process *process
	onReady func(baseURL string)

	mu     sync.Mutex
	latest *model
	first  sync.Once
	helped bool                       // the help was printed
	shown  map[string]objects.Problem // those printed and still there, by text
}

// show prints the model as soon as it is served, unless a newer one came meanwhile.
func (c *console) show(ctx context.Context, m *model) {
	c.mu.Lock()
	c.latest = m
	c.mu.Unlock()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for !c.served(m) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest != m {
		return
	}
	c.print(m)
	if c.onReady != nil {
		c.first.Do(func() { c.onReady(c.process.ingress.baseURL()) })
	}
}

// served reports whether everything in m is ready, or m is not the latest any more.
func (c *console) served(m *model) bool {
	c.mu.Lock()
	stale := c.latest != m
	c.mu.Unlock()
	if stale {
		return true
	}
	for _, b := range m.brokers {
		if !c.process.provision.ready(b.names) {
			return false
		}
	}
	return c.process.filter.ready() == nil
}

func (c *console) print(m *model) {
	fmt.Fprintln(c.out)
	if len(m.brokers) == 0 {
		fmt.Fprintln(c.out, "No Broker is in the manifests yet. They are watched: add one and it is served at once.")
	}
	for _, b := range m.brokers {
		fmt.Fprintf(c.out, "Broker  %-32s %s\n", b.key(), c.process.ingress.url(b.names))
		for _, t := range b.triggers {
			c.printTrigger(t)
		}
	}
	for _, t := range m.orphans {
		c.printTrigger(t)
	}
	c.printSkipped(m)
	if len(m.brokers) > 0 && !c.helped {
		c.printHelp(m.brokers[0])
		c.helped = true
	}
}

func (c *console) printTrigger(t triggerStatus) {
	if t.reason == "" && t.paused {
		fmt.Fprintf(c.out, "Trigger %-32s Paused     -> %s\n", t.key, t.subscriber)
		return
	}
	if t.reason == "" {
		fmt.Fprintf(c.out, "Trigger %-32s Ready      -> %s\n", t.key, t.subscriber)
		return
	}
	fmt.Fprintf(c.out, "Trigger %-32s Not ready  %s: %s\n", t.key, t.reason, t.message)
}

// source prints how a source is. Unlike a Trigger it may become ready long after it was read.
func (c *console) source(s sourceState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.Ready {
		fmt.Fprintf(c.out, "Source  %-32s Ready      -> %s\n", s.key, s.target)
		return
	}
	fmt.Fprintf(c.out, "Source  %-32s Not ready  %s: %s\n", s.key, s.Reason, s.Message)
}

// printSkipped prints what the manifests hold that is not served, as there may be what somebody waits for.
func (c *console) printSkipped(m *model) {
	for _, what := range slices.Sorted(maps.Keys(m.skipped)) {
		hint := ""
		if strings.HasPrefix(what, "Broker of class ") {
			hint = "; to have it served here annotate it " + eventingv1.BrokerClassAnnotation + ": " + eventingv1.BrokerClass
		}
		fmt.Fprintf(c.out, "Passed over: %d %s%s\n", m.skipped[what], what, hint)
	}
}

// printHelp prints what to paste next.
func (c *console) printHelp(b *brokerModel) {
	fmt.Fprintf(c.out, `
Send an event:
  curl -i %s \
    -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: /me' -H 'ce-type: com.example.greeting' \
    -H 'content-type: application/json' -d '{"hello":"world"}'

Admin:  http://%s  /healthz /readyz /metrics
Stop with Ctrl-C; stored events are kept.

`, c.process.ingress.url(b.names), host(c.process.adminHTTP.address()))
}

// problems prints each mistake in the manifests once, as long as it lasts.
func (c *console) problems(problems []objects.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := make(map[string]objects.Problem, len(problems))
	for _, p := range problems {
		text := p.String()
		now[text] = p
		if _, known := c.shown[text]; !known {
			fmt.Fprintf(c.out, "Mistake %s\n", text)
		}
	}
	for text, p := range c.shown {
		if _, lasts := now[text]; !lasts {
			p.Hint, p.Kept = "", false // what to do about it, and what was done meanwhile, is past
			fmt.Fprintf(c.out, "Mended  %s\n", p)
		}
	}
	c.shown = now
}
