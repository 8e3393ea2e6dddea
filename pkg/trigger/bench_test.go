package trigger_test

import (
	"fmt"
	"testing"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// benchEvent has the attributes of a typical event; its type, source and partitionkey are those of filter 7.
func benchEvent() *event.Event {
	e := &event.Event{Data: []byte(`{"amount": 7, "name": "seven", "tags": ["a", "b"], "user": {"id": 12, "mail": "a@example.com"}}`)}
	for _, a := range [][2]string{
		{"specversion", "1.0"},
		{"id", "5f2b6c1e-8a41-4f0e-9a5c-1d2e3f4a5b6c"},
		{"source", "https://shop.example.com/oslo/7"},
		{"type", "com.example.shop.order.7"},
		{"subject", "orders/123456"},
		{"time", "2026-01-02T03:04:05.678Z"},
		{"datacontenttype", "application/json"},
		{"partitionkey", "customer-7"},
		{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{"knativearrivaltime", "2026-01-02T03:04:05.700Z"},
	} {
		e.Set(a[0], a[1], event.String)
	}
	return e
}

func benchFilters() map[string]func(i int) eventingv1.Filter {
	typ := func(i int) string { return fmt.Sprintf("com.example.shop.order.%d", i) }
	source := func(i int) string { return fmt.Sprintf("https://shop.example.com/oslo/%d", i) }
	return map[string]func(i int) eventingv1.Filter{
		"equality": func(i int) eventingv1.Filter {
			return eventingv1.Filter{Exact: map[string]string{"type": typ(i)}}
		},
		"sourceAndType": func(i int) eventingv1.Filter {
			return eventingv1.Filter{SourceAndType: &eventingv1.SourceAndType{Source: source(i % 100), Type: typ(i / 100)}}
		},
		"sameTypeOtherSource": func(i int) eventingv1.Filter {
			return eventingv1.Filter{SourceAndType: &eventingv1.SourceAndType{Source: source(i), Type: typ(7)}}
		},
		"sameTypeOtherKey": func(i int) eventingv1.Filter {
			return eventingv1.Filter{Exact: map[string]string{"type": typ(7), "partitionkey": fmt.Sprintf("customer-%d", i)}}
		},
		"prefix": func(i int) eventingv1.Filter {
			return eventingv1.Filter{Prefix: map[string]string{"source": source(i)}}
		},
		"suffix": func(i int) eventingv1.Filter {
			return eventingv1.Filter{Suffix: map[string]string{"partitionkey": fmt.Sprintf("-%d", i)}}
		},
		"celWithType": func(i int) eventingv1.Filter {
			return eventingv1.Filter{CEL: fmt.Sprintf(`ce.type == %q && ce.source.startsWith("https://shop")`, typ(i))}
		},
		"cesqlWithType": func(i int) eventingv1.Filter {
			return eventingv1.Filter{CESQL: fmt.Sprintf("type = '%s' AND EXISTS subject", typ(i))}
		},
		"celOnData": func(i int) eventingv1.Filter {
			return eventingv1.Filter{CEL: fmt.Sprintf("data.amount == %d", i%100)}
		},
	}
}

func benchTable(b *testing.B, filter func(i int) eventingv1.Filter, n int) *trigger.Table[int] {
	b.Helper()
	c := newCompiler(b)
	entries := make([]trigger.Entry[int], n)
	for i := range entries {
		entries[i] = trigger.Entry[int]{Filter: byFilters(b, c, filter(i)), Target: i}
	}
	return trigger.NewTable(entries)
}

// BenchmarkMatch measures one event against tables of n filters of one kind, of which one matches; of celOnData one in
// a hundred.
func BenchmarkMatch(b *testing.B) {
	filters := benchFilters()
	for _, bc := range []struct {
		kind  string
		sizes []int
	}{
		{"equality", []int{10, 1_000, 10_000, 100_000}},
		{"sourceAndType", []int{1_000, 10_000, 100_000}},
		{"sameTypeOtherSource", []int{10_000}},
		{"sameTypeOtherKey", []int{10_000}},
		{"prefix", []int{1_000, 10_000}},
		{"suffix", []int{10_000}},
		{"celWithType", []int{1_000}},
		{"cesqlWithType", []int{1_000}},
		{"celOnData", []int{1_000}},
	} {
		for _, n := range bc.sizes {
			b.Run(fmt.Sprintf("%s/%d", bc.kind, n), func(b *testing.B) {
				table := benchTable(b, filters[bc.kind], n)
				e := benchEvent()
				if bc.kind == "sourceAndType" {
					e.Set(event.Type, "com.example.shop.order.3", event.String)
				}
				in := trigger.NewInput(e)
				var dst []int
				b.ReportAllocs()
				for b.Loop() {
					in.Reset(e)
					dst = table.Match(in, dst[:0])
				}
				if len(dst) == 0 {
					b.Fatal("nothing matches")
				}
			})
		}
	}
}

// BenchmarkMatchSpread is the equality case with another type each time, so that the table is not in the processor's
// cache.
func BenchmarkMatchSpread(b *testing.B) {
	const n = 100_000
	filter := benchFilters()["equality"]
	table := benchTable(b, filter, n)
	events := make([]*event.Event, 4096)
	for i := range events {
		events[i] = benchEvent()
		events[i].Set(event.Type, filter(i * 7919 % n).Exact[event.Type], event.String)
	}
	in := trigger.NewInput(events[0])
	var dst []int
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		in.Reset(events[i%len(events)])
		dst = table.Match(in, dst[:0])
		i++
	}
	if len(dst) != 1 {
		b.Fatalf("%d match, want one", len(dst))
	}
}

func BenchmarkNewTable(b *testing.B) {
	for _, kind := range []string{"equality", "sourceAndType", "prefix"} {
		b.Run(kind+"/100000", func(b *testing.B) {
			c := newCompiler(b)
			filter := benchFilters()[kind]
			entries := make([]trigger.Entry[int], 100_000)
			for i := range entries {
				entries[i] = trigger.Entry[int]{Filter: byFilters(b, c, filter(i)), Target: i}
			}
			b.ReportAllocs()
			for b.Loop() {
				trigger.NewTable(entries)
			}
		})
	}
}
