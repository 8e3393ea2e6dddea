package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.dev/pkg/journal"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

const (
	withJournal = 0.98
	withAll     = 0.97
	// journalCPU is how the processor time an event may grow for a journal: it is what the rate comes down to, and scatters less.
	journalCPU = 1.02
)

// journal compares sets of programs with neither a journal nor latencies, with a journal, and with all that is on unless it is turned off,
// metrics being read each second. One more is as the first, so that the report tells how much chance alone makes.
func (b *bench) journal(ctx context.Context) error {
	off := variant{name: "plain", args: []string{"--latencies=false", "--journal=false"}}
	again := off
	again.name = "again"
	targets, err := b.sideBySide(ctx, off,
		variant{name: "journal", args: []string{"--latencies=false"}},
		variant{name: "all", scraped: true}, again)
	if err != nil {
		return err
	}
	plain, kept, all, same := targets[0], targets[1], targets[2], targets[3]
	b.addRate(plain, "without journal and metrics", nil, nil)
	b.addRatio(kept, plain, "with a journal to without", report.AtLeast(withJournal))
	b.addRatio(all, plain, "with a journal and metrics, read each second, to without both", report.AtLeast(withAll))
	b.addRatio(same, plain, "without both, another set of programs, to without both: chance", nil)
	b.addCPUToFirst(kept, "with a journal to without", report.AtMost(journalCPU))
	b.addCPUToFirst(all, "with a journal and metrics to without both", nil)
	b.addCPUToFirst(same, "without both, another set of programs, to without both: chance", nil)
	return nil
}

// archive compares Brokers with and without an archive.
func (b *bench) archive(ctx context.Context) error {
	targets, err := b.sideBySide(ctx, variant{name: "without"}, variant{name: "with", annotations: "millrace.dev/archive: PT1H"})
	if err != nil {
		return err
	}
	b.addRatio(targets[1], targets[0], "rate with an archive to the rate without", nil)
	b.addCPUToFirst(targets[1], "with an archive to without", nil)
	return nil
}

// variant is a set of programs, an ingress and a filter with a Broker and a Trigger, that differs from others in what it is given.
type variant struct {
	name        string
	args, env   []string
	annotations string // of the Broker, in YAML's flow style
	scraped     bool   // whether its metrics are read each second
}

// sideBySide measures the variants. First each is loaded at the same time as the first of them: what else the machine does then hits both alike, and
// their processor times can be compared. Then they take turns, where one that is left alone costs next to nothing, to compare their rates.
func (b *bench) sideBySide(ctx context.Context, variants ...variant) (targets []*target, err error) {
	var rigs, scraped []*rig.Rig
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, v := range variants {
		t, err := newTarget(v.name, 1, 0)
		if err != nil {
			return nil, err
		}
		r, err := b.start(ctx, rig.Options{
			Ingresses: 1, Filters: 1, Args: v.args, Env: v.env,
			Manifests: []string{brokerManifest(v.name, v.annotations), triggerManifest(v.name, v.name, t.sink.URL(0), "")},
		})
		if err != nil {
			return nil, err
		}
		t.on(r)
		t.behind = journal.Settles
		targets, rigs = append(targets, t), append(rigs, r)
		if v.scraped {
			scraped = append(scraped, r)
		}
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	go scrape(running, scraped...)
	for round := range b.rounds {
		for _, t := range targets[1:] {
			if err := b.atOnce(ctx, round, targets[0], t); err != nil {
				return nil, err
			}
		}
	}
	return targets, b.measure(ctx, targets...)
}

// atOnce loads both targets at the same time and notes how their processor times an event compare.
func (b *bench) atOnce(ctx context.Context, round int, first, t *target) error {
	var slices [2]slice
	loading, ctx := errgroup.WithContext(ctx)
	for i, each := range []*target{first, t} {
		loading.Go(func() (err error) {
			slices[i], err = b.slice(ctx, each, b.mode.slice, false)
			return err
		})
	}
	if err := loading.Wait(); err != nil {
		return fmt.Errorf("%s and %s: %w", first.name, t.name, err)
	}
	t.cpuToFirst = append(t.cpuToFirst, slices[1].brokerCPU()/slices[0].brokerCPU())
	for i, each := range []*target{first, t} {
		b.say("%d/%d at once %-10s %s", round+1, b.rounds, each.name, slices[i])
	}
	return nil
}

// addCPUToFirst reports how the processor time an event of a target compares with that of the one it was loaded beside.
func (b *bench) addCPUToFirst(t *target, name string, goal *report.Goal) {
	b.report.Add(report.Figure{
		Scenario: b.scenario, Name: name + ", processor time an event, at the same time", Unit: "×", Samples: t.cpuToFirst, Goal: goal,
	})
}

// scrapeEvery is how often metrics are read: far more often than Prometheus does by default.
const scrapeEvery = time.Second

// scrape reads the metrics of the rigs until ctx ends. What fails shows in the figures.
func scrape(ctx context.Context, rigs ...*rig.Rig) {
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, r := range rigs {
				_ = r.Scrape(ctx)
			}
		}
	}
}
