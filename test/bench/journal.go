package main

import (
	"context"
	"errors"
	"fmt"

	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

// journal compares two sets of programs that differ in one flag. They take turns, so the one that is left alone costs next to
// nothing.
func (b *bench) journal(ctx context.Context) (err error) {
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
		r, err := b.start(ctx, rig.Options{
			Ingresses: 1, Filters: 1, Args: []string{fmt.Sprintf("--journal=%t", kept)},
			Manifests: []string{brokerManifest(name, ""), triggerManifest(name, name, t.sink.URL(0), "")},
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
	b.addRatio(with, without, "rate with a journal to the rate without", report.AtLeast(0.98))
	samples := make([]float64, len(with.slices))
	for i, s := range with.slices {
		samples[i] = s.brokerCPU() / without.slices[i].brokerCPU()
	}
	b.report.Add(report.Figure{Scenario: b.scenario, Name: "processor time an event, with to without", Unit: "×", Samples: samples})
	return nil
}
