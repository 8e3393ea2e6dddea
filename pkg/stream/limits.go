package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// unwantedKey holds since when nobody wants the stream, in RFC 3339; see [Conn.Sweep].
	unwantedKey = "millrace.dev/unwanted-since"
)

const (
	// retryRoom is what the progress of a delivery may add to an event's headers.
	retryRoom = 4 << 10
	// minParkedBytes lets the parking stream hold at least one event of any size.
	minParkedBytes = 16 << 20
)

// Limits bound what a Broker may store. The zero value of each field stands for its default.
type Limits struct {
	// MaxBytes of accepted, unsettled events; it is reserved up front. Default 1 GiB. The retry stream has the same limit.
	MaxBytes int64
	// MaxMessages is the number of accepted, unsettled events. Default: as many as MaxBytes allows.
	MaxMessages int64
	// MaxEventBytes of one stored event, attributes included; see [StoredBytes]. Default 1 MiB of data and 64 KiB of
	// attributes.
	MaxEventBytes int32
	// Replicas of each stream: 1, 3 or 5. Default 1.
	Replicas int
	// DuplicateWindow within which a message id is remembered. Default 2 minutes.
	DuplicateWindow time.Duration
	// ParkedMaxAge is how long given-up deliveries are kept. Default 7 days.
	ParkedMaxAge time.Duration
	// ParkedMaxBytes of given-up deliveries; the oldest are dropped beyond it. Default a tenth of MaxBytes, at least 16 MiB.
	ParkedMaxBytes int64
	// ArchiveMaxAge is how long copies of accepted events are kept. 0 for no archive.
	ArchiveMaxAge time.Duration
	// ArchiveMaxBytes of copies; the oldest are dropped beyond it. Default MaxBytes.
	ArchiveMaxBytes int64
}

// StoredBytes is the most that an event with the given number of bytes of data takes in the store.
func StoredBytes(data int) int32 { return int32(data) + 64<<10 }

// RequiredPayload is the max_payload that the NATS server must have for events up to the limit, in bytes.
func RequiredPayload(l Limits) int64 { return int64(l.WithDefaults().MaxEventBytes) + retryRoom }

// WithDefaults returns the limits with no field left zero but MaxMessages, and those of an archive where there is none.
func (l Limits) WithDefaults() Limits {
	setDefault(&l.MaxBytes, 1<<30)
	setDefault(&l.MaxEventBytes, StoredBytes(1<<20))
	setDefault(&l.Replicas, 1)
	setDefault(&l.DuplicateWindow, 2*time.Minute)
	setDefault(&l.ParkedMaxAge, 7*24*time.Hour)
	setDefault(&l.ParkedMaxBytes, max(l.MaxBytes/10, minParkedBytes))
	if l.ArchiveMaxAge > 0 {
		setDefault(&l.ArchiveMaxBytes, l.MaxBytes)
	}
	return l
}

func setDefault[T int | int32 | int64 | time.Duration](limit *T, value T) {
	if *limit <= 0 {
		*limit = value
	}
}

// Ensure creates the Broker's streams, or brings existing ones up to the given limits; what is in them stays. It may be
// called at any time and by several processes at once. Lowering MaxBytes or MaxMessages below what is stored refuses new
// events until enough are settled; lowering a limit of parked deliveries drops the oldest.
//
// An error matches [ErrUnavailable] if trying again may help, [ErrRefused] if a stream is missing and will be until
// somebody changes something, and [ErrKept] if a stream is there and works, with some of its old settings. It may match
// several, one a stream.
func (c *Conn) Ensure(ctx context.Context, n *Names, l Limits) error {
	var errs []error
	for _, want := range streamConfigs(n, l.WithDefaults()) {
		err := c.ensureStream(ctx, want)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("ensure stream %s: %w", want.Name, err))
		if errors.Is(err, ErrUnavailable) {
			break // the next would fare no better
		}
	}
	return errors.Join(errs...)
}

// Exist reports whether all streams of the Broker are there, whatever their settings. An error matches [ErrUnavailable]:
// the server could not be asked.
func (c *Conn) Exist(ctx context.Context, n *Names) (bool, error) {
	for _, name := range []string{n.Events, n.Retries, n.Parked} {
		if !c.Connected() {
			return false, errNotConnected()
		}
		_, err := c.js.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("look up stream %s: %w: %w", name, ErrUnavailable, err)
		}
	}
	return true, nil
}

func (c *Conn) ensureStream(ctx context.Context, want jetstream.StreamConfig) error {
	if !c.Connected() {
		return errNotConnected()
	}
	have, err := c.js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = c.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err) // another process was faster; the next call compares
		}
		return adminError(err, ErrRefused)
	case err != nil:
		return adminError(err, ErrRefused)
	}
	return c.updateStream(ctx, have.CachedInfo().Config, want)
}

// updateStream gives an existing stream the settings wanted, as far as that is possible.
func (c *Conn) updateStream(ctx context.Context, have, want jetstream.StreamConfig) error {
	if !sameOwner(have.Metadata, want.Metadata) {
		return &RefusedError{
			Reason: "a stream of this name exists that belongs to somebody else", Advice: "remove it or rename the Broker",
		}
	}
	next := merge(have, want)
	if !same(have, next) {
		_, err := c.js.UpdateStream(ctx, next)
		if err != nil && next.Replicas != have.Replicas {
			// Where there are not enough servers, the other settings should come into effect all the same.
			next.Replicas = have.Replicas
			_, _ = c.js.UpdateStream(ctx, next)
		}
		if err != nil {
			return adminError(err, ErrKept)
		}
	}
	if have.Retention != want.Retention || have.Storage != want.Storage {
		return fmt.Errorf("%w: its retention is %v and its storage %v, which cannot be changed to %v and %v; once it is empty, delete it",
			ErrKept, have.Retention, have.Storage, want.Retention, want.Storage)
	}
	return nil
}

