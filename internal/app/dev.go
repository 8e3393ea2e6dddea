package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"millrace.dev/pkg/stream"
)

// DevOptions configure dev mode.
type DevOptions struct {
	Options
	// Demo, if set, is served at DemoListen: the subscribers of the example.
	Demo       http.Handler
	DemoListen string
	// OnReady, if set, is called once when the first manifests are served, with the URL that Brokers' paths follow.
	OnReady func(ctx context.Context, baseURL string)
	// Out receives what people want to see: URLs, Triggers and their readiness.
	Out io.Writer
}

// RunDev runs the ingress, the filter and the sources in one process until ctx ends, and tells a person what they serve. Subscribers
// may be on this machine. o.NATS names the store, an embedded one in `millrace dev`.
func RunDev(ctx context.Context, o DevOptions) error {
	o.AllowLoopback = true
	held := &pauses{by: map[string]bool{}}
	o.pauser = held
	p, err := newProcess(ctx, o.Options, parts{ingress: true, filter: true, sources: openSource})
	if err != nil {
		return err
	}
	if held.files, err = p.files(p.brokerURL); err != nil {
		p.closeQuietly(ctx)
		return err
	}
	c := &console{out: o.Out, process: p}
	if o.OnReady != nil {
		c.onReady = func(baseURL string) { go o.OnReady(ctx, baseURL) }
	}
	p.tell = c.problems
	p.tellSource = c.source
	p.onApply = func(m *model) { go c.show(ctx, m) }
	stopDemo, err := serveDemo(ctx, o, p.log)
	if err != nil {
		p.closeQuietly(ctx)
		return err
	}
	defer stopDemo()
	return p.run(ctx, held)
}

// brokerURL is the address of a Broker that another object refers to.
func (p *process) brokerURL(namespace, name string) string {
	return p.ingress.url(stream.NewNames(namespace, name, ""))
}

func serveDemo(ctx context.Context, o DevOptions, log *slog.Logger) (stop func(), err error) {
	if o.Demo == nil {
		return func() {}, nil
	}
	s, err := newHTTPServer(ctx, o.DemoListen, o.Demo)
	if err != nil {
		return nil, fmt.Errorf("start the demo subscribers: %w", err)
	}
	go func() {
		if err := s.run(); err != nil {
			log.ErrorContext(ctx, "demo subscribers stopped", slog.Any("error", err))
		}
	}()
	return func() { _ = s.close(context.WithoutCancel(ctx)) }, nil
}

// addresses are the process's bound addresses, for its first log line.
func (p *process) addresses() []any {
	attrs := []any{slog.String("admin", p.adminHTTP.address())}
	if p.ingress != nil {
		attrs = append(attrs, slog.String("listen", p.ingress.server.address()))
	}
	return attrs
}

// host is the address as a client on this machine writes it.
func host(address string) string {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(h); ip != nil && ip.IsUnspecified() {
		h = "127.0.0.1"
	}
	return net.JoinHostPort(h, port)
}
