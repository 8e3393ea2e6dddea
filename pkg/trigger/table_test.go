package trigger_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// checkTable holds the index to its promise: a Table finds exactly the filters that match on their own, each once, in
// order.
func checkTable(t *rapid.T, filters []*trigger.Filter) {
	entries := make([]trigger.Entry[int], len(filters))
	for i, f := range filters {
		entries[i] = trigger.Entry[int]{Filter: f, Target: i}
	}
	table := trigger.NewTable(entries)
	in := trigger.NewInput(&event.Event{})
	for range rapid.IntRange(1, 20).Draw(t, "events") {
		e := genEvent(t)
		var want []int
		alone := trigger.NewInput(e)
		for i, f := range filters {
			if f.Match(alone) {
				want = append(want, i)
			}
		}
		in.Reset(e)
		if diff := cmp.Diff(want, table.Match(in, nil)); diff != "" {
			t.Fatalf("table differs from filters (-filters +table):\n%s\nevent %+v", diff, e)
		}
	}
}

func tableAgreesWithFilters(c *trigger.Compiler, most int) func(*rapid.T) {
	return func(t *rapid.T) {
		var filters []*trigger.Filter
		for range rapid.IntRange(1, most).Draw(t, "triggers") {
			filter, errs := c.Compile(genTrigger(t))
			if len(errs) > 0 {
				t.Fatal(errs.ToAggregate())
			}
			filters = append(filters, filter)
		}
		checkTable(t, filters)
	}
}

// TestTableAgreesOnExpressions puts every expression into one table, as a random one has too few of them to hit what is
// special about each.
func TestTableAgreesOnExpressions(t *testing.T) {
	c := newCompiler(t)
	var filters []*trigger.Filter
	for _, expr := range celExpressions {
		filters = append(filters, byFilters(t, c, eventingv1.Filter{CEL: expr}))
	}
	for _, expr := range cesqlExpressions {
		filters = append(filters, byFilters(t, c, eventingv1.Filter{CESQL: expr}))
	}
	rapid.Check(t, func(t *rapid.T) { checkTable(t, filters) })
}

// TestTableAgreesOnOneAttribute looks for mistakes where several conditions on one attribute are made into one.
func TestTableAgreesOnOneAttribute(t *testing.T) {
	c := newCompiler(t)
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { rapid.Check(t, tableAgreesOnOneAttribute(c)) })
	}
}

func tableAgreesOnOneAttribute(c *trigger.Compiler) func(*rapid.T) {
	comparison := func(t *rapid.T) eventingv1.Filter {
		source := map[string]string{"source": genValues.Draw(t, "value")}
		return rapid.SampledFrom([]eventingv1.Filter{
			{Exact: source}, {Prefix: source}, {Suffix: source}, {Attributes: map[string]string{"source": ""}},
		}).Draw(t, "comparison")
	}
	return func(t *rapid.T) {
		var filters []*trigger.Filter
		for range rapid.IntRange(1, 20).Draw(t, "triggers") {
			parts := rapid.SliceOfN(rapid.Custom(comparison), 1, 3).Draw(t, "parts")
			more := rapid.SliceOfN(rapid.Custom(comparison), 1, 3).Draw(t, "more")
			filter, errs := c.Compile(&eventingv1.Trigger{Spec: eventingv1.TriggerSpec{
				Filters: rapid.SampledFrom([][]eventingv1.Filter{
					parts, {{Any: parts}}, {{Any: append(parts, eventingv1.Filter{All: more})}}, {{Any: parts}, {Any: more}},
				}).Draw(t, "shape"),
			}})
			if len(errs) > 0 {
				t.Fatal(errs.ToAggregate())
			}
			filters = append(filters, filter)
		}
		checkTable(t, filters)
	}
}

func TestTableAgreesWithFilters(t *testing.T) {
	c := newCompiler(t)
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { rapid.Check(t, tableAgreesWithFilters(c, 40)) })
	}
}

func FuzzMatch(f *testing.F) {
	c, err := trigger.NewCompiler()
	if err != nil {
		f.Fatal(err)
	}
	// A case that runs out of bytes is given up, so the seeds are long enough for a small table.
	for seed := range byte(4) {
		text := make([]byte, 4<<10)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(text)
		f.Add(text)
	}
	f.Fuzz(rapid.MakeFuzz(tableAgreesWithFilters(c, 4)))
}

