package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace.dev/pkg/stream"
)

func TestInsistRepeatsWhatMayWorkLater(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		results []error // the last one again and again
		want    error
		writes  int
		took    time.Duration
	}{
		"at once":       {[]error{nil}, nil, 1, 0},
		"away, then ok": {[]error{stream.ErrUnavailable, fmt.Errorf("so: %w", stream.ErrBusy), nil}, nil, 3, 3 * storeRetry},
		"refused":       {[]error{stream.ErrBusy, refused}, refused, 2, storeRetry},
		"full":          {[]error{stream.ErrFull}, stream.ErrFull, 1, 0},
		"stays away":    {[]error{stream.ErrUnavailable}, stream.ErrUnavailable, 7, replyPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, writes := time.Now(), 0
				ctx, cancel := context.WithTimeout(t.Context(), replyPatience)
				defer cancel()
				err := insist(ctx, func(context.Context) error {
					writes++
					return c.results[min(writes, len(c.results))-1]
				}, passing)
				if !errors.Is(err, c.want) || writes != c.writes || time.Since(start) != c.took {
					t.Errorf("%v after %d writes and %s, want %v after %d and %s", err, writes, time.Since(start), c.want, c.writes, c.took)
				}
			})
		})
	}
}
