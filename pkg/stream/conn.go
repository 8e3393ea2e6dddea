package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ConnOptions say how to reach NATS.
type ConnOptions struct {
	// URL of the NATS servers, separated by commas. Default nats://127.0.0.1:4222.
	URL string
	// CredentialsFile is a NATS credentials file (JWT and nkey); optional.
	CredentialsFile string
	// TLSCA, TLSCert and TLSKey are PEM files; optional.
	TLSCA, TLSCert, TLSKey string
	// Name tells this client apart in the server's monitoring.
	Name string
	// InProcess, if set, is an embedded server to talk to without a socket.
	InProcess nats.InProcessConnProvider
	// OnReconnect, if set, is called after each time the connection was lost and is back. It must not block.
	OnReconnect func()
	// Logger receives connection state changes; default slog.Default().
	Logger *slog.Logger
}

func (o ConnOptions) withDefaults() ConnOptions {
	if o.URL == "" {
		o.URL = nats.DefaultURL
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnReconnect == nil {
		o.OnReconnect = func() {}
	}
	return o
}

const (
	// A connection over which nothing comes back is given up after pingInterval × (maxPings + 1): a server that hangs, or a
	// network that swallows packets.
	pingInterval = 3 * time.Second
	maxPings     = 2
	// writeTimeout bounds how long a server may leave what we send unread. Meanwhile everybody who wants to publish waits,
	// so it is shorter than ackTimeout.
	writeTimeout = 4 * time.Second
)

// Conn is a connection to NATS that reconnects for ever.
type Conn struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger
	// up mirrors the state of nc, whose own answer waits for a lock that is held while a connection is being opened or a
	// write is stuck.
	up atomic.Bool
	// maxPayload is what the server said when it was connected last.
	maxPayload atomic.Int64
	health     *health
}

// Dial connects to NATS. If no server can be reached yet it returns a connection that keeps trying; an error means that
// the options cannot work, such as an unreadable credentials file.
func Dial(o ConnOptions) (*Conn, error) {
	o = o.withDefaults()
	c := &Conn{log: o.Logger}
	c.health = newHealth(c)
	opts, err := c.natsOptions(o)
	if err != nil {
		return nil, err
	}
	c.nc, err = nats.Connect(o.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", redact(o.URL), err)
	}
	if c.nc.IsConnected() {
		c.connected(c.nc)
	}
	// Every publish has a fate within this time; without the bound a future of a lost leader would wait for ever.
	c.js, err = jetstream.New(c.nc, jetstream.WithPublishAsyncTimeout(ackTimeout), jetstream.WithPublishAsyncMaxPending(maxPendingAcks))
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	c.health.wg.Go(c.health.watch)
	return c, nil
}

func (c *Conn) natsOptions(o ConnOptions) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(o.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPings),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		// Nothing is buffered while NATS is away: a producer is told at once, and no ack is thought sent that was not.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(c.connected),
		nats.ClosedHandler(func(*nats.Conn) { c.up.Store(false) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.up.Store(false)
			if err != nil {
				c.log.Warn("NATS connection lost, reconnecting", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.connected(nc)
			c.log.Info("NATS connection restored", slog.String("server", nc.ConnectedUrlRedacted()))
			o.OnReconnect()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Warn("NATS reported an error", slog.Any("error", err))
		}),
	}
	if o.InProcess != nil {
		return append(opts, nats.InProcessServer(o.InProcess)), nil
	}
	if o.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(o.CredentialsFile))
	}
	return appendTLS(opts, o)
}

func appendTLS(opts []nats.Option, o ConnOptions) ([]nats.Option, error) {
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return nil, errors.New("NATS TLS: a client certificate and its key go together; give both or neither")
	}
	if o.TLSCA != "" {
		opts = append(opts, nats.RootCAs(o.TLSCA))
	}
	if o.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey); err != nil {
			return nil, fmt.Errorf("load NATS client certificate: %w", err)
		}
		opts = append(opts, nats.ClientCert(o.TLSCert, o.TLSKey))
	}
	return opts, nil
}

// redact drops the password from a NATS URL for messages to people.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the given URL"
	}
	return u.Redacted()
}

// Connected reports whether the connection is up at this moment.
func (c *Conn) Connected() bool { return c.up.Load() }

func (c *Conn) connected(nc *nats.Conn) {
	c.maxPayload.Store(nc.MaxPayload())
	c.up.Store(true)
}

// MaxPayload is the largest message, headers included, that the server takes, in bytes, as it said when it was connected
// last; 0 before that.
func (c *Conn) MaxPayload() int64 { return c.maxPayload.Load() }

// Close flushes what was written and closes the connection.
func (c *Conn) Close() {
	defer c.nc.Close()
	c.health.close()
	if !c.Connected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := c.nc.FlushWithContext(ctx); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		c.log.Debug("flush before closing NATS", slog.Any("error", err))
	}
}
