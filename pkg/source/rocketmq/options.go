// Package rocketmq is the event source for Apache RocketMQ 5: it receives the messages of topics as a simple consumer, over
// the gRPC protocol of RocketMQ's proxy, makes an event of each, and acknowledges what is settled.
//
// A message that was received is kept from others for the invisible duration, which is extended for as long as the source
// holds it. So a sink that is down costs no attempt of the consumer group, after too many of which RocketMQ would give a
// message up.
package rocketmq

import (
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
)

// Options say what a Source reads, how, and where it goes.
type Options struct {
	// Namespace and Name are the source object's. They are in the source attribute of events.
	Namespace, Name string
	// Endpoint is the address, host:port, of a proxy. Others are learned from it.
	Endpoint string
	// InstanceNamespace is that of the RocketMQ instance; empty if it has none.
	InstanceNamespace string
	// Topics are read as a consumer of Group.
	Topics []string
	Group  string
	// Tag, if set, are the tags wanted, with || between them; SQL, if set, is a condition in SQL92. One of them at most.
	Tag, SQL string
	// FIFO keeps the order of messages of the same message group. The group must be an orderly one.
	FIFO bool
	// Invisible is for how long a message is kept from others at a time. Default 30 s, the server's minimum is 10 s.
	Invisible time.Duration
	// BatchSize is how many messages are received at once at most. Default 32, which is also the server's maximum.
	BatchSize int
	// Extensions are set on each event.
	Extensions []event.Attribute
	// Credentials, if set, sign requests.
	Credentials *Credentials
	// TLS, if set, encrypts.
	TLS *tls.Config
	// Dialer connects; it decides which addresses may be dialed.
	Dialer *net.Dialer
	// Outlet takes the events.
	Outlet *source.Outlet
	// Drain is how long deliveries under way may go on when the source stops. Default 10 s.
	Drain time.Duration
	// Logger; default slog.Default().
	Logger *slog.Logger
}

// Credentials are those of a RocketMQ user.
type Credentials struct {
	AccessKey, SecretKey string
	// SecurityToken goes with keys that are valid for a time only; empty for others.
	SecurityToken string
}

const (
	defaultInvisible = 30 * time.Second
	maxBatch         = 32
)

func (o Options) withDefaults() Options {
	if o.Invisible <= 0 {
		o.Invisible = defaultInvisible
	}
	if o.BatchSize <= 0 || o.BatchSize > maxBatch {
		o.BatchSize = maxBatch
	}
	if o.Drain <= 0 {
		o.Drain = 10 * time.Second
	}
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With(slog.String("source", o.Namespace+"/"+o.Name))
	return o
}
