// Package kafka is the event source for Apache Kafka: it reads topics as a member of a consumer group, makes an event of
// each record, and commits the offsets of what is settled.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
)

// Options say what a Source reads, how, and where it goes.
type Options struct {
	// Namespace and Name are the source object's. They are in the source attribute of events.
	Namespace, Name string
	// Servers are addresses, host:port, of some brokers.
	Servers []string
	// Topics are read as a member of Group.
	Topics []string
	Group  string
	// Instance, if set, makes the member a static one: it must be unique in the group, and the same after a restart. The
	// member's partitions are then kept for it while it is away for less than the session timeout.
	Instance string
	// FromStart begins with the oldest records if the group has no offsets, instead of with what comes from now on.
	FromStart bool
	// Order of the events of a partition, and KeyType of their keys.
	Order   source.Order
	KeyType KeyType
	// Extensions are set on each event.
	Extensions []event.Attribute
	// Mechanism, if set, authenticates. See [NewMechanism].
	Mechanism sasl.Mechanism
	// TLS, if set, encrypts.
	TLS *tls.Config
	// Dialer connects; it decides which addresses may be dialed.
	Dialer *net.Dialer
	// Outlet takes the events.
	Outlet *source.Outlet
	// Drain is how long deliveries under way may go on when partitions are taken away or the source stops. Default 10 s.
	Drain time.Duration
	// CommitEvery is how often offsets are committed. Default 1 s.
	CommitEvery time.Duration
	// Logger; default slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Drain <= 0 {
		o.Drain = 10 * time.Second
	}
	if o.CommitEvery <= 0 {
		o.CommitEvery = time.Second
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

// ErrMechanism says that a SASL mechanism is not one that is supported.
var ErrMechanism = errors.New("not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER")

// NewMechanism returns the SASL mechanism with the given name; an empty one is PLAIN. Of OAUTHBEARER the password is the
// token.
func NewMechanism(name, user, password string) (sasl.Mechanism, error) {
	switch strings.ToUpper(strings.TrimSpace(name)) {
	case "", "PLAIN":
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	case "OAUTHBEARER":
		return oauth.Auth{Token: password}.AsMechanism(), nil
	}
	return nil, fmt.Errorf("sasl mechanism: %w", ErrMechanism)
}

const (
	// maxFetchBytes and maxPartitionFetchBytes bound what is fetched at once from a broker and of a partition. One record
	// may be larger.
	maxFetchBytes, maxPartitionFetchBytes = 16 << 20, 2 << 20
	// maxResponseBytes bounds an answer of a broker: one that is larger is none of Kafka's.
	maxResponseBytes = 64 << 20
	// maxUnpackedBytes bounds what a compressed batch may become. Kafka bounds, to 1 MiB unless set, only what it is compressed.
	maxUnpackedBytes = 32 << 20
	// sessionTimeout is how long a member may be silent before its partitions are given to others; a static one has
	// staticTimeout to be started again. rebalanceTimeout is how long a member may take to give up its partitions, and so
	// how long the others may have to wait for one that died.
	sessionTimeout, staticTimeout, rebalanceTimeout = 12 * time.Second, 45 * time.Second, 25 * time.Second
	requestRetries                                  = 5
	// fetchWait is how long a broker waits for records where there are none.
	fetchWait = 500 * time.Millisecond
)

// connection returns the options by which a client reaches the cluster.
func (o *Options) connection(hook kgo.Hook) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Servers...), kgo.ClientID("millrace"), kgo.WithHooks(hook),
		kgo.Dialer(o.dial), kgo.RequestRetries(requestRetries), kgo.BrokerMaxReadBytes(maxResponseBytes),
		kgo.MetadataMinAge(time.Second), kgo.MetadataMaxAge(time.Minute), kgo.RetryBackoffFn(backoff),
	}
	if o.Mechanism != nil {
		opts = append(opts, kgo.SASL(o.Mechanism))
	}
	return opts
}

// backoff is the pause after a number of failures in a row. The client's own grows to 5 s, and a member that is away when the servers are
// back keeps the whole group from its partitions.
func backoff(failures int) time.Duration {
	const shortest, longest = 100 * time.Millisecond, time.Second
	d := min(shortest<<min(max(failures-1, 0), 10), longest)
	return d - rand.N(d/4) //nolint:gosec // replicas need not be unpredictable
}

// dial connects with or without TLS. The certificate must be that of the host dialed.
func (o *Options) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if o.TLS == nil {
		return o.Dialer.DialContext(ctx, network, address) //nolint:wrapcheck // the client wraps it
	}
	d := &tls.Dialer{NetDialer: o.Dialer, Config: o.TLS}
	return d.DialContext(ctx, network, address) //nolint:wrapcheck // the client wraps it
}

// consumer returns the options of the client that is the group's member.
func (o *Options) consumer(topics []string) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(topics...),
		// Where no offset is committed and none was fixed, as in a partition added later, nothing is to be missed.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.RebalanceTimeout(rebalanceTimeout),
		// Markers of transactions are received, so that offsets pass them by.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		// A partition that is taken up again after a pause has to wait for the fetch under way.
		kgo.FetchMaxWait(fetchWait), kgo.FetchMaxBytes(maxFetchBytes), kgo.FetchMaxPartitionBytes(maxPartitionFetchBytes),
		kgo.MaxDecompressBatchBytes(maxUnpackedBytes),
	}
	if o.Instance != "" {
		return append(opts, kgo.InstanceID(o.Instance), kgo.SessionTimeout(staticTimeout))
	}
	return append(opts, kgo.SessionTimeout(sessionTimeout))
}
