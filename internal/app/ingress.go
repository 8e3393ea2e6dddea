package app

import (
	"context"
	"errors"
	"fmt"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// ingress serves the Brokers' URLs.
type ingress struct {
	handler *broker.Handler
	server  *httpServer
}

func newIngress(ctx context.Context, conn *stream.Conn, r observe.Recorder, o *Options) (*ingress, error) {
	h := broker.NewHandler(stream.NewPublisher(conn, 0), broker.Options{Logger: o.Logger, Recorder: r, Tracer: o.tracer, NoLatencies: o.NoLatencies})
	s, err := newHTTPServer(ctx, o.Listen, h)
	if err != nil {
		return nil, fmt.Errorf("open the ingress: %w", err)
	}
	return &ingress{handler: h, server: s}, nil
}

func (i *ingress) apply(m *model) { i.handler.SetTable(m.table()) }

// ready is nil if the ingress knows its Brokers.
func (i *ingress) ready() error {
	if !i.handler.Loaded() {
		return errors.New("brokers and triggers are not loaded yet")
	}
	return nil
}

// url is the address to post events of the Broker to.
func (i *ingress) url(n *stream.Names) string {
	return i.baseURL() + "/" + n.Namespace + "/" + n.Name
}

// baseURL is what the Brokers' paths follow. An address that stands for all of this machine's is no address to send to.
func (i *ingress) baseURL() string { return "http://" + host(i.server.address()) }
