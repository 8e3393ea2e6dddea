package trigger_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

func TestCESQLErrorsArePlaced(t *testing.T) {
	c := newCompiler(t)
	for expr, want := range map[string]string{
		`type == 'a'`:               `line 1, column 7: unexpected "="; CESQL compares with a single =`,
		`type = 'a' && id = 'b'`:    `line 1, column 12: unexpected "&"; CESQL writes AND`,
		`data.amount > 5`:           `line 1, column 5: unexpected "."; CESQL sees attributes only`,
		`type = 'a' AND`:            `line 1, column 15: the expression ends too early`,
		"type =\n  'a":              `line 2, column 3: unexpected "'"; the string is not closed`,
		`type IN ['a']`:             `unexpected "["; CESQL writes sets in round brackets`,
		`FOO(type)`:                 `line 1, column 1: there is no function FOO with 1 arguments`,
		`id = '1' AND LENGTH() = 1`: `line 1, column 14: there is no function LENGTH with 0 arguments`,
		`count = 99999999999`:       `value out of range`,
		` `:                         `the expression ends too early`,
		`a b`:                       `line 1, column 3: unexpected "b"`,
		`type LIKE '` + strings.Repeat("%a", 300) + `'`:            `longer than 512 bytes`,
		strings.Repeat("(", 65) + "TRUE" + strings.Repeat(")", 65): `brackets nest deeper than 64`,
		`CONCAT(` + strings.Repeat("type,", 200) + `type) = ''`:    `more than 128 arguments`,
	} {
		_, errs := c.Compile(&eventingv1.Trigger{Spec: eventingv1.TriggerSpec{Filters: []eventingv1.Filter{{CESQL: expr}}}})
		if len(errs) != 1 || errs[0].Field != "spec.filters[0].cesql" || !strings.Contains(errs[0].Detail, want) {
			t.Errorf("%.60q: got %v, want %s", expr, errs, want)
		}
	}
}

func TestCESQLFailuresAreCounted(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("id", "1", "source", "/a", "type", "b", "text", "x")
	e.Set("number", "7", event.Integer)
	for _, expr := range []string{
		`1 / 0 = 1`, `absent = 'a'`, `'text'`, `number`, `text > 5`, `SUBSTRING(type, 1, -5) = 'a'`, `LEFT(type, -1) = ''`,
	} {
		f := byFilters(t, c, eventingv1.Filter{CESQL: expr})
		in := trigger.NewInput(e)
		if f.Match(in) || in.Errors().CESQL != 1 {
			t.Errorf("%s: match %v, %d errors, want no match and one error", expr, f.Match(in), in.Errors().CESQL)
		}
		if ex := f.Explain(in); ex.Matched || ex.Error == "" {
			t.Errorf("%s: explanation %+v", expr, ex)
		}
	}
}

// TestCESQLSeesTheEventAsSent has values that the SDK's own types would spell differently.
func TestCESQLSeesTheEventAsSent(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("specversion", "0.3", "id", "1", "source", "HTTP://Example.com/a b", "type", "b", "schemaurl", "x")
	e.Set("big", "4294967296", event.Integer)
	e.Set("zero", "007", event.Integer)
	for _, expr := range []string{
		`specversion = '0.3'`, `source = 'HTTP://Example.com/a b'`, `schemaurl = 'x'`, `big = '4294967296'`, `zero = '007'`,
	} {
		if f := byFilters(t, c, eventingv1.Filter{CESQL: expr}); !f.Match(trigger.NewInput(e)) {
			t.Errorf("%s: %s", expr, f.Explain(trigger.NewInput(e)))
		}
	}
}

// TestCESQLIsBounded has the most expensive expressions that compile, on the largest attribute that a Broker accepts.
func TestCESQLIsBounded(t *testing.T) {
	c := newCompiler(t)
	e := anEvent("id", "1", "source", "/a", "type", strings.Repeat("a", 64<<10))
	for name, expr := range map[string]string{
		"like":   `type LIKE '%` + strings.Repeat("a", 500) + `b%'`,
		"concat": `LENGTH(CONCAT(` + strings.Repeat("type,", 125) + `type)) > 5`,
		"or":     strings.Repeat("id = '2' OR ", 300) + `id = '3'`,
		"sum":    strings.Repeat("1 + ", 1000) + "1 = 5",
		"parens": strings.Repeat("(", 60) + "TRUE" + strings.Repeat(")", 60),
		"minus":  strings.Repeat("- ", 2000) + "id = 5",
		"not":    strings.Repeat("NOT ", 1000) + "TRUE",
		"in":     "id IN (" + strings.Repeat("'1',", 1000) + "'2')",
	} {
		start := time.Now()
		f := byFilters(t, c, eventingv1.Filter{CESQL: expr})
		compiled := time.Now()
		f.Match(trigger.NewInput(e))
		t.Logf("%s: compile %v, match %v", name, compiled.Sub(start), time.Since(compiled))
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}

func TestCESQLCompilesConcurrently(t *testing.T) {
	c := newCompiler(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, expr := range cesqlExpressions {
				if _, errs := c.Compile(&eventingv1.Trigger{Spec: eventingv1.TriggerSpec{
					Filters: []eventingv1.Filter{{CESQL: expr}},
				}}); len(errs) > 0 {
					t.Error(errs.ToAggregate())
				}
			}
		})
	}
	wg.Wait()
}