// byAttributes is a filter of attributes alone.
func byAttributes(t testing.TB, c *trigger.Compiler, pairs ...string) *trigger.Filter {
	t.Helper()
	attributes := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		attributes[pairs[i]] = pairs[i+1]
	}
	return compile(t, c, &eventingv1.Trigger{Spec: eventingv1.TriggerSpec{
		Filter: &eventingv1.TriggerFilter{Attributes: attributes},
	}})
}

func byFilters(t testing.TB, c *trigger.Compiler, filters ...eventingv1.Filter) *trigger.Filter {
	t.Helper()
	return compile(t, c, &eventingv1.Trigger{Spec: eventingv1.TriggerSpec{Filters: filters}})
}

func compile(t testing.TB, c *trigger.Compiler, tr *eventingv1.Trigger) *trigger.Filter {
	t.Helper()
	f, errs := c.Compile(tr)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return f
}

func anEvent(pairs ...string) *event.Event {
	e := &event.Event{}
	for i := 0; i < len(pairs); i += 2 {
		e.Set(pairs[i], pairs[i+1], event.String)
	}
	return e
}

func TestTableStats(t *testing.T) {
	c := newCompiler(t)
	table := trigger.NewTable([]trigger.Entry[string]{
		{Filter: byAttributes(t, c, "type", "a"), Target: "type"},
		{Filter: byFilters(t, c, eventingv1.Filter{Suffix: map[string]string{"subject": "x"}}), Target: "suffix"},
		{Filter: byAttributes(t, c, "subject", ""), Target: "present"},
		{Filter: byAttributes(t, c), Target: "every"},
		{Filter: byFilters(t, c, eventingv1.Filter{CEL: `data.x == 1`}), Target: "data"},
		{Filter: nil, Target: "invalid"},
	})
	want := trigger.Stats{Entries: 6, Indexed: 3, Unfiltered: 1, Residual: 1}
	if diff := cmp.Diff(want, table.Stats()); diff != "" {
		t.Error(diff)
	}
	e := anEvent("type", "a", "subject", "six")
	in := trigger.NewInput(e)
	if in.Event() != e {
		t.Error("the Input has another event")
	}
	got := table.Match(in, nil)
	if diff := cmp.Diff([]string{"type", "suffix", "present", "every"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestTableSpreads checks that filters which share an attribute are told apart by others: not one of them may be
// evaluated for an event that matches only one. CEL conjuncts that fail when evaluated make that visible.
func TestTableSpreads(t *testing.T) {
	c := newCompiler(t)
	for _, name := range []string{"source", "partitionkey"} {
		var entries []trigger.Entry[int]
		for i := range 200 {
			entries = append(entries, trigger.Entry[int]{Target: i, Filter: byFilters(
				t, c,
				eventingv1.Filter{Exact: map[string]string{"type": "same", name: fmt.Sprint(i)}},
				eventingv1.Filter{CEL: `data.x == 1`},
			)})
		}
		in := trigger.NewInput(anEvent("type", "same", name, "7"))
		trigger.NewTable(entries).Match(in, nil)
		if got := in.Errors().CEL; got != 1 {
			t.Errorf("%s: %d filters were evaluated, want 1", name, got)
		}
	}
}

// TestTableSpreadsPairs has many filters of each type and many of each source, but few of any pair.
func TestTableSpreadsPairs(t *testing.T) {
	c := newCompiler(t)
	var entries []trigger.Entry[int]
	for i := range 400 {
		entries = append(entries, trigger.Entry[int]{Target: i, Filter: byFilters(
			t, c,
			eventingv1.Filter{SourceAndType: &eventingv1.SourceAndType{
				Source: fmt.Sprint(i / 20), Type: fmt.Sprint(i % 20),
			}},
			eventingv1.Filter{CEL: `data.x == 1`},
		)})
	}
	in := trigger.NewInput(anEvent("type", "3", "source", "4"))
	trigger.NewTable(entries).Match(in, nil)
	if got := in.Errors().CEL; got != 1 {
		t.Errorf("%d filters were evaluated, want 1", got)
	}
}

// TestTableOfManyCombinations has more combinations of attributes than a table looks up together, and filters whose
// values make more keys than one may have.
func TestTableOfManyCombinations(t *testing.T) {
	c := newCompiler(t)
	oneOf := func(name string) eventingv1.Filter {
		var f eventingv1.Filter
		for i := range 10 {
			f.Any = append(f.Any, eventingv1.Filter{Exact: map[string]string{name: fmt.Sprint(i)}})
		}
		return f
	}
	var filters []*trigger.Filter
	for pair := range 20 {
		a, b := fmt.Sprintf("a%d", pair), fmt.Sprintf("b%d", pair)
		for i := range 100 {
			filters = append(filters, byAttributes(t, c, a, fmt.Sprint(i/10), b, fmt.Sprint(i%10)))
		}
		filters = append(filters, byFilters(t, c, oneOf(a), oneOf(b)))
	}
	var entries []trigger.Entry[int]
	for i, f := range filters {
		entries = append(entries, trigger.Entry[int]{Filter: f, Target: i})
	}
	table := trigger.NewTable(entries)
	for pair := range 20 {
		e := anEvent(fmt.Sprintf("a%d", pair), "3", fmt.Sprintf("b%d", pair), "7", "a0", "1", "a1", "5")
		var want []int
		in := trigger.NewInput(e)
		for i, f := range filters {
			if f.Match(in) {
				want = append(want, i)
			}
		}
		if diff := cmp.Diff(want, table.Match(in, nil)); diff != "" {
			t.Errorf("pair %d (-filters +table):\n%s", pair, diff)
		}
	}
}

func TestDataIsParsedOnceOrNever(t *testing.T) {
	c := newCompiler(t)
	var entries []trigger.Entry[int]
	for i := range 10 {
		entries = append(entries, trigger.Entry[int]{Target: i, Filter: byFilters(
			t, c, eventingv1.Filter{CEL: fmt.Sprintf(`ce.type == "a" && data.x == %d`, i)},
		)})
	}
	table := trigger.NewTable(entries)
	e := anEvent("type", "a", "datacontenttype", "application/json")
	e.Data = []byte(`{"x": 3}`)
	in := trigger.NewInput(e)
	if diff := cmp.Diff([]int{3}, table.Match(in, nil)); diff != "" {
		t.Error(diff)
	}
	if got := in.DataParses(); got != 1 {
		t.Errorf("the body was parsed %d times, want once", got)
	}
	e.Set("type", "b", event.String)
	in.Reset(e)
	if got := table.Match(in, nil); len(got) > 0 || in.DataParses() != 0 {
		t.Errorf("got %v and %d parses of another type, want none", got, in.DataParses())
	}
}

func TestTableIsSharedByGoroutines(t *testing.T) {
	c := newCompiler(t)
	var entries []trigger.Entry[int]
	for i, expr := range cesqlExpressions {
		entries = append(entries, trigger.Entry[int]{Target: i, Filter: byFilters(t, c, eventingv1.Filter{CESQL: expr})})
	}
	for i, expr := range celExpressions {
		entries = append(entries, trigger.Entry[int]{Target: 100 + i, Filter: byFilters(t, c, eventingv1.Filter{CEL: expr})})
	}
	table := trigger.NewTable(entries)
	e := anEvent("id", "1", "source", "b", "type", "a", "subject", "ab", "datacontenttype", "application/json")
	e.Data = []byte(`{"amount": 5}`)
	want := table.Match(trigger.NewInput(e), nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			in := trigger.NewInput(e)
			for range 50 {
				in.Reset(e)
				if diff := cmp.Diff(want, table.Match(in, nil)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	wg.Wait()
}

func TestMatchAllocatesNothing(t *testing.T) {
	c := newCompiler(t)
	var entries []trigger.Entry[int]
	for i := range 100 {
		v := fmt.Sprint(i)
		entries = append(
			entries,
			trigger.Entry[int]{Filter: byAttributes(t, c, "type", "a", "source", fmt.Sprint(i/10), "subject", fmt.Sprint(i%10))},
			trigger.Entry[int]{Filter: byFilters(t, c, eventingv1.Filter{Prefix: map[string]string{"source": v}})},
			trigger.Entry[int]{Filter: byFilters(t, c, eventingv1.Filter{Any: []eventingv1.Filter{
				{Suffix: map[string]string{"source": v}}, {Exact: map[string]string{"type": v}},
			}})},
		)
	}
	table := trigger.NewTable(entries)
	e := anEvent("id", "1", "source", "4", "type", "a", "subject", "2")
	in := trigger.NewInput(e)
	dst := make([]int, 0, 100)
	if len(table.Match(in, dst)) == 0 {
		t.Fatal("nothing matches")
	}
	if n := testing.AllocsPerRun(100, func() {
		in.Reset(e)
		table.Match(in, dst)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
