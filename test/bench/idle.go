package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"millrace.dev/test/bench/load"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

const (
	idleTriggers = 1000
	mebibyte     = 1 << 20
)

// idle reads memory as the kernel counts it, without any help to the garbage collector.
func (b *bench) idle(ctx context.Context) (err error) {
	manifests := []string{brokerManifest("idle", "")}
	for i := range idleTriggers {
		manifests = append(manifests, triggerManifest("idle", fmt.Sprintf("t%d", i), "http://127.0.0.1:9/", exactType(fmt.Sprintf("type%d", i))))
	}
	r, err := b.start(ctx, rig.Options{Filters: 1, Manifests: manifests})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	time.Sleep(b.settle)
	rss, err := r.RSS()
	if err != nil {
		return err
	}
	b.report.Add(report.Figure{
		Scenario: b.scenario, Name: fmt.Sprintf("memory of broker-filter with %s Triggers", report.Count(idleTriggers)), Unit: "MiB",
		Samples: []float64{float64(rss["filter"]) / mebibyte}, Goal: report.AtMost(60),
	})
	b.say("%.1f MiB", float64(rss["filter"])/mebibyte)
	return nil
}

// dev starts `millrace dev` on an empty store, as often as there are rounds.
func (b *bench) dev(ctx context.Context) error {
	start := report.Figure{Scenario: b.scenario, Name: "from the start of millrace dev to the first event delivered", Unit: "s", Goal: report.AtMost(1)}
	memory := report.Figure{Scenario: b.scenario, Name: "memory of idle millrace dev", Unit: "MiB", Goal: report.AtMost(80)}
	for range b.rounds {
		took, rss, err := b.devOnce(ctx)
		if err != nil {
			return err
		}
		b.say("first event after %.2f s, %.1f MiB", took.Seconds(), float64(rss)/mebibyte)
		start.Samples = append(start.Samples, took.Seconds())
		memory.Samples = append(memory.Samples, float64(rss)/mebibyte)
	}
	b.report.Add(start)
	b.report.Add(memory)
	return nil
}

func (b *bench) devOnce(ctx context.Context) (took time.Duration, rss int, err error) {
	dir, err := os.MkdirTemp("", "millrace-bench-dev-")
	if err != nil {
		return 0, 0, fmt.Errorf("make a folder for the store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	t, err := newTarget("dev", 1, 0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, b.close(t)) }()
	manifests := filepath.Join(dir, "manifests")
	if err := rig.WriteManifests(manifests, []string{brokerManifest("dev", ""), triggerManifest("dev", "dev", t.sink.URL(0), "")}); err != nil {
		return 0, 0, err
	}
	host, err := rig.FreeAddress()
	if err != nil {
		return 0, 0, err
	}
	t.book.Begin(0)
	began := time.Now()
	p, err := rig.Start("dev", filepath.Join(b.bin, "millrace"), "dev", "-f", manifests, "--listen", host, "--admin", "127.0.0.1:0",
		"--data", filepath.Join(dir, "data"))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if err := t.postFirst(ctx, host); err != nil {
		return 0, 0, err
	}
	if err := t.book.Await(drainPatience); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	time.Sleep(b.settle)
	rss, err = p.RSS()
	return took, rss, err
}

// postFirst posts one event as soon as the host takes it.
func (t *target) postFirst(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	seq := t.book.Send(time.Now())
	for {
		err := postOnce(host, t.request, seq)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no event was taken: %w", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func postOnce(host string, r load.Request, seq uint64) error {
	c, err := load.Dial(host, r)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Post(seq)
	return err
}
