package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace.dev/test/bench/ledger"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

const (
	soakRate  = 2000
	soakEvery = 5 * time.Second
	// heapGoal is how large Go lets the heap become until it collects garbage: a fixed multiple of what is alive.
	heapGoal     = "go_memstats_next_gc_bytes"
	heapOfFilter = "the filter's heap at its next collection"
	// attempts is the metric by which the work of filters is compared.
	attempts = "millrace_trigger_attempts_total"
)

// durable compares clusters of three servers that write through to the disk with such that do not.
func (b *bench) durable(ctx context.Context) (err error) {
	var targets []*target
	for _, always := range []bool{false, true} {
		name := map[bool]string{false: "default", true: "always"}[always]
		r, err := b.start(ctx, rig.Options{
			Servers: 3, SyncAlways: always, Ingresses: 1, Manifests: []string{brokerManifest(name, `millrace.dev/replicas: "3"`)},
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		t, done, err := stored(r, name)
		if err != nil {
			return err
		}
		defer done()
		targets = append(targets, t)
	}
	if err := b.measure(ctx, targets...); err != nil {
		return err
	}
	b.addRate(targets[0], "three servers, default sync_interval", nil, nil)
	b.addRate(targets[1], "three servers, sync_interval: always", nil, nil)
	b.addRatio(targets[1], targets[0], "always to default", report.AtLeast(0.5))
	return nil
}

// replicas compares two ingresses and two filters of one Broker with one of each, and the bare handler in two processes with
// it in one: that is what it costs to divide two cores among more processes.
func (b *bench) replicas(ctx context.Context) (err error) {
	var targets []*target
	for n, name := range []string{"single", "double"} {
		t, err := newTarget(name, 1, 0)
		if err != nil {
			return err
		}
		r, err := b.start(ctx, rig.Options{Ingresses: n + 1, Filters: n + 1, Manifests: []string{
			brokerManifest(name, ""), triggerManifest(name, name, t.sink.URL(0), ""),
		}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		t.on(r)
		targets = append(targets, t)
	}
	bare, done, err := bareTarget(ctx, targets[0].rig, "single")
	if err != nil {
		return err
	}
	defer done()
	if err := bare.rig.StartBare(ctx, bareStream); err != nil {
		return err
	}
	bares := *bare
	bares.name, bares.book, bares.hosts = "bares", ledger.New(0), []string{bare.hosts[0], bare.rig.Bare}
	targets = append(targets, bare, &bares)
	if err := b.measure(ctx, targets...); err != nil {
		return err
	}
	single, double := targets[0], targets[1]
	share, err := unevenness(ctx, double.rig)
	if err != nil {
		return err
	}
	b.addRate(single, "one of each", nil, nil)
	b.addRate(double, "two of each", nil, nil)
	b.addRatio(double, single, "two of each to one of each", report.AtLeast(1))
	b.addRate(bare, "bare handler in one process", nil, nil)
	b.addRate(&bares, "bare handler in two processes", nil, nil)
	b.addRatio(&bares, bare, "bare handler in two processes to one", nil)
	b.report.Add(report.Figure{
		Scenario: b.scenario, Name: "how far a filter's share is from the mean", Unit: "%", Samples: []float64{share}, Goal: report.AtMost(20),
	})
	return nil
}

// unevenness is how far, in percent, the attempts of a filter are from the mean of all.
func unevenness(ctx context.Context, r *rig.Rig) (percent float64, err error) {
	var counts []float64
	sum := 0.0
	for _, admin := range r.Admin {
		n, err := sumOver(ctx, []string{admin}, attempts)
		if err != nil {
			return 0, err
		}
		counts, sum = append(counts, n), sum+n
	}
	mean := sum / float64(len(counts))
	return 100 * (slices.Max(counts) - mean) / mean, nil
}

// sumOver adds up all series of a metric of the admin ports.
func sumOver(ctx context.Context, admins []string, metric string) (sum float64, err error) {
	for _, admin := range admins {
		var text bytes.Buffer
		if err := rig.Get(ctx, admin+"/metrics", &text); err != nil {
			return 0, err
		}
		n, err := sumOf(text.String(), metric)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// sumOf adds up all series of the metric in the Prometheus text format.
func sumOf(text, metric string) (sum float64, err error) {
	found := false
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, metric)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		fields := strings.Fields(rest[strings.LastIndexByte(rest, '}')+1:])
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", metric, err)
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", metric)
	}
	return sum, nil
}

// soak watches the memory under a constant load.
func (b *bench) soak(ctx context.Context) (err error) {
	if b.mode.soak == 0 {
		b.say("left out: takes -mode full or -soak")
		return nil
	}
	t, err := newTarget("soak", 1, 0)
	if err != nil {
		return err
	}
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: []string{
		brokerManifest("soak", ""), triggerManifest("soak", "soak", t.sink.URL(0), ""),
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t.on(r)
	t.rate, t.window = soakRate, 0
	watching, stop := context.WithCancel(ctx)
	memory, done := map[string][]float64{}, make(chan error, 1)
	go func() { done <- b.watch(watching, r, memory) }()
	s, err := b.slice(ctx, t, b.mode.soak, false)
	stop()
	if err = errors.Join(err, <-done, b.close(t)); err != nil {
		return err
	}
	t.slices = []slice{s}
	b.add(t, "p99 of the latency", "ms", nil, func(s slice) float64 { return s.quantile(99) })
	// What a stall of the machine piled up once the runtime gives back slowly, so the filter's heap is looked at too.
	for _, role := range []string{"ingress", "filter", heapOfFilter, "nats"} {
		samples := memory[role]
		fifth := len(samples) / 5
		late, early := report.Median(samples[len(samples)-fifth:]), report.Median(samples[fifth:2*fifth])
		b.report.Add(report.Figure{
			Scenario: b.scenario, Name: "memory of " + role, Unit: "MiB", Samples: samples,
		}, report.Figure{
			Scenario: b.scenario, Name: "memory of " + role + " in the last fifth to that in the second", Unit: "×",
			Samples: []float64{late / early}, Goal: report.AtMost(1.1),
		})
	}
	return nil
}

// watch reads the memory of all processes now and then, in MiB, until ctx ends.
func (b *bench) watch(ctx context.Context, r *rig.Rig, memory map[string][]float64) error {
	tick := time.NewTicker(min(soakEvery, b.mode.soak/50))
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		rss, err := r.RSS()
		if err != nil {
			return err
		}
		for role, bytes := range rss {
			memory[role] = append(memory[role], float64(bytes)/mebibyte)
		}
		heap, err := sumOver(ctx, r.Admin, heapGoal)
		if err != nil {
			return err
		}
		memory[heapOfFilter] = append(memory[heapOfFilter], heap/mebibyte)
		if n%12 == 0 {
			b.say("memory in MiB: ingress %d, filter %d, nats %d", rss["ingress"]/mebibyte, rss["filter"]/mebibyte, rss["nats"]/mebibyte)
		}
	}
}
