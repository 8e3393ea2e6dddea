package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"millrace.dev/internal/version"
	"millrace.dev/pkg/delivery"
	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/observe"
	"millrace.dev/pkg/stream"
)

// filter matches stored events and delivers them.
type filter struct {
	dispatcher *dispatch.Dispatcher
	model      atomic.Pointer[model]
	// there says whether a Broker's streams are.
	there func(*stream.Names) bool
}

func newFilter(ctx context.Context, conn *stream.Conn, r observe.Recorder, there func(*stream.Names) bool, o *Options) (*filter, error) {
	d, err := dispatch.New(dispatch.Options{
		Conn:      conn,
		Publisher: stream.NewPublisher(conn, 0),
		Logger:    o.Logger,
		Recorder:  r,
		Tracer:    o.tracer,

		LogDeliveries: o.LogDeliveries, NoLatencies: o.NoLatencies,
		Sender: delivery.NewSender(deliveryOptions(ctx, o)),
	})
	if err != nil {
		return nil, fmt.Errorf("open the filter: %w", err)
	}
	return &filter{dispatcher: d, there: there}, nil
}

// deliveryOptions say where events may be sent to.
func deliveryOptions(ctx context.Context, o *Options) delivery.Options {
	return delivery.Options{
		Version: version.String(), AllowLoopback: o.AllowLoopback, Allow: o.AllowAddresses,
		Deny: append(ownInfrastructure(ctx, o.NATS.URL, os.Getenv), o.DenyAddresses...),
		// Many Triggers may have the same host, and a new connection costs more than a delivery.
		MaxIdlePerHost: dispatch.DefaultMaxDeliveries,
	}
}

func (f *filter) apply(m *model) {
	f.dispatcher.Apply(m.dispatch())
	f.model.Store(m)
}

// ready is nil if the events of all Brokers are being consumed whose streams are there; the others have a check of their
// own.
func (f *filter) ready() error {
	m := f.model.Load()
	if m == nil {
		return errors.New("brokers and triggers are not loaded yet")
	}
	for _, b := range m.brokers {
		if f.there(b.names) && !f.dispatcher.Ready(b.names) {
			return fmt.Errorf("not consuming the events of broker %s yet", b.key())
		}
	}
	return nil
}
