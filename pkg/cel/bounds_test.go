package cel

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace.dev/pkg/event"
)

// hostile is the largest event there is: a long text of one letter, a long list and an object of many fields.
func hostile() *event.Event {
	var fields []string
	for i := range 2000 {
		fields = append(fields, fmt.Sprintf(`"f%d": %d`, i, i))
	}
	return jsonEvent(`{"s": "` + strings.Repeat("a", 400_000) + `", "list": [` + strings.Repeat("1,", 100_000) + `1], "o": {` + strings.Join(fields, ",") + `}}`)
}

func TestHostileExpressionsAreRefused(t *testing.T) {
	env := newEnv(t)
	tests := []struct{ name, expr, message string }{
		{"size", strings.Repeat(" ", MaxExpressionBytes) + "true", "the limit is 4096"},
		{"brackets", strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300), "nested deeper"},
		{"lists", strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + " == []", "nested deeper"},
		{"selections", "data" + strings.Repeat(".a", 1500) + " == 1", "nested deeper"},
		{"operations", strings.Repeat("1+", 1400) + "1 == 1", ""},
		{"three loops", `[1].all(a, [1].all(b, [1].all(c, true)))`, "more than 2 loops"},
		{"three mixed loops", `data.x.map(a, data.y.filter(b, data.z.exists(c, true)))`, "more than 2 loops"},
		{"quadratic in data", `data.list.all(i, data.list.all(j, i == j))`, "may cost"},
		{"quadratic in a derived list", `data.list.map(i, i).all(i, data.list.all(j, i == j))`, "may cost"},
		{"quadratic in an object", `data.o.all(k, v, data.o.transformMap(j, w, w).size() == 0)`, "may cost"},
		{"sort in a loop", `data.list.all(i, data.list.sort() == [])`, "may cost"},
		{"pattern from the event", `data.s.matches(data.s)`, "may cost"},
		{"deep binds", strings.Repeat("cel.bind(a, 1, ", 9) + "true" + strings.Repeat(")", 9), ""},
		{"large pattern", `data.s.matches("(a{50}){50}")`, "regular expression"},
		{"huge pattern", `data.s.matches("((a{100}){100}){100}")`, "regular expression"},
		{"bad pattern", `data.s.matches("(")`, "regular expression"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := env.Compile(tt.expr)
			var compileErr *CompileError
			if !errors.As(err, &compileErr) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got %v, want %q", err, tt.message)
			}
		})
	}
}

