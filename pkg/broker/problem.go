package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// problemBase begins the type of every problem; the reason's label follows.
const problemBase = "https://millrace.dev/problems/"

// retryAfter is the number of seconds after which a producer is asked to try again.
const retryAfter = "1"

// refusal is the decision not to accept a request.
type refusal struct {
	reason Reason
	detail string
	hint   string
	// attribute is the one at fault, index the position of the event in a batch, nil outside one.
	attribute string
	index     *int
	// cause is the store's error, if that is why.
	cause error
}

// problem is the document that tells the producer (RFC 9457, with three members of our own).
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Hint      string `json:"hint,omitempty"`
	Attribute string `json:"attribute,omitempty"`
	Index     *int   `json:"index,omitempty"`
}

// write answers a request with the refusal.
func (f *refusal) write(w http.ResponseWriter) {
	info := f.reason.info()
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	switch info.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", retryAfter)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", "POST, HEAD, OPTIONS")
	}
	w.WriteHeader(info.status)
	body := json.NewEncoder(w)
	body.SetEscapeHTML(false) // People read it in a terminal, and nobody in a page: the content type is not HTML.
	_ = body.Encode(problem{  // The producer has gone if it fails, and the status is what counts.
		Type: problemBase + info.label, Title: info.title, Status: info.status,
		Detail: f.detail, Hint: f.hint, Attribute: f.attribute, Index: f.index,
	})
}

// partStored names the attributes in the form they are stored in, which can be three times as long.
const partStored = "attributes, percent-encoded for the store,"

const sizeHint = "keep large data elsewhere and send a reference to it"

// refuseEvent turns what decoding, admission or the size check say about an event into a refusal.
func refuseEvent(err error) *refusal {
	f := &refusal{reason: InvalidEvent, detail: err.Error()}
	var size *event.SizeError
	if errors.As(err, &size) {
		f.reason = TooLarge
		f.hint = sizeHint
		if size.Part == partStored {
			f.hint = "shorten them: each byte of a space, quotation mark, percent sign or character beyond ASCII is stored as three"
		}
	}
	if errors.Is(err, event.ErrHopLimit) {
		f.reason = HopLimit
	}
	var bad *event.Error
	if errors.As(err, &bad) {
		f.attribute, f.detail, f.hint = bad.Attribute, bad.Detail, bad.Hint
		if bad.Attribute != "" {
			f.detail = bad.Attribute + " " + bad.Detail
		}
		f.atIndex(bad.Index)
	}
	return f
}

// atIndex records the position of the event in a batch; a negative one means there is no batch.
func (f *refusal) atIndex(i int) *refusal {
	if i >= 0 {
		f.index = &i
	}
	return f
}

// refuseStore turns an error of the store into a refusal. A client that has gone away is told apart because it is no
// fault of the store's.
func refuseStore(ctx context.Context, err error) *refusal {
	f := &refusal{cause: err}
	switch {
	case errors.Is(err, stream.ErrTooLarge):
		f.reason, f.detail, f.hint = TooLarge, "The event or batch is larger than the store accepts. Nothing was stored.", sizeHint
		if size := (*stream.SizeError)(nil); errors.As(err, &size) {
			f.detail = fmt.Sprintf("The event takes %d bytes in the store, and %s is %d. Nothing was stored.", size.Size, size.What, size.Limit)
		}
	case errors.Is(err, stream.ErrBusy):
		f.reason, f.detail = StoreBusy, "Too many events wait for the store. Nothing was stored: send it again."
	case errors.Is(err, stream.ErrFull):
		f.reason, f.detail = StoreFull, "The broker's store has no room. Nothing was stored: send it again later."
		f.hint = "a subscriber that is down or slow may hold events back"
	case errors.Is(err, stream.ErrNotSent):
		f.reason, f.detail = StoreUnavailable, "The store takes no events now. Nothing was stored: send it again later."
	case ctx.Err() != nil:
		f.reason, f.detail = ClientGone, "The request was canceled. The event may or may not be stored."
	default:
		f.reason, f.detail = StoreUnavailable, "The store did not confirm in time. The event may or may not be stored: send it again."
	}
	return f
}

// refuseSize says that a body exceeds its limit; size is negative if nobody knows how large it would have become.
func refuseSize(what string, size int64, limit int) *refusal {
	detail := fmt.Sprintf("The %s has more than the limit of %d bytes.", what, limit)
	if size >= 0 {
		detail = fmt.Sprintf("The %s has %d bytes, the limit is %d.", what, size, limit)
	}
	return &refusal{reason: TooLarge, detail: detail, hint: sizeHint}
}
