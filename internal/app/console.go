package app

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

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
	shown  map[string]bool // problems printed and still there
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
		c.first.Do(func() { c.onReady("http://" + host(c.process.ingress.server.address())) })
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
	if len(m.brokers) > 0 {
		c.printHelp(m.brokers[0])
	}
}

func (c *console) printTrigger(t triggerStatus) {
	if t.reason == "" {
		fmt.Fprintf(c.out, "Trigger %-32s Ready      -> %s\n", t.key, t.subscriber)
		return
	}
	fmt.Fprintf(c.out, "Trigger %-32s Not ready  %s: %s\n", t.key, t.reason, t.message)
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
	now := make(map[string]bool, len(problems))
	for _, p := range problems {
		text := p.String()
		now[text] = true
		if !c.shown[text] {
			fmt.Fprintf(c.out, "Mistake %s\n", text)
		}
	}
	for text := range c.shown {
		if !now[text] {
			fmt.Fprintf(c.out, "Mended  %s\n", text)
		}
	}
	c.shown = now
}
