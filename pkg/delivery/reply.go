package delivery

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"millrace.dev/pkg/event"
)

const (
	// hopLimitHeader is event.HopLimit in binary mode.
	hopLimitHeader = "Ce-Knativebrokerttl"

	// maxBody is how much is kept of the body of an answer that is no 2xx.
	maxBody = 1024
	// maxDrain and drainTime bound what is read of a body that nobody wants, so that the connection can be used again.
	// A longer or slower one costs the connection.
	maxDrain  = 64 << 10
	drainTime = time.Second
	// maxAttributeBytes bounds the attributes of a reply in all. It is the ingress's.
	maxAttributeBytes = 64 << 10
)

// answer is a subscriber's answer that is being read.
type answer struct {
	sender   *Sender
	request  *Request
	response *http.Response
	// cancel ends the attempt.
	cancel func()
}

func (a *answer) read() Result {
	result := Result{Status: a.response.StatusCode}
	if result.Status/100 != 2 {
		result.RetryAfter = retryAfter(result.Status, a.response.Header, time.Now())
		result.Body = a.drain(maxBody)
		return result
	}
	claim := a.claim()
	result.Ignored = a.ignore(claim)
	if result.Ignored == IgnoredNothing {
		a.reply(claim, &result)
		return result
	}
	if seen := a.drain(1); len(seen) == 0 && result.Ignored == IgnoredNotEvent {
		result.Ignored = IgnoredNothing
	}
	return result
}

// claim is what kind of event the headers of an answer say it is.
type claim uint8

const (
	claimNone claim = iota
	claimBinary
	claimStructured
	claimUnsupported
)

func (a *answer) claim() claim {
	h := a.response.Header
	switch event.DetectMode(h.Get("Content-Type")) {
	case event.ModeStructured:
		return claimStructured
	case event.ModeBatch, event.ModeUnsupported:
		return claimUnsupported
	default:
		if len(h["Ce-Specversion"]) > 0 {
			return claimBinary
		}
		return claimNone
	}
}

// ignore says why the body of a 2xx is not even looked at.
func (a *answer) ignore(c claim) Ignored {
	switch {
	case c == claimNone:
		return IgnoredNotEvent
	case a.request.NoReply:
		return IgnoredUnwanted
	case a.response.StatusCode != http.StatusOK:
		return IgnoredStatus
	case c == claimUnsupported:
		return IgnoredFormat
	default:
		return IgnoredNothing
	}
}

// reply reads an event into result.
func (a *answer) reply(c claim, result *Result) {
	limit := a.sender.maxReply
	if c == claimStructured {
		// Data in base64 takes a third more; escapes and names may take as much again as the attributes.
		limit += limit/3 + 2*maxAttributeBytes
	}
	data, err := a.readBody(limit)
	if err != nil {
		result.Err = fmt.Errorf("read reply: %w", err)
		return
	}
	reply, err := decode(c, a.response.Header, data)
	switch {
	case c == claimStructured && len(data) == 0:
	case err != nil:
		result.Ignored, result.IgnoredErr = IgnoredInvalid, err
	case reply.CheckSize(event.Limits{Data: a.sender.maxReply, Attributes: maxAttributeBytes}) != nil:
		result.Err = a.tooLarge()
	default:
		giveHopLimit(reply, a.request.Event)
		result.Reply = reply
	}
}

func decode(c claim, h http.Header, data []byte) (*event.Event, error) {
	if c != claimStructured {
		return event.DecodeBinary(h, data)
	}
	e, err := event.DecodeJSON(data)
	if err != nil {
		return nil, err
	}
	e.Headers = event.PassOn(h)
	return e, nil
}

// readBody reads the body to its end. It trusts a Content-Length no further than a small buffer.
func (a *answer) readBody(limit int) ([]byte, error) {
	n := a.response.ContentLength
	if n > int64(limit) {
		return nil, a.tooLarge()
	}
	if n >= 0 && n <= maxDrain {
		data := make([]byte, n)
		_, err := io.ReadFull(a.response.Body, data)
		return data, err
	}
	data, err := io.ReadAll(io.LimitReader(a.response.Body, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = a.tooLarge()
	}
	return data, err
}

func (a *answer) tooLarge() error {
	return fmt.Errorf("%w: the limits are %d bytes of data and %d bytes of attributes",
		ErrReplyTooLarge, a.sender.maxReply, maxAttributeBytes)
}

// drain reads what is left of the body, within bounds, and returns its first bytes, at most keep. What goes wrong does not
// matter: the status has said what there is to say.
func (a *answer) drain(keep int64) []byte {
	if a.response.Body == http.NoBody {
		return nil
	}
	defer time.AfterFunc(drainTime, a.cancel).Stop()
	first, err := io.ReadAll(io.LimitReader(a.response.Body, keep))
	if err == nil {
		_, _ = io.CopyN(io.Discard, a.response.Body, maxDrain)
	}
	return first
}

// giveHopLimit gives a reply the hop limit that the event it answers was stored with, whatever the subscriber says: it
// has not seen it, and could make a loop without end.
func giveHopLimit(reply, request *event.Event) {
	reply.Remove(event.HopLimit)
	if limit := request.Lookup(event.HopLimit); limit != nil {
		reply.Attributes = append(reply.Attributes, *limit)
	}
}

// withoutHopLimit returns e without its hop limit, without changing e.
func withoutHopLimit(e *event.Event) *event.Event {
	if e.Lookup(event.HopLimit) == nil {
		return e
	}
	c := e.Clone()
	c.Remove(event.HopLimit)
	return c
}
