// Package adminapi is the HTTP API by which people see what becomes of events, look at parked ones, redrive and purge them,
// and its client.
//
// Under /api/v1/brokers it has:
//
//	GET    /                                    the Brokers and how many events are parked for each
//	GET    /{namespace}/{broker}/parked         parked events, a page at a time
//	GET    /{namespace}/{broker}/parked/groups  counts by Trigger and cause
//	GET    /{namespace}/{broker}/parked/{seq}   one event with its data
//	POST   /{namespace}/{broker}/parked/redrive give events back to their Triggers
//	DELETE /{namespace}/{broker}/parked         remove events
//
// Under /api/v1 it has:
//
//	GET    /stats                               counts of Brokers and Triggers
//	GET    /journal/events?id=…                 what became of the events of an id
//	PUT    /triggers/{namespace}/{trigger}/paused  pause a Trigger, or resume it, while the process lives; dev mode only
//	GET    /replays, POST and DELETE below a Broker's /replays: replays of archived events
//	GET    /journal/tail                        records of the journal as they come, one JSON object a line
//
// What takes a while (groups, redrive, purge) answers with a stream of [Line] values, one JSON object a line. Mistakes
// are answered with a [Problem]. Requests that change something must carry the header Millrace-Admin and be JSON, which
// no page of another site can make a browser send without being asked first.
//
// What is not about one Broker takes the parameter namespace, and is about all namespaces without it.
//
// In a cluster an [Access] decides who is served. Without one the API asks nobody who they are. It is for the admin listener
// only, which is bound to loopback unless told otherwise.
package adminapi

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace.dev/internal/replay"
	"millrace.dev/pkg/journal"
	"millrace.dev/pkg/stream"
	"millrace.dev/pkg/trigger"
)

// Prefix is the path below which the API is to be served.
const Prefix = "/api/v1/"

// Reader reads parked events, and says what waits.
type Reader interface {
	StreamState(ctx context.Context, name string) (stream.State, error)
	ParkedState(ctx context.Context, n *stream.Names) (stream.ParkedState, error)
	ListParked(ctx context.Context, n *stream.Names, q stream.ParkedQuery) (stream.ParkedPage, error)
	GetParked(ctx context.Context, n *stream.Names, sequence uint64) (*stream.Parked, error)
	Waits(ctx context.Context, stream string, sequence uint64) (bool, error)
	Oldest(ctx context.Context, stream, subject string) (time.Time, error)
}

// Remover removes parked events.
type Remover interface {
	DeleteParked(ctx context.Context, n *stream.Names, sequence uint64) error
	PurgeParked(ctx context.Context, n *stream.Names, triggerUID string, until uint64) (uint64, error)
}

// Redriver hands a delivery back to its Trigger.
type Redriver interface {
	PublishRetry(ctx context.Context, to *stream.Names, triggerUID string, m stream.Message, at stream.Progress) (sequence uint64, err error)
}

// Catalog is the Brokers that exist at one moment, by namespace/name. It is not changed once it was handed out.
type Catalog map[string]*Broker

// hint says which Brokers there are.
func (c Catalog) hint() string { return listHint(slices.Sorted(maps.Keys(c))) }

// listHint says which things of a kind there are.
func listHint(names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return "nor any other; check the manifests"
	case len(names) > most:
		names = append(names[:most], "others")
	}
	return "there are " + strings.Join(names, ", ")
}

// Broker is a Broker and its Triggers.
type Broker struct {
	Names *stream.Names
	// URL is where events for it are posted to; empty if it is not this process that takes them.
	URL string
	// Triggers by UID, those that are not in effect included.
	Triggers map[string]Trigger
}

func (b *Broker) key() string { return b.Names.Namespace + "/" + b.Names.Name }

// Trigger is a Trigger that exists.
type Trigger struct {
	// Name is namespace/name.
	Name string
	// Ready says whether it is in effect, Reason why it is not. Events redriven to one that is not wait until it is.
	Ready  bool
	Reason string
	// Filter is nil if it is not in effect.
	Filter *trigger.Filter
}

