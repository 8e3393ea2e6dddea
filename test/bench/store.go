package main

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace.dev/internal/objects"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/bench/rig"
)

const bareStream = "bare"

// store looks into the streams of a rig.
type store struct {
	nc *nats.Conn
	js jetstream.JetStream
}

func openStore(r *rig.Rig) (*store, error) {
	nc, err := nats.Connect(r.NATSURL)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return &store{nc, js}, nil
}

// addBare makes a stream for the bare handler with the settings of the given one.
func (s *store) addBare(ctx context.Context, like string) error {
	st, err := s.js.Stream(ctx, like)
	if err != nil {
		return fmt.Errorf("look up the stream of events: %w", err)
	}
	config := st.CachedInfo().Config
	config.Name, config.Subjects, config.Metadata = bareStream, []string{bareStream}, nil
	if _, err := s.js.CreateStream(ctx, config); err != nil {
		return fmt.Errorf("make a stream for the bare handler: %w", err)
	}
	return nil
}

// take returns how many messages the stream has and removes them.
func (s *store) take(ctx context.Context, name string) (uint64, error) {
	st, err := s.js.Stream(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("look up the stream: %w", err)
	}
	if err := st.Purge(ctx); err != nil {
		return 0, fmt.Errorf("purge the stream: %w", err)
	}
	return st.CachedInfo().State.Msgs, nil
}

// streamOf is the stream of the events that the Broker of the rig accepted.
func streamOf(r *rig.Rig, broker string) (string, error) {
	set, err := objects.Load([]string{r.Manifests})
	if err != nil {
		return "", fmt.Errorf("load the manifests: %w", err)
	}
	for _, b := range set.Brokers {
		if b.Name == broker {
			return stream.NewNames(b.Namespace, b.Name, string(b.UID)).Events, nil
		}
	}
	return "", fmt.Errorf("no Broker %s", broker)
}
