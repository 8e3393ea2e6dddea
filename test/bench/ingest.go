package main

import (
	"context"
	"errors"
	"fmt"

	"millrace.dev/test/bench/ledger"
	"millrace.dev/test/bench/load"
	"millrace.dev/test/bench/report"
	"millrace.dev/test/bench/rig"
)

// ingest has no filter, so that what is stored can be counted.
func (b *bench) ingest(ctx context.Context) (err error) {
	r, err := b.start(ctx, rig.Options{Manifests: []string{brokerManifest("binary", "")}, Ingresses: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	binary, done, err := stored(r, "binary")
	if err != nil {
		return err
	}
	defer done()
	bare, done, err := bareTarget(ctx, r, "binary")
	if err != nil {
		return err
	}
	defer done()
	structured := *binary
	structured.name, structured.book = "structured", ledger.New(0)
	structured.request = load.Structured("/default/binary", eventType, payload)
	if err := b.measure(ctx, bare, binary, &structured); err != nil {
		return err
	}
	b.addRate(bare, "bare handler", nil, nil)
	b.addRate(binary, "binary mode", nil, nil)
	b.addRatio(binary, bare, "binary mode to bare handler", report.AtLeast(0.9))
	b.addRate(&structured, "structured mode", nil, nil)
	b.addRatio(&structured, binary, "structured to binary mode", report.AtLeast(0.75))
	return nil
}

// stored is a target of events that only have to be stored by the Broker of a rig without filters. Call done in the end.
func stored(r *rig.Rig, broker string) (t *target, done func(), err error) {
	name, err := streamOf(r, broker)
	if err != nil {
		return nil, nil, err
	}
	s, err := openStore(r)
	if err != nil {
		return nil, nil, err
	}
	if t, err = newTarget(broker, 0, 0); err != nil {
		return nil, nil, err
	}
	t.on(r)
	t.settle = s.counted(name)
	return t, s.nc.Close, nil
}

// bareTarget is the bare handler, with a stream like that of the Broker. Call done in the end.
func bareTarget(ctx context.Context, r *rig.Rig, broker string) (t *target, done func(), err error) {
	name, err := streamOf(r, broker)
	if err != nil {
		return nil, nil, err
	}
	s, err := openStore(r)
	if err != nil {
		return nil, nil, err
	}
	if err = s.addBare(ctx, name); err == nil {
		err = r.StartBare(ctx, bareStream)
	}
	if err != nil {
		s.nc.Close()
		return nil, nil, err
	}
	if t, err = newTarget("bare", 0, 0); err != nil {
		return nil, nil, err
	}
	t.rig, t.hosts = r, []string{r.Bare}
	t.request = load.Binary("/bare", eventType, payload)
	t.settle = s.counted(bareStream)
	return t, s.nc.Close, nil
}

// counted returns a check that the stream has so many messages; it removes them.
func (s *store) counted(name string) func(context.Context, int64) error {
	return func(ctx context.Context, events int64) error {
		n, err := s.take(ctx, name)
		if err == nil && int64(n) != events {
			err = fmt.Errorf("of %d events that were accepted the stream has %d", events, n)
		}
		return err
	}
}
