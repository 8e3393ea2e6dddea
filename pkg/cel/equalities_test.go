package cel

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

func TestEqualities(t *testing.T) {
	env := newEnv(t)
	typeA := Equality{"type", []string{"a"}}
	for expr, want := range map[string][]Equality{
		`ce.type == "a"`:    {typeA},
		`"a" == ce.type`:    {typeA},
		`ce["type"] == "a"`: {typeA},
		`.ce.type == "a"`:   {typeA},
		`(ce.type == "a" && (data.x == 1)) && "s" == ce["source"]`:          {typeA, {"source", []string{"s"}}},
		`ce.type in ["b", "a", "b"]`:                                        {{"type", []string{"a", "b"}}},
		`ce.type == "a" || ce.type in ["c", "b"]`:                           {{"type", []string{"a", "b", "c"}}},
		`ce.type == "a" && data.x == 1 || ce.type == "a" && data.y == 1`:    {typeA},
		`(ce.type == "a" && ce.id == "1") || (ce.id == "2" && data.x == 1)`: {{"id", []string{"1", "2"}}},
		`ce.type == "a" || data.x == 1`:                                     nil,
		`ce.type == "a" || ce.source == "a"`:                                nil,
		`ce.type != "a"`:                                                    nil,
		`!(ce.type == "a")`:                                                 nil,
		`ce.type == data.type`:                                              nil,
		`ce.count == 1`:                                                     nil,
		`ce.count in ["1", 1]`:                                              nil,
		`ce.type in ["a", ?data.?x]`:                                        nil,
		`ce.type.startsWith("a")`:                                           nil,
		`data.type == "a"`:                                                  nil,
		`data.x ? ce.type == "a" : false`:                                   nil,
		`[1].exists(x, ce.type == "a")`:                                     nil,
		`has(ce.type)`:                                                      nil,
		`ce.?type.orValue("a") == "a"`:                                      nil,
		`ce.type in []`:                                                     {{"type", nil}},
	} {
		if diff := cmp.Diff(want, compile(t, env, expr).Equalities()); diff != "" {
			t.Errorf("%s: %s", expr, diff)
		}
	}
}

// drawExpr makes an expression over a small vocabulary, so that events often match.
func drawExpr(t *rapid.T, depth int) string {
	attribute := rapid.SampledFrom([]string{`ce.type`, `ce["type"]`, `ce.source`, `ce.ext`, `ce.count`, `ce.flag`})
	value := rapid.SampledFrom([]string{`"a"`, `"b"`, `""`, `"1"`, `"true"`})
	if depth == 0 || rapid.IntRange(0, 3).Draw(t, "leaf") == 0 {
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1, 2:
			return attribute.Draw(t, "a") + " == " + value.Draw(t, "v")
		case 3:
			return value.Draw(t, "v") + " == " + attribute.Draw(t, "a")
		case 4, 5:
			return attribute.Draw(t, "a") + " in [" + strings.Join(rapid.SliceOfN(value, 0, 3).Draw(t, "vs"), ", ") + "]"
		case 6:
			return attribute.Draw(t, "a") + " != " + value.Draw(t, "v")
		case 7:
			return rapid.SampledFrom([]string{"true", "false", "has(ce.ext)", "data.x == 1", "data.missing == 1", "ce.ext"}).Draw(t, "other")
		case 8:
			return `["a", "b"].exists(i, i == ` + attribute.Draw(t, "a") + ")"
		default:
			return attribute.Draw(t, "a") + " in [1, true, \"a\"]"
		}
	}
	l := drawExpr(t, depth-1)
	switch rapid.IntRange(0, 5).Draw(t, "op") {
	case 0, 1:
		return "(" + l + " && " + drawExpr(t, depth-1) + ")"
	case 2, 3:
		return "(" + l + " || " + drawExpr(t, depth-1) + ")"
	case 4:
		return "!(" + l + ")"
	default:
		return "(" + l + " ? " + drawExpr(t, depth-1) + " : " + drawExpr(t, depth-1) + ")"
	}
}

func drawEvent(t *rapid.T) *event.Event {
	e := &event.Event{}
	value := rapid.SampledFrom([]string{"a", "b", "", "1", "true"})
	for _, name := range []string{"type", "source", "ext"} {
		if rapid.Bool().Draw(t, "has "+name) {
			e.Set(name, value.Draw(t, name), event.String)
		}
	}
	if rapid.Bool().Draw(t, "has count") {
		e.Set("count", "1", event.Integer)
	}
	if rapid.Bool().Draw(t, "has flag") {
		e.Set("flag", "true", event.Boolean)
	}
	if rapid.Bool().Draw(t, "has data") {
		e.Set(event.DataContentType, "application/json", event.String)
		e.Data = []byte(`{"x": 1}`)
	}
	return e
}

func TestEqualitiesAreNecessary(t *testing.T) {
	env := newEnv(t)
	rapid.Check(t, func(t *rapid.T) {
		expr := drawExpr(t, 3)
		p, err := env.Compile(expr)
		if err != nil {
			t.Skip(err) // all its parts are constant, or it is too long
		}
		e := drawEvent(t)
		if ok, _ := p.Eval(NewInput(e)); !ok {
			return
		}
		for _, eq := range p.Equalities() {
			if v, ok := e.Get(eq.Attribute); !ok || !slices.Contains(eq.Values, v) {
				t.Errorf("%s is true although %s = %q (%v) is not in %q", expr, eq.Attribute, v, ok, eq.Values)
			}
		}
	})
}

func TestExplainAgreesWithEval(t *testing.T) {
	env := newEnv(t)
	rapid.Check(t, func(t *rapid.T) {
		expr := drawExpr(t, 2)
		p, err := env.Compile(expr)
		if err != nil {
			t.Skip(err)
		}
		e := drawEvent(t)
		ok, err := p.Eval(NewInput(e))
		x := p.Explain(NewInput(e))
		switch {
		case err != nil && (!x.Failed || x.Result != err.Error()),
			err == nil && ok != (x.Result == "true"), err == nil && x.Failed:
			t.Errorf("%s: Eval says %v, %v; Explain says %+v", expr, ok, err, x)
		}
		if diff := cmp.Diff(x, p.Explain(NewInput(e))); diff != "" {
			t.Errorf("%s: not the same twice: %s", expr, diff)
		}
	})
}
