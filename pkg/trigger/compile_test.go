package trigger_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// parse reads a Trigger's metadata and spec from YAML.
func parse(t testing.TB, text string) *eventingv1.Trigger {
	t.Helper()
	tr := &eventingv1.Trigger{}
	if err := yaml.UnmarshalStrict([]byte(text), tr); err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestMatch(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("specversion", "1.0", "id", "1", "source", "/shop/oslo", "type", "gift.sent",
		"datacontenttype", "application/json", "time", "2026-01-02T03:04:05Z", "empty", "")
	e.Set("count", "5", event.Integer)
	e.Set("urgent", "true", event.Boolean)
	e.Data = []byte(`{"amount": 25}`)
	for name, tc := range map[string]struct {
		spec string
		want bool
	}{
		"no filter":                    {`spec: {}`, true},
		"empty filter":                 {`spec: {filter: {}}`, true},
		"empty attributes":             {`spec: {filter: {attributes: {}}}`, true},
		"attributes":                   {`spec: {filter: {attributes: {type: gift.sent, source: /shop/oslo}}}`, true},
		"attributes, one differs":      {`spec: {filter: {attributes: {type: gift.sent, source: /shop}}}`, false},
		"attributes, case":             {`spec: {filter: {attributes: {type: Gift.sent}}}`, false},
		"attributes, present":          {`spec: {filter: {attributes: {type: ""}}}`, true},
		"attributes, absent":           {`spec: {filter: {attributes: {subject: ""}}}`, false},
		"attributes, present, empty":   {`spec: {filter: {attributes: {empty: ""}}}`, false},
		"attributes, integer":          {`spec: {filter: {attributes: {count: "5"}}}`, true},
		"attributes, boolean":          {`spec: {filter: {attributes: {urgent: "true"}}}`, true},
		"attributes, specversion":      {`spec: {filter: {attributes: {specversion: "1.0"}}}`, true},
		"attributes, time":             {`spec: {filter: {attributes: {time: "2026-01-02T03:04:05Z"}}}`, true},
		"source and type":              {`spec: {filter: {sourceAndType: {source: /shop/oslo, type: gift.sent}}}`, true},
		"source and type, source":      {`spec: {filter: {sourceAndType: {source: /shop/oslo}}}`, true},
		"source and type, type":        {`spec: {filter: {sourceAndType: {type: gift.lost}}}`, false},
		"source and type, any":         {`spec: {filter: {sourceAndType: {}}}`, true},
		"cel":                          {`spec: {filter: {cel: 'data.amount > 20'}}`, true},
		"cel and attributes":           {`spec: {filter: {cel: 'data.amount > 20', attributes: {type: x}}}`, false},
		"annotation":                   {`{metadata: {annotations: {millrace.dev/cel-filter: 'data.amount > 30'}}}`, false},
		"annotation and filters":       {`{metadata: {annotations: {millrace.dev/cel-filter: 'data.amount > 20'}}, spec: {filters: [{exact: {type: x}}]}}`, false},
		"annotation and filters, both": {`{metadata: {annotations: {millrace.dev/cel-filter: 'data.amount > 20'}}, spec: {filters: [{exact: {type: gift.sent}}]}}`, true},
		"filters replace filter":       {`spec: {filter: {attributes: {type: x}}, filters: [{exact: {type: gift.sent}}]}`, true},
		"empty filters do not":         {`spec: {filter: {attributes: {type: x}}, filters: []}`, false},
		"elements are anded":           {`spec: {filters: [{exact: {type: gift.sent}}, {prefix: {source: /store}}]}`, false},
		"keys are anded":               {`spec: {filters: [{prefix: {type: gift, source: /store}}]}`, false},
		"prefix":                       {`spec: {filters: [{prefix: {type: gift., source: /shop/oslo}}]}`, true},
		"suffix":                       {`spec: {filters: [{suffix: {type: .sent, source: /oslo}}]}`, true},
		"suffix too long":              {`spec: {filters: [{suffix: {type: a.gift.sent}}]}`, false},
		"all":                          {`spec: {filters: [{all: [{exact: {type: gift.sent}}, {suffix: {source: oslo}}]}]}`, true},
		"any":                          {`spec: {filters: [{any: [{exact: {type: x}}, {suffix: {source: oslo}}]}]}`, true},
		"any of none":                  {`spec: {filters: [{any: [{exact: {type: x}}, {suffix: {source: x}}]}]}`, false},
		"not":                          {`spec: {filters: [{not: {exact: {type: x}}}]}`, true},
		"not of absent":                {`spec: {filters: [{not: {exact: {subject: x}}}]}`, true},
		"not not":                      {`spec: {filters: [{not: {not: {exact: {type: gift.sent}}}}]}`, true},
		"cesql":                        {`spec: {filters: [{cesql: "type LIKE 'gift.%' AND count > 4"}]}`, true},
		"cel, nested":                  {`spec: {filters: [{any: [{not: {cel: 'true'}}, {cel: 'ce.count == 5'}]}]}`, true},
		"failed cel":                   {`spec: {filters: [{cel: 'data.missing > 5'}]}`, false},
		"failed cel, negated":          {`spec: {filters: [{not: {cel: 'data.missing > 5'}}]}`, true},
		"attributes as an element":     {`spec: {filters: [{attributes: {type: gift.sent, subject: ""}}]}`, false},
		"source and type, element":     {`spec: {filters: [{sourceAndType: {type: gift.sent}}]}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := compile(t, c, parse(t, tc.spec))
			if got := f.Match(trigger.NewInput(e)); got != tc.want {
				t.Errorf("Match is %v, want %v:\n%s", got, tc.want, f.Explain(trigger.NewInput(e)))
			}
		})
	}
}

func nested(dialect string, depth int) string {
	spec := `{exact: {type: a}}`
	for range depth - 1 {
		if dialect == "not" {
			spec = `{not: ` + spec + `}`
		} else {
			spec = `{` + dialect + `: [` + spec + `]}`
		}
	}
	return `spec: {filters: [` + spec + `]}`
}

// TestCompileErrors checks the field and the advice of each error.
func TestCompileErrors(t *testing.T) {
	c := newCompiler(t)
	for name, tc := range map[string]struct {
		spec, field, detail string
	}{
		"empty element":       {`spec: {filters: [{}]}`, "spec.filters[0]", "set one of"},
		"empty map":           {`spec: {filters: [{exact: {}}]}`, "spec.filters[0]", "set one of"},
		"empty all":           {`spec: {filters: [{all: []}]}`, "spec.filters[0]", "set one of"},
		"empty not":           {`spec: {filters: [{not: {}}]}`, "spec.filters[0].not", "set one of"},
		"empty in any":        {`spec: {filters: [{any: [{exact: {type: b}}, {}]}]}`, "spec.filters[0].any[1]", "set one of"},
		"empty value":         {`spec: {filters: [{prefix: {type: ""}}]}`, "spec.filters[0].prefix[type]", `write attributes: {type: ""}`},
		"empty value of two":  {`spec: {filters: [{exact: {source: "", type: b}}]}`, "spec.filters[0].exact[source]", "write a value"},
		"two dialects":        {`spec: {filters: [{exact: {type: a}, prefix: {type: b}}]}`, "spec.filters[0]", "sets exact and prefix"},
		"both":                {`spec: {filter: {attributes: {type: a}, sourceAndType: {source: b}}}`, "spec.filter.sourceAndType", "together with attributes"},
		"upper case":          {`spec: {filter: {attributes: {Type: a}}}`, "spec.filter.attributes[Type]", `did you mean "type"?`},
		"header name":         {`spec: {filters: [{exact: {ce-type: a}}]}`, "spec.filters[0].exact[ce-type]", `did you mean "type"?`},
		"cel name":            {`spec: {filters: [{all: [{cel: 'true'}, {suffix: {ce.partition_key: a}}]}]}`, "spec.filters[0].all[1].suffix[ce.partition_key]", `did you mean "partitionkey"?`},
		"no name":             {`spec: {filters: [{exact: {"": a}}]}`, "spec.filters[0].exact[]", "lower-case letters and digits"},
		"data":                {`spec: {filters: [{exact: {data: a}}]}`, "spec.filters[0].exact[data]", "use cel"},
		"data field":          {`spec: {filters: [{exact: {data.amount: "5"}}]}`, "spec.filters[0].exact[data.amount]", "use cel"},
		"cel":                 {`spec: {filters: [{all: [{exact: {type: a}}, {cel: 'ce.type = "a"'}]}]}`, "spec.filters[0].all[1].cel", "=="},
		"cel too long":        {`spec: {filter: {cel: '` + strings.Repeat("a", 4097) + `'}}`, "spec.filter.cel", "4096"},
		"cesql too long":      {`spec: {filters: [{cesql: '` + strings.Repeat("a", 4097) + `'}]}`, "spec.filters[0].cesql", "4096"},
		"annotation":          {`{metadata: {annotations: {millrace.dev/cel-filter: 'oops'}}}`, "metadata.annotations[millrace.dev/cel-filter]", "oops"},
		"empty annotation":    {`{metadata: {annotations: {millrace.dev/cel-filter: ''}}}`, "metadata.annotations[millrace.dev/cel-filter]", ""},
		"cesql":               {`spec: {filters: [{cesql: 'type =='}]}`, "spec.filters[0].cesql", "single ="},
		"deep not":            {nested("not", 17), "spec.filters[0]" + strings.Repeat(".not", 16), "deeper than 16"},
		"deep all":            {nested("all", 17), "spec.filters[0]" + strings.Repeat(".all[0]", 16), "deeper than 16"},
		"too many elements":   {`spec: {filters: [` + strings.Repeat(`{exact: {type: a}},`, 600) + `]}`, "spec.filters[512]", "more than 1024"},
		"too many attributes": {`spec: {filter: {attributes: {` + manyPairs(1025) + `}}}`, "spec.filter.attributes[a999]", "more than 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := parse(t, tc.spec)
			f, errs := c.Compile(tr)
			if f != nil || len(errs) != 1 || errs[0].Field != tc.field || !strings.Contains(errs[0].ErrorBody(), tc.detail) {
				t.Errorf("got %v, want %s: %s", errs, tc.field, tc.detail)
			}
		})
	}
}

func manyPairs(n int) string {
	var pairs []string
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("a%03d: b", i))
	}
	return strings.Join(pairs, ", ")
}

func TestLargestFiltersCompile(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("type", "a")
	for _, spec := range []string{
		nested("not", 15), nested("all", 16), nested("any", 16),
		`spec: {filters: [{any: [` + strings.Repeat(`{prefix: {type: a}},`, 511) + `]}]}`,
	} {
		if !compile(t, c, parse(t, spec)).Match(trigger.NewInput(e)) {
			t.Errorf("%.60s does not match", spec)
		}
	}
}

func FuzzCompileFilter(f *testing.F) {
	for _, spec := range []string{
		`{"filter": {"attributes": {"type": "a", "Type": "", "data": "x"}, "sourceAndType": {}, "cel": "ce.type == 'a'"}}`,
		`{"filters": [{"all": [{"any": [{"not": {"exact": {"type": "a"}}}, {}]}], "prefix": {"a": "b"}, "suffix": {"c": ""}}]}`,
		`{"filters": [{"cesql": "type LIKE 'a%' AND EXISTS x"}, {"cesql": "'"}, {"cel": "data.a[0] in [1"}]}`,
		`{"filters": [{"cesql": "LENGTH(CONCAT(type, 1 + - 2)) IN (1, '2') XOR NOT a <> \"b\""}]}`,
	} {
		f.Add([]byte(spec))
	}
	c, err := trigger.NewCompiler()
	if err != nil {
		f.Fatal(err)
	}
	e := anEvent("specversion", "1.0", "id", "1", "source", "/a", "type", "a", "datacontenttype", "application/json")
	e.Data = []byte(`{"a": [1]}`)
	f.Fuzz(func(t *testing.T, text []byte) {
		tr := &eventingv1.Trigger{}
		if json.Unmarshal(text, &tr.Spec) != nil {
			return
		}
		filter, errs := c.Compile(tr)
		if (filter == nil) == (len(errs) == 0) {
			t.Fatalf("got filter %v and errors %v", filter, errs)
		}
		if filter == nil {
			return
		}
		in := trigger.NewInput(e)
		want := filter.Match(in)
		table := trigger.NewTable([]trigger.Entry[bool]{{Filter: filter, Target: true}})
		if got := len(table.Match(in, nil)) == 1; got != want && in.Errors().CELDeadline == 0 {
			t.Fatalf("table says %v, filter %v", got, want)
		}
		if got := filter.Explain(in).Matched; got != want && in.Errors().CELDeadline == 0 {
			t.Fatalf("explanation says %v, filter %v", got, want)
		}
	})
}

// TestMalformedFilterIsReported has filters that the API server's schema lets through: one that cannot be decoded must
// neither hide the Trigger from its readers nor match anything.
func TestMalformedFilterIsReported(t *testing.T) {
	c := newCompiler(t)
	for text, at := range map[string]string{
		`{any: [{exact: 5}]}`:                  "spec.filters[0].any[0]",
		`{not: {prefix: {type: [a]}}}`:         "spec.filters[0].not",
		`{all: everything}`:                    "spec.filters[0]",
		`{all: [{any: [{exact: {type: 1}}]}]}`: "spec.filters[0].all[0].any[0]",
	} {
		var tr eventingv1.Trigger
		if err := yaml.Unmarshal([]byte("{spec: {filters: ["+text+"]}}"), &tr); err != nil {
			t.Errorf("%s: does not decode: %v", text, err)
			continue
		}
		f, errs := c.Compile(&tr)
		if f != nil || len(errs) != 1 || errs[0].Field != at || !strings.Contains(errs[0].Detail, "is no filter: ") {
			t.Errorf("%s: got filter %v and errors %v, want one error at %s", text, f, errs, at)
		}
	}
}
