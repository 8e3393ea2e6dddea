package stream

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The metadata keys by which Millrace knows its own streams.
const (
	ownerKey     = "millrace.dev/owner"
	ownerValue   = "millrace"
	namespaceKey = "millrace.dev/broker-namespace"
	nameKey      = "millrace.dev/broker-name"
	uidKey       = "millrace.dev/broker-uid"
)

// Limits bound what a Broker may store.
type Limits struct {
	// MaxBytes of accepted, unsettled events; it is reserved up front. Default 1 GiB. The retry stream has the same
	// limit, the parking stream a tenth of it.
	MaxBytes int64
	// MaxEventBytes of one stored event, attributes included. Default 1 MiB of data and 64 KiB of attributes.
	MaxEventBytes int32
	// Replicas of each stream: 1, 3 or 5. Default 1.
	Replicas int
	// DuplicateWindow within which a message id is remembered. Default 2 minutes.
	DuplicateWindow time.Duration
	// ParkedMaxAge is how long given-up deliveries are kept. Default 7 days.
	ParkedMaxAge time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 1 << 30
	}
	if l.MaxEventBytes <= 0 {
		l.MaxEventBytes = 1<<20 + 64<<10
	}
	if l.Replicas <= 0 {
		l.Replicas = 1
	}
	if l.DuplicateWindow <= 0 {
		l.DuplicateWindow = 2 * time.Minute
	}
	if l.ParkedMaxAge <= 0 {
		l.ParkedMaxAge = 7 * 24 * time.Hour
	}
	return l
}

// Ensure creates the Broker's streams, or brings existing ones up to the given limits. It may be called at any time and
// by several processes at once.
func (c *Conn) Ensure(ctx context.Context, n *Names, l Limits) error {
	for _, want := range streamConfigs(n, l.withDefaults()) {
		if err := c.ensureStream(ctx, want); err != nil {
			return fmt.Errorf("ensure stream %s: %w", want.Name, err)
		}
	}
	return nil
}

func (c *Conn) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	have, err := c.js.Stream(ctx, want.Name)
	if err == nil && same(have.CachedInfo().Config, want) {
		return nil
	}
	_, err = c.js.CreateOrUpdateStream(ctx, want)
	return err
}

// same reports whether an existing stream has the settings that Ensure may change.
func same(have, want jetstream.StreamConfig) bool {
	return have.MaxBytes == want.MaxBytes && have.MaxMsgSize == want.MaxMsgSize && have.Replicas == want.Replicas &&
		have.Duplicates == want.Duplicates && have.MaxAge == want.MaxAge &&
		have.AllowAtomicPublish == want.AllowAtomicPublish && have.Metadata[uidKey] == want.Metadata[uidKey]
}

// streamConfigs are the three streams of a Broker. Accepted and retried events are a work queue that refuses new events
// when it is full and never forgets old ones, which is why it has no maximum age; the parking stream forgets the oldest.
func streamConfigs(n *Names, l Limits) []jetstream.StreamConfig {
	base := jetstream.StreamConfig{
		Storage:    jetstream.FileStorage,
		Replicas:   l.Replicas,
		MaxMsgSize: l.MaxEventBytes,
		Duplicates: l.DuplicateWindow,
		Metadata: map[string]string{
			ownerKey: ownerValue, namespaceKey: n.Namespace, nameKey: n.Name, uidKey: n.UID,
		},
	}
	derive := func(name, subject string) jetstream.StreamConfig {
		c := base
		c.Name, c.Subjects, c.Metadata = name, []string{subject}, maps.Clone(base.Metadata)
		c.Retention, c.Discard, c.MaxBytes = jetstream.WorkQueuePolicy, jetstream.DiscardNew, l.MaxBytes
		return c
	}
	events := derive(n.Events, n.EventSubject)
	events.AllowAtomicPublish = true
	retries := derive(n.Retries, n.RetryPrefix+">")
	// Progress travels in headers, so a retry may be a little larger than the event it came from.
	retries.MaxMsgSize += 4 << 10
	parked := derive(n.Parked, n.ParkedPrefix+"*")
	parked.Retention, parked.Discard = jetstream.LimitsPolicy, jetstream.DiscardOld
	parked.MaxBytes, parked.MaxAge = l.MaxBytes/10, l.ParkedMaxAge
	parked.MaxMsgSize = retries.MaxMsgSize
	return []jetstream.StreamConfig{events, retries, parked}
}

// State counts what a stream holds.
type State struct {
	Messages, Bytes uint64
	// Oldest is when the oldest message was stored; zero if there is none.
	Oldest time.Time
}

// StreamState returns the state of one of a Broker's streams.
func (c *Conn) StreamState(ctx context.Context, name string) (State, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return State{}, fmt.Errorf("look up stream %s: %w", name, err)
	}
	st := s.CachedInfo().State
	return State{Messages: st.Msgs, Bytes: st.Bytes, Oldest: st.FirstTime}, nil
}

// SubjectCounts returns how many messages each subject of a stream below the given prefix has.
func (c *Conn) SubjectCounts(ctx context.Context, name, prefix string) (map[string]uint64, error) {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", name, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("count the subjects of stream %s: %w", name, err)
	}
	return info.State.Subjects, nil
}

// PurgeSubject removes all messages of one subject from a stream.
func (c *Conn) PurgeSubject(ctx context.Context, name, subject string) error {
	s, err := c.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", name, err)
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return fmt.Errorf("purge %s of stream %s: %w", subject, name, err)
	}
	return nil
}
