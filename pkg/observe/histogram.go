package observe

import (
	"slices"
	"sync/atomic"
	"time"

	"millrace.dev/pkg/event"
)

// bounds are the upper bounds of a Histogram's buckets: those that OpenTelemetry's semantic conventions recommend for HTTP, which
// are Knative's too, and some below and above, since a delivery within a cluster takes less and one to a subscriber that was down more.
var bounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 75 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 7500 * time.Millisecond, 10 * time.Second,
	time.Minute, 10 * time.Minute,
}

// Bounds returns the upper bounds of the buckets in seconds; the last bucket has none.
func Bounds() []float64 {
	seconds := make([]float64, len(bounds))
	for i, b := range bounds {
		seconds[i] = b.Seconds()
	}
	return seconds
}

// exemplarEvery is how long a bucket keeps an exemplar at least, so that looking for one costs most events nothing.
const exemplarEvery = time.Second

// Histogram counts durations, without locks and allocations but for exemplars. The zero value is ready for use.
type Histogram struct {
	counts    [len(bounds) + 1]atomic.Uint64
	sum       atomic.Int64 // nanoseconds
	exemplars [len(bounds) + 1]atomic.Pointer[Exemplar]
}

// Exemplar is one of the durations counted, that of an event with a sampled trace.
type Exemplar struct {
	Value           time.Duration
	At              time.Time
	TraceID, SpanID [16]byte // the span's is in the first 8 bytes
}

// Observe counts a duration that ended at now; a negative one, of clocks that disagree, counts as none. e, if not nil, is the
// event that it was spent on.
func (h *Histogram) Observe(d time.Duration, now time.Time, e *event.Event) {
	d = max(d, 0)
	i, _ := slices.BinarySearch(bounds[:], d)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
	if e == nil {
		return
	}
	if last := h.exemplars[i].Load(); last != nil && now.Sub(last.At) < exemplarEvery {
		return
	}
	if trace, span, ok := sampled(e); ok {
		h.exemplars[i].Store(&Exemplar{Value: d, At: now, TraceID: trace, SpanID: span})
	}
}

// Latency is a Histogram at one moment.
type Latency struct {
	// Counts are those of the buckets, of which the last has no upper bound.
	Counts []uint64
	// Count is the number of durations, Sum what they add up to.
	Count uint64
	Sum   time.Duration
	// Exemplars are at most one a bucket.
	Exemplars []Exemplar
}

// Read returns what was counted. The numbers are read one by one, so Sum may be a duration or two off.
func (h *Histogram) Read() Latency {
	l := Latency{Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		l.Counts[i] = h.counts[i].Load()
		l.Count += l.Counts[i]
		if e := h.exemplars[i].Load(); e != nil {
			l.Exemplars = append(l.Exemplars, *e)
		}
	}
	return l
}

// Merge adds what other has counted.
func (l *Latency) Merge(other Latency) {
	if l.Counts == nil {
		l.Counts = make([]uint64, len(bounds)+1)
	}
	for i, n := range other.Counts {
		l.Counts[i] += n
	}
	l.Count += other.Count
	l.Sum += other.Sum
	l.Exemplars = append(l.Exemplars, other.Exemplars...)
}

// maxCodes is how many different outcomes a Responses tells apart: a subscriber that answers with ever new codes must not make
// ever more series.
const maxCodes = 16

// Responses has a Histogram for each way in which requests ended. The zero value is ready for use.
type Responses struct {
	slots [maxCodes]atomic.Pointer[response]
	other atomic.Pointer[response]
}

type response struct {
	Histogram
	status int
	reason string
}

// Response is one of the ways in which requests ended, with how long these took.
type Response struct {
	// Status is the HTTP status of the answer; 0 if there was none.
	Status int
	// Reason says why there is no answer that counts; "_OTHER" stands for all outcomes too many to be told apart.
	Reason string
	Latency
}

// Of returns the Histogram of requests that ended with a status, or for a reason.
func (r *Responses) Of(status int, reason string) *Histogram {
	for i := range r.slots {
		s := r.slots[i].Load()
		if s == nil {
			fresh := &response{status: status, reason: reason}
			if r.slots[i].CompareAndSwap(nil, fresh) {
				return &fresh.Histogram
			}
			s = r.slots[i].Load()
		}
		if s.status == status && s.reason == reason {
			return &s.Histogram
		}
	}
	if r.other.Load() == nil {
		r.other.CompareAndSwap(nil, &response{reason: "_OTHER"})
	}
	return &r.other.Load().Histogram
}

// Read returns what was counted, in no order that matters.
func (r *Responses) Read() []Response {
	var all []Response
	add := func(s *response) {
		if s != nil {
			all = append(all, Response{Status: s.status, Reason: s.reason, Latency: s.Read()})
		}
	}
	for i := range r.slots {
		add(r.slots[i].Load())
	}
	add(r.other.Load())
	return all
}

// TraceID returns the id of the trace that the event belongs to, recorded or not, in hexadecimal digits.
func TraceID(e *event.Event) (string, bool) {
	for i := range e.Headers {
		if e.Headers[i].Name == "Traceparent" {
			return traceIDOf(e.Headers[i].Value)
		}
	}
	return traceIDOf(e.Value("traceparent"))
}

func traceIDOf(traceparent string) (string, bool) {
	var id [16]byte
	if len(traceparent) < 55 || !unhex(id[:], traceparent[3:35]) {
		return "", false
	}
	return traceparent[3:35], true
}

// sampled returns the ids of the trace that the event belongs to, if that is recorded.
func sampled(e *event.Event) (trace, span [16]byte, ok bool) {
	for i := range e.Headers {
		if e.Headers[i].Name == "Traceparent" {
			return parseTraceparent(e.Headers[i].Value)
		}
	}
	return parseTraceparent(e.Value("traceparent"))
}

// parseTraceparent reads the header of W3C Trace Context: 00-<trace>-<span>-<flags>, in lower-case hexadecimal digits.
func parseTraceparent(text string) (trace, span [16]byte, ok bool) {
	const length, spanAt, flagsAt = 55, 36, 53
	if len(text) < length || text[2] != '-' || text[35] != '-' || text[52] != '-' {
		return trace, span, false
	}
	flags := [1]byte{}
	if !unhex(trace[:], text[3:35]) || !unhex(span[:8], text[spanAt:52]) || !unhex(flags[:], text[flagsAt:55]) {
		return trace, span, false
	}
	return trace, span, flags[0]&1 == 1 && trace != [16]byte{} && span != [16]byte{}
}

func unhex(dst []byte, text string) bool {
	for i := range dst {
		high, low := nibble(text[2*i]), nibble(text[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	default:
		return 0xff
	}
}
