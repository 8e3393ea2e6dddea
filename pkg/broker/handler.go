package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// Handler serves the ingress. It is ready for use once [Handler.SetTable] was called; until then it answers 503, because
// a 404 would make producers give up on Brokers that exist.
//
// The server it runs in should have a ReadTimeout, which bounds how long a slow body holds its share of the window.
type Handler struct {
	store    Store
	opts     Options
	router   chi.Router
	table    atomic.Pointer[served]
	buffers  bufferPool
	inFlight window
	counters counters
	unknown  brokerCounters // of requests for no Broker that there is
	warnings throttle
}

// NewHandler returns the ingress in front of store.
func NewHandler(store Store, opts Options) *Handler {
	opts = opts.withDefaults()
	h := &Handler{store: store, opts: opts, router: chi.NewRouter()}
	h.inFlight.maxRequests, h.inFlight.maxBytes = opts.MaxInFlightRequests, opts.MaxInFlightBytes
	const path = "/{namespace}/{broker}"
	h.router.Post(path, h.serve(h.post))
	h.router.Head(path, h.serve(h.head))
	h.router.Options(path, h.serve(h.options))
	h.router.NotFound(h.notFound)
	h.router.MethodNotAllowed(h.methodNotAllowed)
	return h
}

// SetTable replaces the Brokers. Requests under way finish with those they began with.
func (h *Handler) SetTable(t *Table) { h.table.Store(newServed(t, h.table.Load())) }

// Loaded says whether the handler has a Table: an ingress that has none is not ready.
func (h *Handler) Loaded() bool { return h.table.Load() != nil }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.router.ServeHTTP(w, r) }

// serve wraps what is to be done for a known Broker.
func (h *Handler) serve(do func(http.ResponseWriter, *http.Request, *Broker) *refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		begin := h.opts.Now()
		b, refused := h.lookup(chi.URLParam(r, "namespace"), chi.URLParam(r, "broker"))
		if refused == nil {
			refused = do(w, r, b)
		}
		if refused != nil {
			h.refuse(w, r, b, refused)
			if b == nil && r.Method == http.MethodPost {
				h.tell(nil, r, begin, nil, refused)
			}
		}
	}
}

func (h *Handler) lookup(namespace, name string) (*Broker, *refusal) {
	if namespace == "" || name == "" {
		return nil, badPath()
	}
	served := h.table.Load()
	if served == nil {
		return nil, &refusal{reason: NotLoaded, detail: "The brokers are not loaded yet: send it again."}
	}
	if b := served.table.Lookup(namespace, name); b != nil {
		return b, nil
	}
	return nil, &refusal{
		reason: UnknownBroker,
		detail: fmt.Sprintf("There is no broker %s in namespace %s.", quote(name), quote(namespace)),
		hint:   "check the path, and that the Broker is Ready",
	}
}

// quote makes a path segment fit to be shown.
func quote(s string) string { return strconv.QuoteToASCII(s[:min(len(s), 63)]) }

func badPath() *refusal {
	return &refusal{reason: BadPath, detail: "The path must be /<namespace>/<broker>."}
}

func (h *Handler) notFound(w http.ResponseWriter, r *http.Request) {
	f := badPath()
	if r.URL.Path == "/" || r.URL.Path == "" {
		f.reason = UnknownBroker
	}
	h.refuse(w, r, nil, f)
}

func (h *Handler) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	h.refuse(w, r, nil, &refusal{reason: MethodNotAllowed, detail: "Send events with POST."})
}

func (h *Handler) head(w http.ResponseWriter, _ *http.Request, _ *Broker) *refusal {
	w.WriteHeader(http.StatusOK)
	return nil
}

// options answers the handshake of the CloudEvents webhook specification, section 4.
func (h *Handler) options(w http.ResponseWriter, _ *http.Request, _ *Broker) *refusal {
	header := w.Header()
	header.Set("Allow", "POST, OPTIONS")
	header.Set("WebHook-Allowed-Origin", "*")
	header.Set("WebHook-Allowed-Rate", "*")
	w.WriteHeader(http.StatusOK)
	return nil
}

func (h *Handler) post(w http.ResponseWriter, r *http.Request, b *Broker) *refusal {
	begin := h.opts.Now()
	msgs, refused := h.take(r, b, begin)
	h.tell(b, r, begin, msgs, refused)
	if refused == nil {
		w.WriteHeader(http.StatusAccepted)
	}
	return refused
}

// take stores the events of a request. It returns them with a refusal too, as far as they could be read.
func (h *Handler) take(r *http.Request, b *Broker, begin time.Time) ([]stream.Message, *refusal) {
	mode := event.DetectMode(r.Header.Get("Content-Type"))
	if refused := checkEncoding(mode, r.Header); refused != nil {
		return nil, refused
	}
	what, limit := h.bodyLimit(mode, h.maxData(b))
	if r.ContentLength > int64(limit) {
		return nil, refuseSize(what, r.ContentLength, limit)
	}
	room, ok := h.inFlight.enter(max(r.ContentLength, minBuffer))
	if !ok {
		return nil, overload()
	}
	defer room.end()

	buf := h.buffers.get()
	if err := readBody(r, buf, limit, room); err != nil {
		h.buffers.put(buf)
		return nil, refuseRead(err, what, limit)
	}
	msgs, refused := h.admit(mode, r.Header, *buf, b)
	if refused == nil {
		spans := h.trace(b, begin, msgs)
		refused = h.publish(r.Context(), b, msgs)
		endAll(spans, refused)
	}
	if refused == nil || refused.cause == nil { // A store that failed may not be done with the data.
		h.buffers.put(buf)
	}
	return msgs, refused
}

