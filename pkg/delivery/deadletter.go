package delivery

import (
	"encoding/base64"
	"net/url"
	"strconv"

	"millrace.dev/pkg/event"
)

// The extensions of a dead letter. The first three are Knative's, the others Millrace's.
const (
	// ErrorDest is the URL that the event could not be delivered to.
	ErrorDest = "knativeerrordest"
	// ErrorCode is the status code of the last attempt, 500 if there was no usable answer.
	ErrorCode = "knativeerrorcode"
	// ErrorData is the base64 of the beginning of the last answer's body, or of the error if there was no answer.
	ErrorData = "knativeerrordata"
	// ErrorAttempts is the number of attempts made.
	ErrorAttempts = "knativeerrorattempts"
	// ErrorTrigger is namespace/name of the Trigger whose delivery failed.
	ErrorTrigger = "knativeerrortrigger"
)

// errorDataBytes is how much of a body ErrorData reports: the attribute's text is to have at most 1024 characters, and
// base64 makes four of three bytes. Cutting the bytes keeps the text decodable.
const errorDataBytes = 1024 / 4 * 3

// Failure says how the delivery of an event failed.
type Failure struct {
	// URL is the subscriber's.
	URL *url.URL
	// Result is that of the last attempt.
	Result Result
	// Attempts is the number of attempts made.
	Attempts int
	// Trigger is namespace/name of the Trigger; empty if it was none's.
	Trigger string
}

// DeadLetter returns the event that the dead letter sink gets in place of e: e with the extensions that say what went
// wrong. Those of an earlier failure, which an event has that was sent on by a dead letter sink, are replaced. e is not
// changed, and the result shares its Data.
//
// [ErrorDest] is the exact URL, except that a password in it is masked. [ErrorData] has at most 1024 characters, that is
// the first 768 bytes; it is absent if there is nothing to report.
func DeadLetter(e *event.Event, f Failure) *event.Event {
	d := e.Clone()
	d.Remove(ErrorDest)
	if f.URL != nil {
		d.Set(ErrorDest, f.URL.Redacted(), event.String)
	}
	d.Set(ErrorCode, strconv.Itoa(f.Result.Code()), event.Integer)
	d.Remove(ErrorData)
	if data := f.data(); len(data) > 0 {
		d.Set(ErrorData, base64.StdEncoding.EncodeToString(data), event.String)
	}
	d.Set(ErrorAttempts, strconv.Itoa(f.Attempts), event.Integer)
	d.Remove(ErrorTrigger)
	if f.Trigger != "" {
		d.Set(ErrorTrigger, f.Trigger, event.String)
	}
	return d
}

func (f *Failure) data() []byte {
	data := f.Result.Body
	if f.Result.Err != nil {
		data = []byte(f.Result.Err.Error())
	}
	return data[:min(len(data), errorDataBytes)]
}
