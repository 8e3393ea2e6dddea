package v1

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sosodev/duration"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The annotations by which a Broker sets limits of its own. An annotation that is not there leaves the limit to the
// defaults of the process.
const (
	// MaxBytesAnnotation on a Broker bounds the bytes of accepted events that are not settled yet. It is a quantity such
	// as 10Gi, at least 16Mi. The store reserves as much.
	MaxBytesAnnotation = "millrace.dev/max-bytes"
	// MaxMessagesAnnotation on a Broker bounds the number of accepted events that are not settled yet: a whole number of
	// at least 1.
	MaxMessagesAnnotation = "millrace.dev/max-messages"
	// MaxEventBytesAnnotation on a Broker bounds the data of one event. It is a quantity of 1Ki to 8Mi.
	MaxEventBytesAnnotation = "millrace.dev/max-event-bytes"
	// ParkedMaxAgeAnnotation on a Broker is how long given-up deliveries are kept: an ISO 8601 duration of PT1M to P365D.
	ParkedMaxAgeAnnotation = "millrace.dev/parked-max-age"
	// ParkedMaxBytesAnnotation on a Broker bounds the bytes of given-up deliveries; the oldest are dropped beyond it. It is
	// a quantity of at least 16Mi.
	ParkedMaxBytesAnnotation = "millrace.dev/parked-max-bytes"
	// DuplicateWindowAnnotation on a Broker is how long the store remembers the identity of an event, for deduplication
	// and so that what a crash interrupted is not stored twice: an ISO 8601 duration of PT30S to PT24H.
	DuplicateWindowAnnotation = "millrace.dev/duplicate-window"
	// ArchiveAnnotation on a Broker is how long a copy of each accepted event is kept, for replays: an ISO 8601 duration of PT1M to
	// P365D. Without it none is kept.
	ArchiveAnnotation = "millrace.dev/archive"
	// ArchiveMaxBytesAnnotation on a Broker bounds the bytes of these copies; the oldest are dropped beyond it. It is a quantity of at
	// least 16Mi. Default: what MaxBytesAnnotation says.
	ArchiveMaxBytesAnnotation = "millrace.dev/archive-max-bytes"
	// ReplicasAnnotation on a Broker is how many NATS servers keep a copy of its events: 1, 3 or 5.
	ReplicasAnnotation = "millrace.dev/replicas"
)

// The bounds of limits.
const (
	// MinStoreBytes is the smallest limit of a store, in bytes: room for the largest event with its attributes.
	MinStoreBytes = 16 << 20
	// MinEventBytes is the smallest value for the largest event, in bytes of data.
	MinEventBytes = 1 << 10
	// MaxEventBytes is the largest value for the largest event, in bytes of data. NATS advises against larger messages.
	MaxEventBytes = 8 << 20
	// MinDuplicateWindow is longer than it takes until another process takes up what a crashed one had begun.
	MinDuplicateWindow = 30 * time.Second
	// MaxDuplicateWindow bounds the memory that the store needs for identities, about 280 bytes each.
	MaxDuplicateWindow = 24 * time.Hour
	// MinParkedAge is the shortest time that given-up deliveries can be kept.
	MinParkedAge = time.Minute
	// MaxParkedAge is the longest time that given-up deliveries can be kept.
	MaxParkedAge = 365 * 24 * time.Hour
)

// BrokerLimits are the limits that a Broker sets for itself. A field that is zero is not set.
type BrokerLimits struct {
	// MaxBytes and MaxMessages bound the accepted events that are not settled.
	MaxBytes, MaxMessages int64
	// MaxEventBytes bounds the data of one event.
	MaxEventBytes int
	// ParkedMaxAge and ParkedMaxBytes bound the given-up deliveries.
	ParkedMaxAge   time.Duration
	ParkedMaxBytes int64
	// ArchiveMaxAge and ArchiveMaxBytes bound the copies of accepted events.
	ArchiveMaxAge   time.Duration
	ArchiveMaxBytes int64
	// DuplicateWindow is how long the identity of an event is remembered.
	DuplicateWindow time.Duration
	// Replicas is the number of copies.
	Replicas int
}

// Limits reads the limits that the Broker's annotations set. Of an annotation that makes no sense it returns an error,
// whose detail says what to write, and leaves the limit unset.
func (b *Broker) Limits() (BrokerLimits, field.ErrorList) {
	r := limitReader{annotations: b.Annotations}
	l := BrokerLimits{
		MaxBytes:        r.quantity(MaxBytesAnnotation, MinStoreBytes, 0),
		MaxMessages:     r.count(MaxMessagesAnnotation),
		MaxEventBytes:   int(r.quantity(MaxEventBytesAnnotation, MinEventBytes, MaxEventBytes)),
		ParkedMaxAge:    r.duration(ParkedMaxAgeAnnotation, MinParkedAge, MaxParkedAge),
		ParkedMaxBytes:  r.quantity(ParkedMaxBytesAnnotation, MinStoreBytes, 0),
		ArchiveMaxAge:   r.duration(ArchiveAnnotation, MinParkedAge, MaxParkedAge),
		ArchiveMaxBytes: r.quantity(ArchiveMaxBytesAnnotation, MinStoreBytes, 0),
		DuplicateWindow: r.duration(DuplicateWindowAnnotation, MinDuplicateWindow, MaxDuplicateWindow),
		Replicas:        r.replicas(ReplicasAnnotation),
	}
	return l, r.errs
}

