package sender

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range of latencies that are told apart, in microseconds, and the digits kept of one.
const (
	minLatency    = 1
	maxLatency    = 10 * 60 * 1_000_000
	latencyDigits = 3
)

// Summary collects results. It is safe for concurrent use; its memory does not grow with their number.
type Summary struct {
	mu       sync.Mutex
	accepted int
	retries  int
	refused  map[int]*refusal // by status
	invalid  int
	latency  *hdrhistogram.Histogram
}

type refusal struct {
	count int
	first string // the detail of the first that has one
}

// NewSummary returns an empty Summary.
func NewSummary() *Summary {
	return &Summary{
		refused: map[int]*refusal{},
		latency: hdrhistogram.New(minLatency, maxLatency, latencyDigits),
	}
}

// Add counts the fate of one event.
func (s *Summary) Add(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retries += max(0, r.Attempts-1)
	if r.Status != 0 {
		_ = s.latency.RecordValue(min(r.Latency.Microseconds(), maxLatency)) // It is in range.
	}
	if r.Accepted() {
		s.accepted++
		return
	}
	if s.refused[r.Status] == nil {
		s.refused[r.Status] = &refusal{}
	}
	of := s.refused[r.Status]
	of.count++
	if of.first == "" {
		of.first = r.Detail
	}
}

// AddInvalid counts an event that could not be read and was not sent.
func (s *Summary) AddInvalid() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invalid++
}

// Counts returns how many events were accepted and how many were not: refused, or not even sent.
func (s *Summary) Counts() (accepted, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed = s.invalid
	for _, r := range s.refused {
		failed += r.count
	}
	return s.accepted, failed
}

// Report returns the summary in words, a few lines; elapsed is the time that all took.
func (s *Summary) Report(elapsed time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d accepted", s.accepted)
	if seconds := elapsed.Seconds(); s.latency.TotalCount() > 1 && seconds > 0 {
		fmt.Fprintf(&b, ", %.0f events/s", float64(s.accepted)/seconds)
	}
	if s.latency.TotalCount() > 0 {
		fmt.Fprintf(&b, ", latency p50 %v p99 %v", s.quantile(50), s.quantile(99))
	}
	if s.retries > 0 {
		fmt.Fprintf(&b, ", %d sent again", s.retries)
	}
	b.WriteByte('\n')
	for _, status := range slices.Sorted(maps.Keys(s.refused)) {
		b.WriteString(s.refused[status].line(status))
	}
	if s.invalid > 0 {
		fmt.Fprintf(&b, "%d not sent: see above\n", s.invalid)
	}
	return b.String()
}

// quantile returns a latency, rounded to what is of interest.
func (s *Summary) quantile(q float64) time.Duration {
	d := time.Duration(s.latency.ValueAtQuantile(q)) * time.Microsecond
	if d < time.Millisecond {
		return d
	}
	return d.Round(10 * time.Microsecond)
}

func (r *refusal) line(status int) string {
	answer := "no answer"
	if status != 0 {
		answer = strings.TrimSpace(fmt.Sprintf("%d %s", status, http.StatusText(status)))
	}
	line := fmt.Sprintf("%d refused: %s", r.count, answer)
	if r.first != "" {
		line += ": " + r.first
	}
	return line + "\n"
}
