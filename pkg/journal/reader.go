package journal

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// maxFound bounds the records that are returned of one event: it may have been sent again and again.
const maxFound = 10_000

// Subject is where the blocks of a shard are kept.
func Subject(shard int) string { return strconv.Itoa(shard) }

// Found is what the journal holds of an event.
type Found struct {
	// Records are those of the id, in the order of their times. Cut says that there are more than are returned.
	Records []Record
	Cut     bool
	// Gaps are the times of which records, of whatever event, are missing.
	Gaps []Record
	// Since is when the oldest block that was looked at was stored; zero if there is none.
	Since time.Time
	// Unreadable counts blocks of a later version.
	Unreadable int
}

// Find returns what the journal holds of events with the given id.
func Find(ctx context.Context, s Store, id string) (Found, error) {
	var f Found
	id = cut(id)
	err := s.ReadJournal(ctx, Subject(Shard(id)), func(stored time.Time, data []byte) bool {
		if f.Since.IsZero() {
			f.Since = stored
		}
		if err := Decode(data, func(r *Record) bool {
			if r.ID == id {
				f.Records = append(f.Records, *r)
			}
			return true
		}); err != nil {
			f.Unreadable++
		}
		f.Cut = len(f.Records) > maxFound
		return !f.Cut
	})
	if err != nil {
		return f, fmt.Errorf("read the journal: %w", err)
	}
	slices.SortStableFunc(f.Records, func(x, y Record) int { return x.Time.Compare(y.Time) })
	err = s.ReadJournal(ctx, gapSubject, func(_ time.Time, data []byte) bool {
		_ = Decode(data, func(r *Record) bool { f.Gaps = append(f.Gaps, *r); return true }) // of a later version
		return len(f.Gaps) < maxFound
	})
	if err != nil {
		return f, fmt.Errorf("read the journal: %w", err)
	}
	return f, nil
}

// Follow calls each for the records that are stored from now on, until ctx ends.
func Follow(ctx context.Context, s Store, each func(*Record)) error {
	err := s.FollowJournal(ctx, func(data []byte) {
		_ = Decode(data, func(r *Record) bool { each(r); return true }) // of a later version
	})
	if err != nil {
		return fmt.Errorf("follow the journal: %w", err)
	}
	return nil
}
