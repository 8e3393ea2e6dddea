package broker

import (
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"millrace.dev/pkg/event"
)

// attributeRoom is what a JSON document may have beyond its data.
const attributeRoom = 256 << 10

// maxPooled is the size of the largest buffer kept for reuse. Larger ones are rare and would pin memory.
const maxPooled = 1 << 20

// minBuffer is the size that a new buffer has at least, and the room that a body of unknown length gets to begin with.
const minBuffer = 4 << 10

// maxClaim is how much of a Content-Length is believed before the bytes have come: a few senders that announce large
// bodies and do not send them must neither take up the room of all others nor any memory.
const maxClaim = 64 << 10

// Why readBody gives up on a body.
var (
	errTooLong = errors.New("body exceeds its limit")
	errNoRoom  = errors.New("no room for the body")
)

// bufferPool lends memory for bodies.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (p *bufferPool) put(b *[]byte) {
	if cap(*b) <= maxPooled {
		p.pool.Put(b)
	}
}

// readBody reads r's body into buf, growing it as needed, up to limit bytes, within what room it can get.
func readBody(r *http.Request, buf *[]byte, limit int, room *lease) error {
	b := (*buf)[:0]
	if n := min(max(int(r.ContentLength), minBuffer), maxClaim); n >= cap(b) {
		b = make([]byte, 0, n+1) // One more byte, so that the read which finds the end need not grow it.
	}
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, growth(len(b), r.ContentLength))
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		*buf = b
		switch {
		case len(b) > limit:
			return errTooLong
		case !room.cover(int64(len(b))):
			return errNoRoom
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// growth returns by how much to enlarge a full buffer of n bytes: twofold, but no further than the end that is announced.
func growth(n int, contentLength int64) int {
	if rest := contentLength + 1 - int64(n); rest > 0 {
		return int(min(int64(n), rest))
	}
	return n
}

// refuseRead turns an error of readBody into a refusal.
func refuseRead(err error, what string, limit int) *refusal {
	switch {
	case errors.Is(err, errTooLong):
		return refuseSize(what, -1, limit)
	case errors.Is(err, errNoRoom):
		return overload()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{reason: SlowBody, detail: "The body did not arrive in time."}
	default:
		return &refusal{reason: BadBody, detail: "The body ended early or is malformed."}
	}
}

// bodyLimit returns the name and the limit of the body in a mode, where one event may have maxData bytes of data. A JSON
// document may be larger than its data by the attributes and by escaping; the data is checked again once it is decoded.
func (h *Handler) bodyLimit(mode event.Mode, maxData int) (what string, limit int) {
	document := 2*maxData + attributeRoom
	switch mode {
	case event.ModeBatch:
		return "batch", max(h.opts.MaxBatchBytes, document)
	case event.ModeStructured:
		return "JSON event", document
	default:
		return "event's data", maxData
	}
}

// window counts the requests being served and their bytes.
type window struct {
	requests, bytes       atomic.Int64
	maxRequests, maxBytes int64
}

// enter takes room for a request of n bytes, [maxClaim] of them to begin with, or reports that there is none.
func (w *window) enter(n int64) (*lease, bool) {
	n = min(n, maxClaim)
	l := &lease{window: w, bytes: n}
	if w.requests.Add(1) > w.maxRequests {
		w.bytes.Add(n)
		l.end()
		return nil, false
	}
	if w.bytes.Add(n); w.exceeded() {
		l.end()
		return nil, false
	}
	return l, true
}

// exceeded says whether the requests hold too many bytes. One that is alone never does: it could not be served at all.
func (w *window) exceeded() bool { return w.bytes.Load() > w.maxBytes && w.requests.Load() > 1 }

// lease is one request's part of a window.
type lease struct {
	window *window
	bytes  int64
}

// cover makes sure that the lease is for at least n bytes, doubling it if not, and reports whether there was room.
func (l *lease) cover(n int64) bool {
	if n <= l.bytes {
		return true
	}
	more := max(n, 2*l.bytes) - l.bytes
	l.bytes += more
	l.window.bytes.Add(more)
	return !l.window.exceeded()
}

// end gives the room back.
func (l *lease) end() {
	l.window.bytes.Add(-l.bytes)
	l.window.requests.Add(-1)
}

func overload() *refusal {
	return &refusal{reason: Overload, detail: "Too many events are being accepted at once: send it again."}
}
