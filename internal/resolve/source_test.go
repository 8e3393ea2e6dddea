package resolve_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	"millrace.dev/internal/resolve"
)

func TestRunning(t *testing.T) {
	runs := resolve.Report{State: "now", Ready: true}
	joins := resolve.Report{State: "now", Reason: "Rebalancing", Message: "wait", Transient: true}
	fails := resolve.Report{State: "now", Reason: "Unreachable", Message: "check"}
	old := resolve.Report{State: "before", Ready: true}
	for name, c := range map[string]struct {
		processes int
		reports   []resolve.Report
		confirmed bool
		status    metav1.ConditionStatus
		reason    string
	}{
		"nobody there":                       {0, nil, true, metav1.ConditionFalse, sourcesv1.ReasonNoSourceProcess},
		"all run it":                         {2, []resolve.Report{runs, runs}, false, metav1.ConditionTrue, eventingv1.ReasonReady},
		"one runs it, one joins":             {2, []resolve.Report{runs, joins}, false, metav1.ConditionTrue, eventingv1.ReasonReady},
		"all join":                           {2, []resolve.Report{joins, joins}, true, metav1.ConditionUnknown, "Rebalancing"},
		"one fails":                          {2, []resolve.Report{runs, fails}, true, metav1.ConditionFalse, "Unreachable"},
		"one fails, one joins":               {2, []resolve.Report{joins, fails}, false, metav1.ConditionFalse, "Unreachable"},
		"one runs it as it was":              {2, []resolve.Report{runs, old}, false, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet},
		"one does not know it yet":           {2, []resolve.Report{runs}, false, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet},
		"one restarts after all have it":     {2, []resolve.Report{runs}, true, metav1.ConditionTrue, eventingv1.ReasonReady},
		"nobody answers after all had it":    {2, nil, true, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet},
		"all run it as it was":               {1, []resolve.Report{old}, false, metav1.ConditionUnknown, sourcesv1.ReasonNotServedYet},
		"it fails before all others know it": {3, []resolve.Report{fails}, false, metav1.ConditionFalse, "Unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			var status eventingv1.Status
			reports := resolve.Reports{Processes: c.processes, Reports: c.reports, State: "now", Confirmed: c.confirmed}
			is := resolve.Running(reports, resolve.Conditions{Status: &status, Now: metav1.Now()})
			got := meta.FindStatusCondition(status.Conditions, sourcesv1.ConditionConnectionEstablished)
			if got.Status != c.status || got.Reason != c.reason || is != (c.status == metav1.ConditionTrue) {
				t.Errorf("got %s %s, returned %t; want %s %s", got.Status, got.Reason, is, c.status, c.reason)
			}
			if got.Status != metav1.ConditionTrue && got.Message == "" {
				t.Error("it says nothing")
			}
		})
	}
}

func TestConsumption(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 500, time.UTC)
	reports := resolve.Reports{Reports: []resolve.Report{
		{Assigned: 2, Lag: 10, OldestSeconds: 3, Waiting: 1, LastError: "earlier", LastErrorTime: at.Add(-time.Minute)},
		{Assigned: 1, Lag: 5, OldestSeconds: 9, LastError: "later", LastErrorTime: at},
		{Assigned: 3},
	}}
	now := metav1.NewTime(at)
	want := &sourcesv1.Consumption{
		Time: now, Processes: 3, Assigned: 6, Lag: 15, OldestSeconds: 9, Waiting: 1,
		LastError: "later", LastErrorTime: &metav1.Time{Time: at.Truncate(time.Second)},
	}
	if diff := cmp.Diff(want, reports.Consumption(now)); diff != "" {
		t.Errorf("want(-) got(+):\n%s", diff)
	}
	if got := (&resolve.Reports{Processes: 2}).Consumption(now); got != nil {
		t.Errorf("nobody reports: %+v", got)
	}
}

// TestSourceState changes with everything by which a source is run, and with nothing else.
func TestSourceState(t *testing.T) {
	base := func() *sourcesv1.KafkaSource {
		s := &sourcesv1.KafkaSource{}
		s.UID, s.Generation = "u", 1
		return s
	}
	was := resolve.SourceState(base())
	for name, c := range map[string]struct {
		change  func(*sourcesv1.KafkaSource)
		differs bool
	}{
		"nothing":        {func(*sourcesv1.KafkaSource) {}, false},
		"no annotations": {func(s *sourcesv1.KafkaSource) { s.Annotations = map[string]string{} }, false},
		"kubectl apply": {func(s *sourcesv1.KafkaSource) {
			s.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"}
		}, false},
		"a condition":    {func(s *sourcesv1.KafkaSource) { s.Status.ObservedGeneration = 7 }, false},
		"the resource":   {func(s *sourcesv1.KafkaSource) { s.ResourceVersion = "7" }, false},
		"uid":            {func(s *sourcesv1.KafkaSource) { s.UID = "v" }, true},
		"spec":           {func(s *sourcesv1.KafkaSource) { s.Generation = 2 }, true},
		"annotation":     {func(s *sourcesv1.KafkaSource) { s.Annotations = map[string]string{sourcesv1.PausedAnnotation: "true"} }, true},
		"label":          {func(s *sourcesv1.KafkaSource) { s.Labels = map[string]string{sourcesv1.KeyTypeLabel: "int"} }, true},
		"sink":           {func(s *sourcesv1.KafkaSource) { s.Status.SinkURI = pointer("http://x") }, true},
		"deadLetterSink": {func(s *sourcesv1.KafkaSource) { s.Status.DeadLetterSinkURI = pointer("http://x") }, true},
	} {
		s := base()
		c.change(s)
		if got := resolve.SourceState(s); (got != was) != c.differs {
			t.Errorf("%s: differs %t, want %t", name, got != was, c.differs)
		}
	}
}

// TestCanRun goes by the sinks, not by what those have reported who run the source.
func TestCanRun(t *testing.T) {
	for name, c := range map[string]struct {
		sink, letters metav1.ConditionStatus
		observed      int64
		want          string
	}{
		"as reported otherwise": {metav1.ConditionTrue, metav1.ConditionTrue, 2, "True Ready"},
		"sink unresolved":       {metav1.ConditionFalse, metav1.ConditionTrue, 2, "False X"},
		"no dead letter sink":   {metav1.ConditionTrue, metav1.ConditionFalse, 2, "False X"},
		"changed since":         {metav1.ConditionTrue, metav1.ConditionTrue, 1, "False NotResolvedYet"},
		"not looked at yet":     {"", "", 2, "False NotResolvedYet"},
	} {
		s := &sourcesv1.KafkaSource{}
		s.Generation, s.Status.ObservedGeneration = 2, c.observed
		conditions := resolve.Conditions{Status: &s.Status.Status, Now: metav1.Now()}
		conditions.False(eventingv1.ConditionReady, "Unreachable", "as reported")
		for kind, status := range map[string]metav1.ConditionStatus{
			sourcesv1.ConditionSinkProvided: c.sink, eventingv1.ConditionDeadLetterSinkResolved: c.letters,
		} {
			if status != "" {
				conditions.Set(kind, status, "X", "x")
			}
		}
		resolve.CanRun(s, conditions)
		got := meta.FindStatusCondition(s.Status.Conditions, eventingv1.ConditionReady)
		if text := string(got.Status) + " " + got.Reason; text != c.want {
			t.Errorf("%s: got %s, want %s", name, text, c.want)
		}
	}
}
