package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// replayBucket is the key-value bucket of replays; whoever uses it first makes it, as with the journal.
	replayBucket = "millrace_replays"
	// replaysKept is how long one is kept that is not changed any more, maxReplayBytes what one may take, and replaysBytes all of them.
	replaysKept    = 30 * 24 * time.Hour
	maxReplayBytes = 16 << 10
	replaysBytes   = 16 << 20
)

var (
	// ErrChanged says that a record is not any more what it was when it was read.
	ErrChanged = errors.New("somebody else has changed it meanwhile")
	// ErrNoRecord says that there is no such record.
	ErrNoRecord = errors.New("there is none")
)

// Record is something that processes remember together.
type Record struct {
	// Key is made of letters, digits and dashes.
	Key string
	// Data is what is remembered.
	Data []byte
	// Revision tells versions of it apart; 0 for one that is not there yet.
	Revision uint64
}

func (c *Conn) replays(ctx context.Context) (jetstream.KeyValue, error) {
	if !c.Connected() {
		return nil, errNotConnected()
	}
	kv, err := c.js.KeyValue(ctx, replayBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = c.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: replayBucket, Description: "replays of Millrace", TTL: replaysKept, MaxValueSize: maxReplayBytes, MaxBytes: replaysBytes,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open the bucket of replays: %w: %w", ErrUnavailable, err)
	}
	return kv, nil
}

// PutReplay writes a record if it is still what it was at its revision, and returns the new revision. The error matches [ErrChanged] if it
// is not, and [ErrUnavailable] if that is not known.
func (c *Conn) PutReplay(ctx context.Context, r Record) (uint64, error) {
	kv, err := c.replays(ctx)
	if err != nil {
		return 0, err
	}
	var revision uint64
	if r.Revision == 0 {
		revision, err = kv.Create(ctx, r.Key, r.Data)
	} else {
		revision, err = kv.Update(ctx, r.Key, r.Data, r.Revision)
	}
	var api *jetstream.APIError
	switch {
	case err == nil:
		return revision, nil
	case errors.Is(err, jetstream.ErrKeyExists), errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		return 0, fmt.Errorf("write a replay: %w", ErrChanged)
	default:
		return 0, fmt.Errorf("write a replay: %w: %w", ErrUnavailable, err)
	}
}

// GetReplay reads a record. The error matches [ErrNoRecord] if there is none.
func (c *Conn) GetReplay(ctx context.Context, key string) (Record, error) {
	kv, err := c.replays(ctx)
	if err != nil {
		return Record{}, err
	}
	entry, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrInvalidKey):
		return Record{}, fmt.Errorf("read a replay: %w", ErrNoRecord)
	case err != nil:
		return Record{}, fmt.Errorf("read a replay: %w: %w", ErrUnavailable, err)
	}
	return Record{Key: key, Data: entry.Value(), Revision: entry.Revision()}, nil
}

// ListReplays returns all records, or none if nobody has made any.
func (c *Conn) ListReplays(ctx context.Context) ([]Record, error) {
	if !c.Connected() {
		return nil, errNotConnected()
	}
	// The client lists keys by reading the bucket, which passes over one that is changed meanwhile; the server knows them all at a time.
	const prefix = "$KV." + replayBucket + "."
	subjects, err := c.SubjectCounts(ctx, "KV_"+replayBucket, prefix)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list replays: %w: %w", ErrUnavailable, err)
	}
	var all []Record
	for subject := range subjects {
		r, err := c.GetReplay(ctx, strings.TrimPrefix(subject, prefix))
		if errors.Is(err, ErrNoRecord) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
