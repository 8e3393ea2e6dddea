package app

import (
	"log/slog"
	"sync/atomic"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/stream"
)

// parked serves the admin API for parked events.
type parked struct {
	*adminapi.Handler
	catalog atomic.Pointer[adminapi.Catalog]
}

// newParked returns the API on a Publisher of its own, so that a redrive of many events does not fill the window of
// those that are being delivered.
func newParked(conn *stream.Conn, log *slog.Logger) *parked {
	p := &parked{}
	p.catalog.Store(&adminapi.Catalog{})
	p.Handler = adminapi.New(adminapi.Options{
		Reader: conn, Remover: conn, Redriver: stream.NewPublisher(conn, 0), Logger: log,
		Catalog: func() adminapi.Catalog { return *p.catalog.Load() },
	})
	return p
}

func (p *parked) apply(set *objects.Set, m *model) {
	c := newCatalog(set, m)
	p.catalog.Store(&c)
}

// newCatalog returns the Brokers of m and all Triggers of theirs in set, those that are not in effect included.
func newCatalog(set *objects.Set, m *model) adminapi.Catalog {
	catalog := make(adminapi.Catalog, len(m.brokers))
	inEffect := map[string]bool{}
	for _, b := range m.brokers {
		catalog[b.key()] = &adminapi.Broker{Names: b.names, Triggers: map[string]adminapi.Trigger{}}
		for _, t := range b.dispatch.Triggers {
			inEffect[t.UID] = true
		}
	}
	for _, t := range set.Triggers {
		if b := catalog[t.Namespace+"/"+t.Spec.Broker]; b != nil {
			b.Triggers[string(t.UID)] = adminapi.Trigger{Name: t.Namespace + "/" + t.Name, Ready: inEffect[string(t.UID)]}
		}
	}
	return catalog
}
