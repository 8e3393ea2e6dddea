package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

const (
	celTriggers = 1000
	celMatching = 100 // one in so many matches
)

// indexed are the kinds of filters of which one in many matches: for the type of each Trigger.
var indexed = []struct {
	name, what string
	filter     func(typ string) string
}{
	{"equality", "equality", exactType},
	{"sourcetype", "sourceAndType", func(typ string) string {
		return fmt.Sprintf("{sourceAndType: {source: /rooms/42, type: %s}}", typ)
	}},
	{"celtype", "CEL with an equality", func(typ string) string {
		return fmt.Sprintf(`{cel: 'ce.type == "%s" && ce.source.startsWith("/rooms/")'}`, typ)
	}},
}

// index compares, for each kind of filter, a Broker with many Triggers, of which one matches, with a Broker of one Trigger.
// Each has processes of its own, so that what many Triggers cost a process counts, too.
func (b *bench) index(ctx context.Context) error {
	for _, kind := range indexed {
		filters := b.indexFilters(kind.filter)
		us, allocs, err := matching(filters, 1)
		if err != nil {
			return err
		}
		b.report.Add(report.Figure{
			Scenario: b.scenario, Name: kind.what + ", matching an event", Unit: "µs", Samples: []float64{us}, Goal: report.AtMost(1),
			Note: fmt.Sprintf("%s Triggers, %d allocations", report.Count(len(filters)), allocs),
		})
		if err := b.compareWithOne(ctx, kind.name, kind.what, filters); err != nil {
			return fmt.Errorf("%s: %w", kind.what, err)
		}
	}
	return nil
}

// compareWithOne compares a Broker with all the filters with one that has only the first.
func (b *bench) compareWithOne(ctx context.Context, name, what string, filters []string) error {
	one, closeOne, err := b.matchingFirst(ctx, "one", filters[:1])
	if err != nil {
		return err
	}
	many, closeMany, err := b.matchingFirst(ctx, name, filters)
	if err != nil {
		return errors.Join(err, closeOne())
	}
	if err := errors.Join(b.measure(ctx, one, many), closeMany(), closeOne()); err != nil {
		return err
	}
	b.addRate(one, what+", one Trigger", nil, nil)
	b.addRate(many, fmt.Sprintf("%s, %s Triggers", what, report.Count(len(filters))), nil, nil)
	b.addRatio(many, one, what+", many Triggers to one", report.AtLeast(0.95))
	return nil
}

// matchingFirst starts a Broker with a Trigger for each filter, of which the first matches. Call done in the end.
func (b *bench) matchingFirst(ctx context.Context, broker string, filters []string) (t *target, done func() error, err error) {
	if t, err = newTarget(broker, 1, 0); err != nil {
		return nil, nil, err
	}
	manifests := []string{brokerManifest(broker, "")}
	for i, filter := range filters {
		manifests = append(manifests, triggerManifest(broker, fmt.Sprintf("t%d", i), t.sink.URL(min(i, 1)), filter))
	}
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: manifests})
	if err != nil {
		return nil, nil, errors.Join(err, t.sink.Close())
	}
	t.on(r)
	return t, r.Close, nil
}

// indexFilters are filters of which the first matches.
func (b *bench) indexFilters(filter func(typ string) string) []string {
	filters := []string{filter(eventType)}
	for i := 1; i < b.many; i++ {
		filters = append(filters, filter(fmt.Sprintf("com.example.live.type%d", i)))
	}
	return filters
}

// celOnData has filters for which the data has to be decoded; none has a condition on an attribute.
func (b *bench) celOnData(ctx context.Context) (err error) {
	matches := celTriggers / celMatching
	t, err := newTarget("celdata", matches, 0)
	if err != nil {
		return err
	}
	manifests, filters := []string{brokerManifest("celdata", "")}, []string{}
	for i := range celTriggers {
		low := amount + 10*(i%celMatching) // the first of each hundred holds
		filters = append(filters, fmt.Sprintf("{cel: 'data.amount >= %d && data.amount < %d'}", low, low+10))
		subscriber := matches // is owed nothing
		if i%celMatching == 0 {
			subscriber = i / celMatching
		}
		manifests = append(manifests, triggerManifest("celdata", fmt.Sprintf("t%d", i), t.sink.URL(subscriber), filters[i]))
	}
	us, _, err := matching(filters, matches)
	if err != nil {
		return err
	}
	b.report.Add(report.Figure{
		Scenario: b.scenario, Name: "matching an event", Unit: "µs", Samples: []float64{us}, Goal: report.AtMost(400),
		Note: "one decoding of the data included",
	})
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: manifests})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t.on(r)
	t.window = defaultWindow / matches
	if err := b.measure(ctx, t); err != nil {
		return err
	}
	b.addRate(t, fmt.Sprintf("%d deliveries an event", matches), nil, nil)
	return nil
}

// matching measures, in this process, how long it takes to find the Triggers of an event, and checks how many there are.
func matching(filters []string, want int) (us float64, allocs int64, err error) {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		return 0, 0, fmt.Errorf("prepare filters: %w", err)
	}
	entries := make([]trigger.Entry[int], len(filters))
	for i, filter := range filters {
		var spec eventingv1.TriggerSpec
		if err := yaml.UnmarshalStrict([]byte("filters: ["+filter+"]"), &spec); err != nil {
			return 0, 0, fmt.Errorf("read filter %s: %w", filter, err)
		}
		compiled, errs := compiler.Compile(&eventingv1.Trigger{Spec: spec})
		if err := errs.ToAggregate(); err != nil {
			return 0, 0, fmt.Errorf("compile filter %s: %w", filter, err)
		}
		entries[i] = trigger.Entry[int]{Filter: compiled, Target: i}
	}
	table, e, found := trigger.NewTable(entries), benchEvent(), []int(nil)
	result := testing.Benchmark(func(b *testing.B) {
		in := trigger.NewInput(e)
		for b.Loop() {
			in.Reset(e)
			found = table.Match(in, found[:0])
		}
	})
	if len(found) != want {
		return 0, 0, fmt.Errorf("%d filters match, want %d: %s", len(found), want, strings.Join(filters[:1], ""))
	}
	return float64(result.T.Nanoseconds()) / float64(result.N) / 1000, result.AllocsPerOp(), nil
}

func benchEvent() *event.Event {
	e := &event.Event{Data: payload}
	for _, a := range [][2]string{
		{event.SpecVersion, "1.0"},
		{event.ID, "0000000000000000"},
		{event.Source, "/rooms/42"},
		{event.Type, eventType},
		{event.Subject, "room-42"},
		{event.Time, "2026-01-02T03:04:05.123456789Z"},
		{event.DataContentType, "application/json"},
	} {
		e.Set(a[0], a[1], event.String)
	}
	return e
}
