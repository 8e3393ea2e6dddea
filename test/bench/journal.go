package main

import (
	"context"
	"errors"
	"fmt"

	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

// journal compares sets of programs with and without a journal.
func (b *bench) journal(ctx context.Context) error {
	return b.compare(ctx, "a journal", report.AtLeast(0.98), func(kept bool) ([]string, string) {
		return []string{fmt.Sprintf("--journal=%t", kept)}, ""
	})
}

// archive compares Brokers with and without an archive.
func (b *bench) archive(ctx context.Context) error {
	return b.compare(ctx, "an archive", nil, func(kept bool) ([]string, string) {
		if kept {
			return nil, "millrace.dev/archive: PT1H"
		}
		return nil, ""
	})
}

// compare compares two sets of programs that differ in whether they have something, which is given to them by arguments and the Broker's
// annotations. They take turns, so the one that is left alone costs next to nothing.
func (b *bench) compare(ctx context.Context, what string, goal *report.Goal, give func(bool) (args []string, annotations string)) (err error) {
	var targets []*target
	var rigs []*rig.Rig
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, kept := range []bool{true, false} {
		name := "with"
		if !kept {
			name = "without"
		}
		t, err := newTarget(name, 1, 0)
		if err != nil {
			return err
		}
		args, annotations := give(kept)
		r, err := b.start(ctx, rig.Options{
			Ingresses: 1, Filters: 1, Args: args,
			Manifests: []string{brokerManifest(name, annotations), triggerManifest(name, name, t.sink.URL(0), "")},
		})
		if err != nil {
			return err
		}
		rigs = append(rigs, r)
		t.on(r)
		targets = append(targets, t)
	}
	if err := b.measure(ctx, targets...); err != nil {
		return err
	}
	with, without := targets[0], targets[1]
	b.addRatio(with, without, "rate with "+what+" to the rate without", goal)
	samples := make([]float64, len(with.slices))
	for i, s := range with.slices {
		samples[i] = s.brokerCPU() / without.slices[i].brokerCPU()
	}
	b.report.Add(report.Figure{Scenario: b.scenario, Name: "processor time an event, with to without", Unit: "×", Samples: samples})
	return nil
}
