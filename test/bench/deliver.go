package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

const (
	slowSubscriber = 20 * time.Millisecond
	latencyRate    = 1000
	fanOutTriggers = 100
	fanOutWindow   = 8 // events, each of which is fanOutTriggers deliveries
)

// Goals in events a second and in microseconds, and what the bare handler did where they were set: on a slower machine the ratio of the
// two is the goal.
const (
	quickRate, slowRate = 12_000, 4500 // events a second
	eventCPU            = 100          // µs
	deliveryCPU         = 45           // µs
	bareRate, bareCPU   = 35_700, 28.
)

func (b *bench) deliver(ctx context.Context) (err error) {
	quick, err := newTarget("quick", 1, 0)
	if err != nil {
		return err
	}
	slow, err := newTarget("slow", 1, slowSubscriber)
	if err != nil {
		return err
	}
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: []string{
		brokerManifest("quick", ""), triggerManifest("quick", "quick", quick.sink.URL(0), ""),
		brokerManifest("slow", ""), triggerManifest("slow", "slow", slow.sink.URL(0), ""),
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	quick.on(r)
	slow.on(r)
	bare, done, err := bareTarget(ctx, r, "quick")
	if err != nil {
		return err
	}
	defer done()
	if err := b.measure(ctx, bare, quick, slow); err != nil {
		return err
	}
	b.addRate(quick, "subscriber of 0 ms", report.AtLeast(quickRate), report.AtMost(eventCPU))
	b.addRatio(quick, bare, "subscriber of 0 ms to posting to the bare handler", report.AtLeast(quickRate/float64(bareRate)))
	b.addRatioOf(quick, bare, "subscriber of 0 ms to posting to the bare handler, processor time an event", report.AtMost(eventCPU/bareCPU), slice.brokerCPU)
	b.addRate(slow, "subscriber of 20 ms", report.AtLeast(slowRate), nil)
	b.addRatio(slow, bare, "subscriber of 20 ms to posting to the bare handler", report.AtLeast(slowRate/float64(bareRate)))
	return nil
}

func (b *bench) latency(ctx context.Context) (err error) {
	t, err := newTarget("steady", 1, 0)
	if err != nil {
		return err
	}
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: []string{
		brokerManifest("steady", ""), triggerManifest("steady", "steady", t.sink.URL(0), ""),
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t.on(r)
	t.rate, t.window = latencyRate, 0
	if err := b.measure(ctx, t); err != nil {
		return err
	}
	b.add(t, "median", "ms", report.AtMost(1), func(s slice) float64 { return s.quantile(50) })
	b.add(t, "p99", "ms", report.AtMost(5), func(s slice) float64 { return s.quantile(99) })
	b.add(t, "p99.9", "ms", nil, func(s slice) float64 { return s.quantile(99.9) })
	b.add(t, "processor time an event", "µs", nil, slice.brokerCPU)
	return nil
}

func (b *bench) fanOut(ctx context.Context) (err error) {
	t, err := newTarget("fanout", fanOutTriggers, 0)
	if err != nil {
		return err
	}
	manifests := []string{brokerManifest("fanout", "")}
	for i := range fanOutTriggers {
		manifests = append(manifests, triggerManifest("fanout", fmt.Sprintf("t%d", i), t.sink.URL(i), exactType(eventType)))
	}
	r, err := b.start(ctx, rig.Options{Ingresses: 1, Filters: 1, Manifests: manifests})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t.on(r)
	t.window = fanOutWindow
	bare, done, err := bareTarget(ctx, r, "fanout")
	if err != nil {
		return err
	}
	defer done()
	if err := b.measure(ctx, bare, t); err != nil {
		return err
	}
	b.add(t, "deliveries", "/s", nil, func(s slice) float64 { return s.rate * s.each })
	cpu := func(s slice) float64 { return s.brokerCPU() / max(s.each, 1) }
	b.add(t, "processor time a delivery", "µs", report.AtMost(deliveryCPU), cpu)
	b.addRatioOf(t, bare, "processor time a delivery to that of posting to the bare handler", report.AtMost(deliveryCPU/bareCPU), cpu)
	return nil
}
