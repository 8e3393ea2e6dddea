package stream_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"millrace.dev/pkg/stream"
)

// TestListReplaysWhileTheyChange lists records again and again while each is changed without a pause: none is ever missing, or there twice.
func TestListReplaysWhileTheyChange(t *testing.T) {
	c, _ := startBroker(t, stream.Limits{})
	if all, err := c.ListReplays(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("before there is any: %v, %v", all, err)
	}
	done := make(chan struct{})
	var changing sync.WaitGroup
	defer changing.Wait()
	defer close(done)
	var keys []string
	for i := range 3 {
		r := stream.Record{Key: fmt.Sprint("r", i), Data: []byte("0")}
		var err error
		if r.Revision, err = c.PutReplay(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, r.Key)
		changing.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				var err error
				r.Data = []byte(fmt.Sprint(n))
				if r.Revision, err = c.PutReplay(t.Context(), r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 100 {
		all, err := c.ListReplays(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			got = append(got, r.Key)
		}
		slices.Sort(got)
		if !slices.Equal(got, keys) {
			t.Fatalf("there are %s, want %s", strings.Join(got, " "), strings.Join(keys, " "))
		}
	}
}
