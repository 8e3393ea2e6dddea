package trigger_test

import (
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

var (
	genCEL   = rapid.SampledFrom(celExpressions)
	genCESQL = rapid.SampledFrom(cesqlExpressions)
)

// The generators draw from a vocabulary so small that filters and events meet often, with values that are prefixes and
// suffixes of each other, equal as numbers, or differ in case.
var (
	genNames  = rapid.SampledFrom([]string{"type", "source", "subject", "partitionkey", "count", "urgent", "time", "absent"})
	genValues = rapid.SampledFrom([]string{
		"a", "ab", "abc", "b", "bc", "c", "A", "5", "55", "05", "true", "2026-01-02T03:04:05Z", "2026",
	})
	celExpressions = []string{
		`ce.type == "a"`, `"ab" == ce["type"]`, `ce.type in ["a", "b", "c"] && ce.source == "b"`,
		`ce.type == "a" || ce.type == "b"`, `ce.type == "a" && (ce.subject == "ab" || ce.subject == "b")`,
		`ce.source.startsWith("a")`, `has(ce.subject) && ce.subject != "b"`, `!(ce.type == "a")`,
		`ce.count == 5`, `ce.count == "5"`, `string(ce.count) == "5"`, `ce.urgent`, `ce.absent == "a"`,
		`ce.time > timestamp("2026-01-01T00:00:00Z")`, `data.amount > 4`, `ce.type == "ab" && data.amount == 5`,
		`data.name == "a" || ce.type == "a"`, `1 / (size(ce.type) - 1) == 1`, `true`,
	}
	cesqlExpressions = []string{
		`type = 'a'`, `'a' = type`, `type = 'a' AND source = 'b'`, `type = 'a' OR source = 'b'`,
		`type IN ('a', 'b') AND (subject = "ab")`, `type NOT IN ('a', 'b')`, `NOT (type = 'a')`, `count = '5'`, `count = '05'`,
		`count IN ('5', '05')`, `count IN ('05', 'a')`, `'05' = count`, `count > 4`, `urgent`, `urgent = 'true'`, `EXISTS subject`, `subject LIKE 'a%'`,
		`time = '2026-01-02T03:04:05Z'`, `type = 'a' AND type = 'ab'`, `5`, `'abc'`, `1 / 0 = 1`,
		`SUBSTRING(type, 1, -5) = 'a'`, `TYPE = 'a' XOR source = 'a'`, `type <> 'a'`, `type = 'a' = TRUE`,
	}
)

func genMap(t *rapid.T, empty bool) map[string]string {
	values := map[string]string{}
	for range rapid.IntRange(1, 3).Draw(t, "attributes") {
		values[genNames.Draw(t, "name")] = genValues.Draw(t, "value")
	}
	if empty && rapid.Bool().Draw(t, "present") {
		values[genNames.Draw(t, "name")] = ""
	}
	return values
}

func genSourceAndType(t *rapid.T) *eventingv1.SourceAndType {
	return &eventingv1.SourceAndType{
		Source: rapid.OneOf(rapid.Just(""), genValues).Draw(t, "source"),
		Type:   rapid.OneOf(rapid.Just(""), genValues).Draw(t, "type"),
	}
}

func genFilter(t *rapid.T, depth int) eventingv1.Filter {
	leaves := 10
	if depth > 0 {
		leaves = 0
	}
	switch rapid.IntRange(0, 19-leaves).Draw(t, "dialect") {
	case 0, 1:
		return eventingv1.Filter{Exact: genMap(t, false)}
	case 2:
		return eventingv1.Filter{Prefix: genMap(t, false)}
	case 3:
		return eventingv1.Filter{Suffix: genMap(t, false)}
	case 4, 5:
		return eventingv1.Filter{Attributes: genMap(t, true)}
	case 6, 7:
		return eventingv1.Filter{SourceAndType: genSourceAndType(t)}
	case 8:
		return eventingv1.Filter{CEL: genCEL.Draw(t, "cel")}
	case 9:
		return eventingv1.Filter{CESQL: genCESQL.Draw(t, "cesql")}
	case 10, 11, 12:
		return eventingv1.Filter{All: genFilters(t, depth-1)}
	case 13, 14, 15, 16:
		return eventingv1.Filter{Any: genFilters(t, depth-1)}
	default:
		f := genFilter(t, depth-1)
		return eventingv1.Filter{Not: &f}
	}
}

func genFilters(t *rapid.T, depth int) []eventingv1.Filter {
	filters := make([]eventingv1.Filter, rapid.IntRange(1, 3).Draw(t, "filters"))
	for i := range filters {
		filters[i] = genFilter(t, depth)
	}
	return filters
}

func genTrigger(t *rapid.T) *eventingv1.Trigger {
	tr := &eventingv1.Trigger{}
	switch rapid.IntRange(0, 5).Draw(t, "form") {
	case 0:
		tr.Spec.Filter = &eventingv1.TriggerFilter{Attributes: genMap(t, true)}
	case 1:
		tr.Spec.Filter = &eventingv1.TriggerFilter{SourceAndType: genSourceAndType(t)}
	case 2:
		tr.Spec.Filter = &eventingv1.TriggerFilter{CEL: genCEL.Draw(t, "cel")}
	default:
		tr.Spec.Filters = genFilters(t, 2)
	}
	if rapid.IntRange(0, 9).Draw(t, "annotated") == 0 {
		tr.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{
			eventingv1.CELFilterAnnotation: genCEL.Draw(t, "cel"),
		}}
	}
	return tr
}

func genEvent(t *rapid.T) *event.Event {
	e := &event.Event{}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "1", event.String)
	e.Set(event.Type, genValues.Draw(t, "type"), event.String)
	e.Set(event.Source, genValues.Draw(t, "source"), event.String)
	for _, name := range []string{event.Subject, "partitionkey"} {
		if rapid.Bool().Draw(t, name) {
			e.Set(name, genValues.Draw(t, "value"), event.String)
		}
	}
	switch rapid.IntRange(0, 2).Draw(t, "count") {
	case 1:
		e.Set("count", strconv.Itoa(rapid.SampledFrom([]int{5, 55}).Draw(t, "int")), event.Integer)
	case 2:
		e.Set("count", genValues.Draw(t, "text"), event.String)
	}
	if rapid.Bool().Draw(t, "has urgent") {
		e.Set("urgent", strconv.FormatBool(rapid.Bool().Draw(t, "urgent")), event.Boolean)
	}
	if rapid.Bool().Draw(t, "has time") {
		e.Set(event.Time, rapid.SampledFrom([]string{
			"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z", "2026",
		}).Draw(t, "time"), event.String)
	}
	if rapid.Bool().Draw(t, "has data") {
		e.Set(event.DataContentType, rapid.SampledFrom([]string{"application/json", "text/plain"}).Draw(t, "content type"),
			event.String)
		e.Data = []byte(rapid.SampledFrom([]string{`{"amount": 5, "name": "a"}`, `{"amount": "5"}`, `[]`, `{`}).Draw(t, "data"))
	}
	return e
}

func newCompiler(t testing.TB) *trigger.Compiler {
	t.Helper()
	c, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
