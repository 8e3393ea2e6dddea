package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Sweep deletes the streams of Brokers that nobody has wanted for at least grace, with all that is in them, and returns
// their names. keep are the Brokers that exist.
//
// A stream is touched only if its metadata says that it is Millrace's and its name is the one that follows from the
// Broker in the metadata. The first call that finds a stream unwanted writes the time into the metadata, so that grace
// holds across restarts and for several processes; [Conn.Ensure] takes the mark away. What cannot be deleted is reported
// in the error, and tried again by the next call.
func (c *Conn) Sweep(ctx context.Context, keep []*Names, grace time.Duration) (deleted []string, err error) {
	wanted := make(map[string]bool, 4*len(keep))
	for _, n := range keep {
		wanted[n.Events], wanted[n.Retries], wanted[n.Parked], wanted[n.Archive] = true, true, true, true
	}
	unwanted, err := c.unwanted(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, config := range unwanted {
		gone, err := c.sweepStream(ctx, config, grace)
		if gone {
			deleted = append(deleted, config.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep stream %s: %w", config.Name, err))
		}
	}
	return deleted, errors.Join(errs...)
}

// unwanted lists our streams that are not wanted.
func (c *Conn) unwanted(ctx context.Context, wanted map[string]bool) ([]jetstream.StreamConfig, error) {
	var found []jetstream.StreamConfig
	list := c.js.ListStreams(ctx)
	for info := range list.Info() {
		if ours(info.Config) && !wanted[info.Config.Name] {
			found = append(found, info.Config)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	return found, nil
}

// ours says whether Millrace made the stream: its metadata says so, and its name follows from them.
func ours(config jetstream.StreamConfig) bool {
	m := config.Metadata
	if m[ownerKey] != ownerValue || m[namespaceKey] == "" || m[nameKey] == "" {
		return false
	}
	n := NewNames(m[namespaceKey], m[nameKey], m[uidKey])
	return config.Name == n.Events || config.Name == n.Retries || config.Name == n.Parked || config.Name == n.Archive
}

// sweepStream marks the stream, or deletes it if it has been marked for long enough.
func (c *Conn) sweepStream(ctx context.Context, config jetstream.StreamConfig, grace time.Duration) (deleted bool, err error) {
	now := time.Now()
	since, err := time.Parse(time.RFC3339Nano, config.Metadata[unwantedKey])
	if err != nil || since.After(now) {
		since = now
		config.Metadata[unwantedKey] = now.UTC().Format(time.RFC3339Nano)
		if _, err := c.js.UpdateStream(ctx, config); err != nil {
			return false, fmt.Errorf("mark: %w", err)
		}
	}
	if now.Sub(since) < grace {
		return false, nil
	}
	if err := c.js.DeleteStream(ctx, config.Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, fmt.Errorf("delete: %w", err)
	}
	return true, nil
}
