package controller

import (
	"context"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/stream"
)

// sweepEvery is how often streams are looked for that no Broker wants.
const sweepEvery = time.Minute

// sweeper deletes the streams of Brokers that are gone. Only the leader does.
type sweeper struct {
	live  client.Reader // not the cache: what is deleted does not come back
	conn  *stream.Conn
	grace time.Duration
	log   *slog.Logger
}

// Start sweeps until ctx ends.
func (s *sweeper) Start(ctx context.Context) error {
	tick := time.NewTicker(min(sweepEvery, s.grace))
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "cannot look for streams that no broker wants; trying again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *sweeper) sweep(ctx context.Context) error {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(eventingv1.GroupVersion().WithKind(eventingv1.KindBroker + "List"))
	if err := s.live.List(ctx, list); err != nil {
		return err
	}
	var keep []*stream.Names
	for i := range list.Items {
		b := &list.Items[i]
		keep = append(keep, stream.NewNames(b.Namespace, b.Name, string(b.UID)))
	}
	deleted, err := s.conn.Sweep(ctx, keep, s.grace)
	for _, name := range deleted {
		s.log.InfoContext(ctx, "deleted a stream that no broker wants", slog.String("stream", name))
	}
	return err
}