// Options are what a Handler works with. All but Guard, Journal, Replays, Pauses, Counts, Logger and Now are required.
type Options struct {
	Reader   Reader
	Remover  Remover
	Redriver Redriver
	// Guard says who is served; the zero value has everybody served.
	Guard Guard
	// Journal is where records are read; nil if there is none.
	Journal journal.Store
	// Replays is where archives and replays are; nil if there are none.
	Replays replay.Store
	// Pauses pauses Triggers; nil where manifests alone say which are paused.
	Pauses Pauser
	// Counts returns what this process has done for each Trigger in effect; nil if that is not known.
	Counts func() []TriggerCounts
	// Catalog returns what exists now. It is called often.
	Catalog func() Catalog
	// Logger gets a record of each redrive and purge; default slog.Default().
	Logger *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Handler serves the API.
type Handler struct {
	opts  Options
	guard Guard
	mux   *http.ServeMux
	// guarded are the patterns of mux that ask who wants to be served.
	guarded map[string]bool

	stopping context.Context //nolint:containedctx // its end stops the operations under way, whosever they are
	stop     context.CancelCauseFunc
	mu       sync.Mutex // held while running grows, so that Stop misses none
	running  sync.WaitGroup
}

// New returns a Handler. It wants to be stopped with [Handler.Stop].
func New(o Options) *Handler {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	h := &Handler{opts: o, guard: o.Guard, mux: http.NewServeMux(), guarded: map[string]bool{everythingElse: true}}
	h.stopping, h.stop = context.WithCancelCause(context.Background())
	const parked = Prefix + "brokers/{namespace}/{broker}/parked"
	h.handle("GET "+Prefix+"brokers", listParked, h.listBrokers)
	h.handle("GET "+parked, listParked, h.ofBroker(h.listEvents))
	h.handle("GET "+parked+"/groups", listParked, h.ofBroker(h.listGroups))
	h.handle("GET "+parked+"/{sequence}", readParked, h.ofBroker(h.getEvent))
	h.handle("POST "+parked+"/redrive", redriveParked, h.ofBroker(h.postRedrive))
	h.handle("DELETE "+parked, purgeParked, h.ofBroker(h.deleteEvents))
	h.handle("GET "+Prefix+"stats", readStats, h.getStats)
	h.handle("GET "+Prefix+"journal/events", readJournal, h.getTrace)
	h.handle("GET "+Prefix+"journal/tail", watchJournal, h.tailJournal)
	h.handle("PUT "+Prefix+"triggers/{namespace}/{trigger}/paused", pauseTrigger, h.putPaused)
	h.handleReplays()
	h.mux.HandleFunc(everythingElse, func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problemf(http.StatusNotFound, "there is no %s %s", r.Method, r.URL.Path))
	})
	return h
}

// everythingElse is the pattern of what is not there, which everybody may be told.
const everythingElse = "/"

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := refuse(r); p != nil {
		writeProblem(w, p)
		return
	}
	if _, pattern := h.mux.Handler(r); h.guard.Access != nil && !h.guarded[pattern] {
		writeProblem(w, problemf(http.StatusForbidden, "nobody may %s %s: it is not known which right that needs", r.Method, r.URL.Path))
		return
	}
	h.mux.ServeHTTP(w, r)
}

var errStopping = errors.New("the process is stopping; what was not done is still parked: run it again")

// begin returns the context of an operation, which ends with the request and when the Handler stops, and the function
// that says that the operation has ended.
func (h *Handler) begin(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	h.mu.Lock()
	h.running.Add(1)
	h.mu.Unlock()
	release := context.AfterFunc(h.stopping, func() { cancel(errStopping) })
	return ctx, func() {
		release()
		cancel(nil)
		h.running.Done()
	}
}

// Stop ends redrives and purges under way, each after the events it has begun with, and waits for them until ctx ends.
// Their clients are told how far they came.
func (h *Handler) Stop(ctx context.Context) {
	h.stop(errStopping)
	done := make(chan struct{})
	go func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// ofBroker looks up the Broker of the path.
func (h *Handler) ofBroker(serve func(http.ResponseWriter, *http.Request, *Broker) *Problem) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("namespace") + "/" + r.PathValue("broker")
		catalog := h.opts.Catalog()
		b := catalog[name]
		if b == nil {
			writeProblem(w, problemf(http.StatusNotFound, "there is no Broker %s", name).hint(h.visible(catalog, r).hint()))
			return
		}
		if p := serve(w, r, b); p != nil {
			writeProblem(w, p)
		}
	}
}

// visible is what of the catalog may be told to who made the request: all, or the namespace that they were let into.
func (h *Handler) visible(catalog Catalog, r *http.Request) Catalog {
	if h.guard.Access == nil {
		return catalog
	}
	namespace := r.PathValue("namespace")
	visible := Catalog{}
	for name, b := range catalog {
		if inNamespace(name, namespace) {
			visible[name] = b
		}
	}
	return visible
}
