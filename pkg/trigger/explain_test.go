package trigger_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// explanationAgreesWithMatch is the promise of Explain: the outcome of Match, always in the same words, and somebody to
// blame exactly if there is no match.
func explanationAgreesWithMatch(c *trigger.Compiler) func(*rapid.T) {
	return func(t *rapid.T) {
		f, errs := c.Compile(genTrigger(t))
		if len(errs) > 0 {
			t.Fatal(errs.ToAggregate())
		}
		for range 5 {
			in := trigger.NewInput(genEvent(t))
			matched, counted := f.Match(in), in.Errors()
			ex := f.Explain(in)
			if ex.Matched != matched {
				t.Fatalf("Match is %v, but:\n%s", matched, ex)
			}
			if in.Errors() != counted {
				t.Fatalf("explaining changed the counts from %v to %v", counted, in.Errors())
			}
			if diff := cmp.Diff(ex, f.Explain(in)); diff != "" {
				t.Fatalf("explained otherwise the second time:\n%s", diff)
			}
			failures := ex.Failures()
			if (len(failures) == 0) != matched {
				t.Fatalf("%d failures, match %v:\n%s", len(failures), matched, ex)
			}
			for _, failure := range failures {
				if failure.Matched || len(failure.Failures()) != 1 || failure.Expr == "" {
					t.Fatalf("not to blame: %+v", failure)
				}
			}
		}
	}
}

func TestExplanationAgreesWithMatch(t *testing.T) {
	rapid.Check(t, explanationAgreesWithMatch(newCompiler(t)))
}