// sameOwner says whether both belong to the Broker of the same namespace and name. Its UID is part of the stream's name.
func sameOwner(have, want map[string]string) bool {
	for _, key := range []string{ownerKey, namespaceKey, nameKey} {
		if have[key] != want[key] {
			return false
		}
	}
	return true
}

// merge returns have with the settings of want that Millrace manages and that can be changed.
func merge(have, want jetstream.StreamConfig) jetstream.StreamConfig {
	next := have
	next.Subjects, next.Replicas = want.Subjects, want.Replicas
	next.MaxBytes, next.MaxMsgs, next.MaxMsgSize, next.MaxAge = want.MaxBytes, want.MaxMsgs, want.MaxMsgSize, want.MaxAge
	next.Discard, next.Duplicates = want.Discard, want.Duplicates
	next.AllowAtomicPublish, next.AllowBatchPublish = want.AllowAtomicPublish, want.AllowBatchPublish
	next.Metadata = maps.Clone(have.Metadata)
	maps.Copy(next.Metadata, want.Metadata)
	delete(next.Metadata, unwantedKey)
	return next
}

// same reports whether an existing stream has the settings that merge may change.
func same(have, next jetstream.StreamConfig) bool {
	return slices.Equal(have.Subjects, next.Subjects) && have.Replicas == next.Replicas &&
		have.MaxBytes == next.MaxBytes && have.MaxMsgs == next.MaxMsgs && have.MaxMsgSize == next.MaxMsgSize &&
		have.MaxAge == next.MaxAge && have.Discard == next.Discard && have.Duplicates == next.Duplicates &&
		have.AllowAtomicPublish == next.AllowAtomicPublish && have.AllowBatchPublish == next.AllowBatchPublish && maps.Equal(have.Metadata, next.Metadata)
}

// adminError tells an answer of the server that is about the stream, which is what refusal says, from one that is about
// the server's own state, and from no answer at all.
func adminError(err, refusal error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && !passing(api) && errors.Is(refusal, ErrRefused):
		return &RefusedError{Reason: api.Description, Advice: advice(api)}
	case errors.As(err, &api) && !passing(api):
		return fmt.Errorf("%w: %w", refusal, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// advice says what helps where the server refuses a stream, "" if there is no telling.
func advice(api *jetstream.APIError) string {
	switch int(api.ErrorCode) {
	case codeInsufficient, codeAccountResources, codeStorageResources, codeMemoryResources:
		return "lower max-bytes and parked-max-bytes, of which the store reserves all, of this Broker or of others, or let NATS keep more (max_file_store, or the limits of its account)"
	case codeNoPeers, codeReplicasUnsupported:
		return "ask for no more replicas than there are NATS servers"
	}
	return ""
}

// passing says whether an error of the server goes away without anybody changing settings.
func passing(api *jetstream.APIError) bool {
	switch int(api.ErrorCode) {
	case codeInsufficient:
		return false
	case codeNotLeader, codeStreamOffline, codeStreamOfflineReason:
		return true
	default:
		return api.Code == 503
	}
}

// streamConfigs are the streams of a Broker, the archive among them if it is to have one. Accepted and retried events are a work queue that refuses new events
// when it is full and never forgets old ones, which is why it has no maximum age; the parking stream forgets the oldest.
func streamConfigs(n *Names, l Limits) []jetstream.StreamConfig {
	base := jetstream.StreamConfig{
		Storage:    jetstream.FileStorage,
		Replicas:   l.Replicas,
		MaxMsgs:    -1,
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
	events.AllowAtomicPublish, events.AllowBatchPublish = true, true
	if l.MaxMessages > 0 {
		events.MaxMsgs = l.MaxMessages
	}
	retries := derive(n.Retries, n.RetryPrefix+">")
	retries.MaxMsgSize += retryRoom
	parked := derive(n.Parked, n.ParkedPrefix+"*")
	parked.Retention, parked.Discard = jetstream.LimitsPolicy, jetstream.DiscardOld
	parked.MaxBytes, parked.MaxAge = l.ParkedMaxBytes, l.ParkedMaxAge
	parked.Duplicates = min(l.DuplicateWindow, l.ParkedMaxAge) // JetStream wants it so
	parked.MaxMsgSize = retries.MaxMsgSize
	if l.ArchiveMaxAge == 0 {
		return []jetstream.StreamConfig{events, retries, parked}
	}
	archive := derive(n.Archive, n.ArchiveSubject)
	archive.Retention, archive.Discard = jetstream.LimitsPolicy, jetstream.DiscardOld
	archive.MaxBytes, archive.MaxAge = l.ArchiveMaxBytes, l.ArchiveMaxAge
	archive.Duplicates = min(l.DuplicateWindow, l.ArchiveMaxAge)
	archive.MaxMsgSize = retries.MaxMsgSize
	return []jetstream.StreamConfig{events, retries, parked, archive}
}