// Each of these compiles. None may take long, whatever it does to the largest event, or make a huge value.
func TestHostileEvaluationsAreStopped(t *testing.T) {
	env := newEnv(t)
	in := NewInput(hostile())
	in.Data()
	for _, expr := range []string{
		`data.s.replace("", data.s) == ""`, `data.s.replace("a", data.s) == ""`, `"a".replace("", data.s + data.s).replace("a", data.s) == ""`,
		`lists.range(10000).map(i, data.s).join() == ""`, `lists.range(10000).map(i, "").join(data.s) == ""`,
		`"%s%s%s%s%s%s".format([data, data, data, data, data, data]) == ""`,
		`cel.bind(a, data.s + data.s, cel.bind(b, a + a, cel.bind(c, b + b, cel.bind(d, c + c, d + d == ""))))`,
		`cel.bind(a, data.list + data.list, cel.bind(b, a + a, cel.bind(c, b + b, cel.bind(d, c + c, 2 in d))))`,
		"strings.quote(strings.quote(strings.quote(strings.quote(data.s)))).size() == 0",
		strings.Repeat("base64.encode(bytes(", 12) + "data.s" + strings.Repeat("))", 12) + ` == ""`,
		`lists.range(1000000000).size() == 0`, `lists.range(10001).size() == 0`,
		`lists.range(10000).map(i, data.list).flatten().size() == 0`,
		`data.list.distinct().size() == 0`, `data.list.sort() == []`, `data.list.sortBy(i, -i) == []`,
		`sets.equivalent(data.list, data.list)`, `sets.contains(data.list, data.list.map(i, i + 1))`,
		`[data] in lists.range(1000).map(i, [data])`,
		`data.s.indexOf(data.s + "b") == 0`, `data.s.indexOf("` + strings.Repeat("a", 1000) + `b") == 0`, `data.s.lastIndexOf("b" + "` + strings.Repeat("a", 1000) + `") == 0`,
		`data.s.matches("^(a|aa|aaa|aaaa)*b$")`, `data.s.matches("(a?){100}b")`, `data.s.split("").exists(c, c == "b")`,
		`cel.bind(a, [data, data, data, data, data, data, data, data], cel.bind(b, [a, a, a, a, a, a, a, a], cel.bind(c, [b, b, b, b, b, b, b, b], c == c)))`,
		`lists.range(10000).map(i, data) != lists.range(10000).map(i, data)`,
		`lists.range(10000).exists(i, size(data.s) == i)`, `lists.range(10000).exists(i, data.s.charAt(i) == "b")`,
		`lists.range(10000).exists(i, data.s.upperAscii() == "b")`, `lists.range(1000).exists(i, data.s + "b" == data.s + "a")`,
		`lists.range(10000).all(i, lists.range(10000).all(j, i + j >= 0))`, `lists.range(5000).all(i, lists.range(10000).filter(j, false) == [])`,
		`lists.range(1000).map(i, lists.range(10000).map(j, [i, j])).size() == 0`,
		`lists.range(10000).exists(i, data.list.slice(0, 100000) == [])`, `lists.range(10000).exists(i, math.greatest(data.list) == 2)`,
		`lists.range(10000).exists(i, data.o != data.o)`, `lists.range(100).all(i, data.o.transformMap(j, w, w).size() > i)`,
		strings.Repeat(`data.s.reverse() == "" || `, 100) + "false", strings.Repeat(`data == data && `, 250) + "false",
	} {
		name := expr[:min(len(expr), 100)]
		t.Run(name, func(t *testing.T) {
			p, err := env.Compile(expr)
			if err != nil {
				t.Fatal(err)
			}
			in.stopClock()
			start := time.Now()
			_, err = p.Eval(in)
			// Some tens of milliseconds on an idle machine; unbounded, most would take minutes or all the memory.
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			var evalErr *EvalError
			if !errors.As(err, &evalErr) {
				t.Fatalf("not stopped: %v", err)
			}
			switch {
			case evalErr.Kind == KindCost, evalErr.Kind == KindDeadline, strings.HasPrefix(expr, "lists.range(1000"):
			default:
				t.Errorf("stopped by %v: %v", evalErr.Kind, err)
			}
		})
	}
}

// A loop that makes no calls takes no work, so that only the clock ends it.
func TestDeadline(t *testing.T) {
	p := compile(t, newEnv(t), `lists.range(5000).all(i, lists.range(10000).filter(j, false) == [])`)
	in := NewInput(jsonEvent(""))
	_, err := p.Eval(in)
	var evalErr *EvalError
	if !errors.As(err, &evalErr) || evalErr.Kind != KindDeadline {
		t.Fatalf("got %v", err)
	}
	if got, err := compile(t, newEnv(t), `ce.type.matches("^order") && !has(ce.subject)`).Eval(in); err != nil || !got {
		t.Errorf("a filter without a loop after it: got %v, %v", got, err)
	}
}

func TestOrdinaryFiltersAreFarFromTheBounds(t *testing.T) {
	env := newEnv(t)
	items := strings.Repeat(`{"sku": "abcdefgh", "qty": 3, "tags": ["red", "green", "blue"]},`, 50)
	in := NewInput(jsonEvent(`{"items": [` + items + `{}]}`))
	for _, expr := range []string{
		`data.items.exists(i, i.?sku.orValue("") == "none" || i.?qty.orValue(0) > 5)`,
		`data.items.exists(i, i.?tags.orValue([]).exists(t, t == "yellow"))`,
		`data.items.exists(i, i.?sku.orValue("").matches("^[x-z]+$"))`,
	} {
		if got, err := compile(t, env, expr).Eval(in); err != nil || got {
			t.Errorf("%s: got %v, %v", expr, got, err)
		}
		if used := MaxCost - in.fuel; used > MaxCost/80 {
			t.Errorf("%s took %d units of work", expr, used)
		}
	}
}
