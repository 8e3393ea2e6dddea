package main

import (
	"context"
	"errors"
	"time"

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
	b.addRatioOf(kept, plain, "with a journal to without, processor time an event", report.AtMost(journalCPU), slice.brokerCPU)
	b.addRatioOf(all, plain, "with a journal and metrics to without both, processor time an event", nil, slice.brokerCPU)
	b.addRatioOf(same, plain, "without both, another set of programs, to without both, processor time an event: chance", nil, slice.brokerCPU)
	return nil
}

// archive compares Brokers with and without an archive.
func (b *bench) archive(ctx context.Context) error {
	targets, err := b.sideBySide(ctx, variant{name: "with", annotations: "millrace.dev/archive: PT1H"}, variant{name: "without"})
	if err != nil {
		return err
	}
	b.addRatio(targets[0], targets[1], "rate with an archive to the rate without", nil)
	b.addRatioOf(targets[0], targets[1], "processor time an event, with an archive to without", nil, slice.brokerCPU)
	return nil
}

// variant is a set of programs, an ingress and a filter with a Broker and a Trigger, that differs from others in what it is given.
type variant struct {
	name        string
	args, env   []string
	annotations string // of the Broker, in YAML's flow style
	scraped     bool   // whether its metrics are read each second
}

// sideBySide measures the variants. They take turns, and one that is left alone costs next to nothing.
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
	return targets, b.measure(ctx, targets...)
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