func TestExplainPaths(t *testing.T) {
	f := compile(t, newCompiler(t), parse(t, `
metadata:
  annotations: {millrace.dev/cel-filter: 'ce.type == "b"'}
spec:
  filters:
  - exact: {type: a, source: /a}
  - all:
    - prefix: {subject: x}
    - any:
      - not: {suffix: {type: a}}
      - cesql: type = 'b' AND EXISTS subject
  - sourceAndType: {source: /a, type: a}
  - attributes: {id: ""}
`))
	got := f.Explain(trigger.NewInput(anEvent("id", "1", "source", "/a", "type", "a")))
	type part struct {
		Dialect, Path, Expr string
		Matched             bool
		Actual              string
	}
	var parts []part
	var walk func(e trigger.Explanation)
	walk = func(e trigger.Explanation) {
		parts = append(parts, part{e.Dialect, e.Path, e.Expr, e.Matched, e.Actual})
		for _, c := range e.Children {
			walk(c)
		}
	}
	walk(got)
	want := []part{
		{"all", "", "all of 2", false, ""},
		{"filters", "spec.filters", "all of 4", false, ""},
		{"exact", "spec.filters[0].exact", "exact: all of 2", true, ""},
		{"exact", "spec.filters[0].exact[source]", `exact source = "/a"`, true, `"/a"`},
		{"exact", "spec.filters[0].exact[type]", `exact type = "a"`, true, `"a"`},
		{"all", "spec.filters[1].all", "all of 2", false, ""},
		{"prefix", "spec.filters[1].all[0].prefix[subject]", `prefix subject starts with "x"`, false, "absent"},
		{"any", "spec.filters[1].all[1].any", "any of 2", false, ""},
		{"not", "spec.filters[1].all[1].any[0].not", `not suffix type ends with "a"`, false, `"a"`},
		{"suffix", "spec.filters[1].all[1].any[0].not.suffix[type]", `suffix type ends with "a"`, true, `"a"`},
		{"cesql", "spec.filters[1].all[1].any[1].cesql", "type = 'b' AND EXISTS subject", false, `subject = absent, type = "a"`},
		{"sourceAndType", "spec.filters[2].sourceAndType", "sourceAndType: all of 2", true, ""},
		{"sourceAndType", "spec.filters[2].sourceAndType.source", `sourceAndType source = "/a"`, true, `"/a"`},
		{"sourceAndType", "spec.filters[2].sourceAndType.type", `sourceAndType type = "a"`, true, `"a"`},
		{"attributes", "spec.filters[3].attributes[id]", "attributes id is not empty", true, `"1"`},
		{"cel", "metadata.annotations[millrace.dev/cel-filter]", `ce.type == "b"`, false, `ce.type = "a"`},
	}
	if diff := cmp.Diff(want, parts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var blamed []string
	for _, failure := range got.Failures() {
		blamed = append(blamed, failure.Path)
	}
	if diff := cmp.Diff([]string{
		"spec.filters[1].all[0].prefix[subject]", "spec.filters[1].all[1].any[0].not", "spec.filters[1].all[1].any[1].cesql",
		"metadata.annotations[millrace.dev/cel-filter]",
	}, blamed); diff != "" {
		t.Errorf("blamed (-want +got):\n%s", diff)
	}
}

func TestExplainCEL(t *testing.T) {
	f := compile(t, newCompiler(t), parse(t,
		`spec: {filter: {cel: 'ce.type == "a" && (ce.subject == "s" || !(ce.id == "1")) && data.x > 1'}}`))
	e := anEvent("id", "1", "source", "/a", "type", "a", "datacontenttype", "application/json")
	e.Data = []byte(`{"y": 1}`)
	var blamed []string
	for _, failure := range f.Explain(trigger.NewInput(e)).Failures() {
		blamed = append(blamed, failure.Expr+": "+failure.Actual)
	}
	want := []string{`ce.subject == "s": ce.subject = absent`, `!(ce.id == "1"): ce.id = "1"`, `data.x > 1: data.x = absent`}
	if diff := cmp.Diff(want, blamed); diff != "" {
		t.Errorf("blamed (-want +got):\n%s", diff)
	}
}

func TestHints(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("id", "1", "source", "/shop/oslo/", "type", "gift.sent", "subject", " x ", "partitionkeys", "k", "empty", "",
		"datacontenttype", "text/plain")
	e.Set("count", "5", event.Integer)
	e.Data = []byte(`{"amount": "5"}`)
	asJSON := e.Clone()
	asJSON.Set(event.DataContentType, "application/json", event.String)
	nested := asJSON.Clone()
	nested.Data = []byte(`{"user": {"nname": "y", "name": "y", "age": 1}}`)
	broken := asJSON.Clone()
	broken.Data = []byte(`{`)
	bare := anEvent("id", "1")
	untyped := anEvent("id", "1")
	untyped.Data = []byte(`{}`)
	for name, tc := range map[string]struct {
		event  *event.Event
		filter string
		hint   string
	}{
		"case":              {e, `{exact: {type: Gift.Sent}}`, `"gift.sent" differs only in case`},
		"misspelled":        {e, `{exact: {type: gift.send}}`, `"gift.sent" is nearly "gift.send"`},
		"space":             {e, `{exact: {subject: x}}`, `differs only in the space around it`},
		"slash":             {e, `{exact: {source: /shop/oslo}}`, `differs only by a slash at the end`},
		"prefix would":      {e, `{exact: {type: gift.}}`, `prefix would match`},
		"suffix would":      {e, `{exact: {type: .sent}}`, `suffix would match`},
		"similar name":      {e, `{exact: {partitionkey: k}}`, `the event has no partitionkey, but it has partitionkeys`},
		"nothing similar":   {e, `{exact: {tenant: k}}`, ``},
		"quite different":   {e, `{exact: {type: order.placed}}`, ``},
		"short words":       {e, `{exact: {id: "2"}}`, ``},
		"prefix case":       {e, `{prefix: {type: GIFT}}`, `differs only in case`},
		"prefix slash":      {e, `{prefix: {type: gift/}}`, `"gift." is nearly "gift/"`},
		"suffix case":       {e, `{suffix: {type: SENT}}`, `differs only in case`},
		"empty":             {e, `{attributes: {empty: ""}}`, `the attribute is there but empty`},
		"cesql":             {e, `{cesql: "type = 'gift.Sent' AND id = '1'"}`, `type: "gift.sent" differs only in case`},
		"cesql absent":      {e, `{cesql: "partitionkey = 'k'"}`, `but it has partitionkeys`},
		"cel":               {e, `{cel: 'ce.type == "gift.send"'}`, `"gift.sent" is nearly "gift.send"`},
		"cel, similar":      {e, `{cel: 'ce.partitionkey == "k"'}`, `but it has partitionkeys`},
		"cel in a part":     {e, `{cel: 'ce.id == "1" && ce.type == "Gift.sent"'}`, `differs only in case`},
		"cel, int":          {e, `{cel: 'ce.count == "5"'}`, `ce.count is 5 and not the text "5"; write 5 without quotes`},
		"cel, text":         {asJSON, `{cel: 'data.amount == 5'}`, `data.amount is the text "5" and not a number; write int(data.amount)`},
		"cel, key's case":   {asJSON, `{cel: 'data.Amount == "5"'}`, `there is no data.Amount, but there is data.amount`},
		"cel, key's slip":   {nested, `{cel: 'data.user.nams == "x"'}`, `there is no data.user.nams, but there is data.user.name`},
		"cel, outer key":    {nested, `{cel: 'data.User.name == "x"'}`, `there is no data.User, but there is data.user`},
		"cel, no such key":  {nested, `{cel: 'data.tenant == "x"'}`, ``},
		"not JSON":          {e, `{cel: 'data.amount == 5'}`, `datacontenttype is "text/plain", which is not JSON`},
		"broken JSON":       {broken, `{cel: 'data.amount == 5'}`, `the body is not valid JSON`},
		"no body":           {bare, `{cel: 'data.amount == 5'}`, `the event has no body`},
		"no content type":   {untyped, `{cel: 'data.amount == 5'}`, `datacontenttype`},
		"error under a not": {e, `{not: {cel: 'ce.absent == "x"'}}`, `could not be evaluated`},
	} {
		t.Run(name, func(t *testing.T) {
			f := compile(t, c, parse(t, `spec: {filters: [`+tc.filter+`]}`))
			ex := f.Explain(trigger.NewInput(tc.event))
			hint := ex.Hint
			for _, failure := range ex.Failures() {
				hint += failure.Hint
			}
			if !strings.Contains(hint, tc.hint) || (hint == "") != (tc.hint == "") {
				t.Errorf("got hint %q, want %q:\n%s", hint, tc.hint, ex)
			}
		})
	}
}