// limitReader reads annotations and collects what is wrong with them.
type limitReader struct {
	annotations map[string]string
	errs        field.ErrorList
}

func (r *limitReader) fault(key, detail string) {
	r.errs = append(r.errs, field.Invalid(annotationPath(key), r.annotations[key], detail))
}

// quantity reads a number of bytes of at least low, and at most high unless that is 0.
func (r *limitReader) quantity(key string, low, high int64) int64 {
	value, ok := r.annotations[key]
	if !ok {
		return 0
	}
	n, detail := ParseBytes(value, low, high)
	if detail != "" {
		r.fault(key, detail)
	}
	return n
}

// ParseBytes reads a number of bytes written as a Kubernetes quantity, such as 512Mi or 10Gi, of at least low, and at
// most high unless that is 0. If value makes no sense, n is 0 and fault says what to write.
func ParseBytes(value string, low, high int64) (n int64, fault string) {
	q, err := resource.ParseQuantity(value)
	switch {
	case err != nil:
		return 0, "must be a number of bytes such as 512Mi or 10Gi" + quantityHint(value)
	case q.CmpInt64(low) < 0:
		return 0, "must be at least " + formatBytes(low) + unitHint(value)
	case high > 0 && q.CmpInt64(high) > 0:
		return 0, "must be at most " + formatBytes(high)
	case q.CmpInt64(maxBytes) > 0:
		return 0, "must be at most " + formatBytes(maxBytes)
	}
	return q.Value(), ""
}

// maxBytes is far beyond any disk, and small enough to be added up.
const maxBytes = 1 << 60

// quantityHint guesses what somebody meant who wrote a unit that quantities do not have.
func quantityHint(value string) string {
	upper := strings.ToUpper(strings.ReplaceAll(value, " ", ""))
	for _, unit := range []string{"KIB", "MIB", "GIB", "TIB", "KB", "MB", "GB", "TB", "KI", "MI", "GI", "TI"} {
		number, ok := strings.CutSuffix(upper, unit)
		if _, err := strconv.ParseFloat(number, 64); !ok || err != nil {
			continue
		}
		return "; write " + number + unit[:1] + "i"
	}
	return ""
}

// unitHint serves those who leave out the unit, or take m for mega when it means a thousandth.
func unitHint(value string) string {
	if number, ok := strings.CutSuffix(value, "m"); ok {
		return "; write " + number + "Mi: a small m means a thousandth"
	}
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return "; the value is in bytes, units are Ki, Mi, Gi and Ti"
	}
	return ""
}

func formatBytes(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }

func (r *limitReader) count(key string) int64 {
	value, ok := r.annotations[key]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 1 {
		r.fault(key, `must be a whole number of at least 1, in quotes, such as "100000"`)
		return 0
	}
	return n
}

func (r *limitReader) duration(key string, low, high time.Duration) time.Duration {
	value, ok := r.annotations[key]
	if !ok {
		return 0
	}
	if detail := durationFault(value, false); detail != "" {
		r.fault(key, detail)
		return 0
	}
	parsed, err := duration.Parse(value)
	if err != nil {
		r.fault(key, "must be an ISO 8601 duration such as PT30S")
		return 0
	}
	d := parsed.ToTimeDuration()
	if d < low || d > high {
		r.fault(key, fmt.Sprintf("must be between %s and %s", formatDuration(low), formatDuration(high)))
		return 0
	}
	return d
}

// formatDuration writes a duration of whole seconds in ISO 8601, in the largest unit in which it is a whole number.
func formatDuration(d time.Duration) string {
	switch {
	case d > 24*time.Hour && d%(24*time.Hour) == 0:
		return fmt.Sprintf("P%dD", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("PT%dH", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("PT%dM", d/time.Minute)
	default:
		return fmt.Sprintf("PT%dS", d/time.Second)
	}
}

func (r *limitReader) replicas(key string) int {
	value, ok := r.annotations[key]
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(value)
	if !ValidReplicas(n) {
		r.fault(key, `must be "1", "3" or "5", in quotes: an even number survives no more failures than one less`)
		return 0
	}
	return n
}

// ValidReplicas says whether the store can keep n copies.
func ValidReplicas(n int) bool { return n == 1 || n == 3 || n == 5 }
