package resolve

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
)

// Report is what a process that runs sources says of one of them.
type Report struct {
	// State is that of the source as the process knows it, see [SourceState].
	State string `json:"state"`
	// Ready says that it receives what the source's system has. If not, Reason and Message say why, and Transient that it is
	// likely to pass by itself within seconds.
	Ready     bool   `json:"ready,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Message   string `json:"message,omitempty"`
	Transient bool   `json:"transient,omitempty"`
	// The rest is as in [sourcesv1.Consumption].
	Assigned      int32     `json:"assigned,omitempty"`
	Lag           int64     `json:"lag,omitempty"`
	OldestSeconds int64     `json:"oldestSeconds,omitempty"`
	Waiting       int64     `json:"waiting,omitempty"`
	LastError     string    `json:"lastError,omitempty"`
	LastErrorTime time.Time `json:"lastErrorTime,omitzero"`
}

// SourceState tells the versions of a source apart in which it would be run differently. Controller and processes compute it
// each for itself.
func SourceState(s sourcesv1.Source) string {
	h := fnv.New128a()
	// Hashes do not fail to write, and strings do not fail to be encoded. A uid and generation stand for a whole spec; what is
	// applied with kubectl is in an annotation, too.
	annotations := map[string]string{}
	for name, value := range s.GetAnnotations() {
		if name != "kubectl.kubernetes.io/last-applied-configuration" {
			annotations[name] = value
		}
	}
	status := s.Observed()
	text, _ := json.Marshal([]any{s.GetUID(), s.GetGeneration(), annotations, s.GetLabels(), status.SinkURI, status.DeadLetterSinkURI})
	_, _ = h.Write(text)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// SourceSink resolves the sink of a source.
func (l Lookup) SourceSink(s sourcesv1.Source, c Conditions) {
	address, err := l.Destination(&s.Common().Sink)
	var fault Fault
	switch {
	case errors.As(err, &fault):
		c.False(sourcesv1.ConditionSinkProvided, sourcesv1.ReasonSinkUnresolved, fault.Error())
	case err != nil:
		return
	default:
		c.True(sourcesv1.ConditionSinkProvided, eventingv1.ReasonReady)
	}
	s.Observed().SinkURI = address.URL
}

// SourceDeadLetterSink resolves the dead letter sink of a source.
func (l Lookup) SourceDeadLetterSink(s sourcesv1.Source, c Conditions) {
	l.sink(s.Common().Delivery, &s.Observed().DeliveryStatus, c)
}

// Reports are what the processes that run sources say of one of them.
type Reports struct {
	// Processes is how many there are; one that reports nothing does not know the source.
	Processes int
	Reports   []Report
	// State is that of the source as it is now, and Confirmed says that all have run it in this state before.
	State     string
	Confirmed bool
}

// Running sets ConnectionEstablished, and returns whether it is True. It is when every process runs the source as it is now,
// and one receives while the others are at most about to. Once that was so, a process that restarts changes nothing: its part
// of the work is taken over, or kept for it.
func Running(r Reports, c Conditions) bool {
	const kind = sourcesv1.ConditionConnectionEstablished
	current := slices.DeleteFunc(slices.Clone(r.Reports), func(report Report) bool { return report.State != r.State })
	slices.SortFunc(current, func(x, y Report) int {
		return cmp.Or(falseFirst(x.Ready, y.Ready), falseFirst(x.Transient, y.Transient), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Message, y.Message))
	})
	receives := slices.ContainsFunc(current, func(report Report) bool { return report.Ready })
	switch {
	case r.Processes == 0:
		c.False(kind, sourcesv1.ReasonNoSourceProcess, "nobody runs sources: check the StatefulSet broker-source, and that it reaches NATS")
	case len(current) > 0 && !current[0].Ready && !current[0].Transient:
		c.False(kind, current[0].Reason, current[0].Message)
	case receives && (r.Confirmed || len(current) >= r.Processes):
		c.True(kind, eventingv1.ReasonReady)
		return true
	case len(current) < r.Processes:
		c.Set(kind, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet, "not every process runs the source as it is now; if this lasts, look at the logs of broker-source")
	default:
		c.Set(kind, metav1.ConditionUnknown, current[0].Reason, current[0].Message)
	}
	return false
}

// falseFirst compares two values.
func falseFirst(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}

// Consumption sums up what is reported; nil if nothing is.
func (r *Reports) Consumption(now metav1.Time) *sourcesv1.Consumption {
	if len(r.Reports) == 0 {
		return nil
	}
	sum := &sourcesv1.Consumption{Time: now, Processes: int32(min(len(r.Reports), math.MaxInt32))}
	for _, r := range r.Reports {
		sum.Assigned += r.Assigned
		sum.Lag += r.Lag
		sum.Waiting += r.Waiting
		sum.OldestSeconds = max(sum.OldestSeconds, r.OldestSeconds)
		if r.LastError != "" && (sum.LastErrorTime == nil || r.LastErrorTime.After(sum.LastErrorTime.Time)) {
			sum.LastError, sum.LastErrorTime = r.LastError, &metav1.Time{Time: r.LastErrorTime.Truncate(time.Second)}
		}
	}
	return sum
}

// CanRun sets Ready in a copy of the object that a process runs sources by: True if it can be run as far as its sinks, and the
// conditions in also, are concerned. What the controller has written there comes from those who run it.
func CanRun(s sourcesv1.Source, c Conditions, also ...string) {
	if status := s.Observed(); status.ObservedGeneration != s.GetGeneration() ||
		meta.FindStatusCondition(status.Conditions, sourcesv1.ConditionSinkProvided) == nil ||
		meta.FindStatusCondition(status.Conditions, eventingv1.ConditionDeadLetterSinkResolved) == nil {
		c.False(eventingv1.ConditionReady, sourcesv1.ReasonNotResolvedYet, "the sink is being looked up; if this lasts, look at the logs of broker-controller")
		return
	}
	c.SumUp(append([]string{sourcesv1.ConditionSinkProvided, eventingv1.ConditionDeadLetterSinkResolved}, also...)...)
}