// maxData returns how many bytes of data an event for b may have.
func (h *Handler) maxData(b *Broker) int {
	if b.MaxEventBytes > 0 {
		return b.MaxEventBytes
	}
	return h.opts.MaxEventBytes
}

func checkEncoding(mode event.Mode, header http.Header) *refusal {
	if mode == event.ModeUnsupported {
		return &refusal{
			reason: UnsupportedMedia, detail: "The only event format supported is JSON.",
			hint: "send " + event.ContentTypeJSON + ", or the attributes as ce- headers",
		}
	}
	if enc := header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return &refusal{
			reason: UnsupportedMedia, detail: "The body has a Content-Encoding.",
			hint: "send the body uncompressed, without a Content-Encoding header",
		}
	}
	return nil
}

// admit returns the messages to store for the events of a request, and those that it refuses as far as they can be told of.
func (h *Handler) admit(mode event.Mode, header http.Header, body []byte, b *Broker) ([]stream.Message, *refusal) {
	if mode == event.ModeBatch {
		return h.admitBatch(header, body, b)
	}
	e, err := decode(mode, header, body)
	if err != nil {
		return nil, refuseEvent(err)
	}
	msgs := []stream.Message{b.message(e)}
	if err := h.check(e, b); err != nil {
		return msgs, refuseEvent(err)
	}
	return msgs, nil
}

func decode(mode event.Mode, header http.Header, body []byte) (*event.Event, error) {
	if mode == event.ModeBinary {
		return event.DecodeBinary(header, body)
	}
	e, err := event.DecodeJSON(body)
	if err != nil {
		return nil, err
	}
	e.Headers = event.PassOn(header)
	return e, nil
}

func (h *Handler) admitBatch(header http.Header, body []byte, b *Broker) ([]stream.Message, *refusal) {
	events, err := event.DecodeJSONBatch(body)
	if err != nil {
		return nil, refuseEvent(err)
	}
	if len(events) > stream.MaxBatch {
		return nil, &refusal{
			reason: TooLarge, detail: fmt.Sprintf("The batch has %d events, the limit is %d.", len(events), stream.MaxBatch),
			hint: "send several batches",
		}
	}
	passOn := event.PassOn(header)
	msgs := make([]stream.Message, len(events))
	for i, e := range events {
		e.Headers = passOn
		msgs[i] = b.message(e)
		if err := h.check(e, b); err != nil {
			return msgs[:i+1], refuseEvent(err).atIndex(i)
		}
	}
	return msgs, nil
}

// check holds an event to the size limits and admits it.
func (h *Handler) check(e *event.Event, b *Broker) error {
	if err := e.CheckSize(event.Limits{Data: h.maxData(b), Attributes: h.opts.MaxAttributeBytes}); err != nil {
		return err
	}
	if err := event.Admit(e, h.opts.Now()); err != nil {
		return err
	}
	if n := stream.HeaderBytes(e); n > stream.MaxHeaderBytes {
		return &event.SizeError{Part: partStored, Size: n, Limit: stream.MaxHeaderBytes}
	}
	return nil
}

// publish stores the messages and counts them. An empty batch holds nothing to store and is accepted.
func (h *Handler) publish(ctx context.Context, b *Broker, msgs []stream.Message) *refusal {
	if len(msgs) > 0 {
		begin := h.opts.Now()
		err := h.store.Publish(ctx, b.Names, msgs...)
		counts, refused, reason := h.table.Load().counters(b), (*refusal)(nil), ""
		if err != nil {
			refused = refuseStore(ctx, err)
			reason = refused.reason.String()
		}
		if now := h.opts.Now(); !h.opts.NoLatencies {
			counts.publish.Of(0, reason).Observe(now.Sub(begin), now, msgs[0].Event)
		}
		if refused != nil {
			return refused
		}
		counts.events.Add(uint64(len(msgs)))
	}
	bytes := 0
	for i := range msgs {
		bytes += len(msgs[i].Event.Data)
	}
	h.counters.accepted(len(msgs), bytes)
	return nil
}

// refuse answers, counts and, if it was the store's doing, logs a refusal. b is nil if no Broker was found.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, b *Broker, f *refusal) {
	h.counters.refused[f.reason].Add(1)
	if f.cause != nil && f.reason != ClientGone {
		h.warn(r.Context(), b, f)
	}
	f.write(w)
}

func (h *Handler) warn(ctx context.Context, b *Broker, f *refusal) {
	suppressed, ok := h.warnings.allow(h.opts.Now())
	if !ok {
		return
	}
	h.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "store refused events",
		slog.String("namespace", b.Names.Namespace),
		slog.String("broker", b.Names.Name),
		slog.String("reason", f.reason.String()),
		slog.Any("error", f.cause),
		slog.Uint64("suppressed", suppressed))
}

// throttle lets one record a second through and counts the others.
type throttle struct {
	last       atomic.Int64 // Unix nanoseconds of the last record
	suppressed atomic.Uint64
}

// allow says whether a record may be written now, and how many were not since the last.
func (t *throttle) allow(now time.Time) (suppressed uint64, ok bool) {
	last := t.last.Load()
	if now.UnixNano()-last < int64(time.Second) || !t.last.CompareAndSwap(last, now.UnixNano()) {
		t.suppressed.Add(1)
		return 0, false
	}
	return t.suppressed.Swap(0), true
}
