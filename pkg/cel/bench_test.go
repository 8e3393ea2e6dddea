package cel

import (
	"testing"
)

func benchmarks() map[string]string {
	return map[string]string{
		"equality":   `ce.type == "order.created"`,
		"and":        `ce.type == "order.created" && ce.source == "/shop" && ce["partitionkey"] == "k1"`,
		"in":         `ce.type in ["a", "b", "order.created"]`,
		"absent":     `ce.dataschema == "x"`,
		"prefix":     `ce.type.startsWith("order.")`,
		"regex":      `ce.subject.matches("^orders/[0-9]+$")`,
		"timestamp":  `ce.time > timestamp("2026-01-01T00:00:00Z")`,
		"data":       `data.amount > 100`,
		"optional":   `data.?customer.?name.orValue("") == "Ada"`,
		"loop":       `data.items.exists(i, i.sku == "b2")`,
		"everything": `ce.type == "order.created" && data.amount > 100 && data.items.exists(i, i.sku == "b2" && i.qty == 0)`,
	}
}

// BenchmarkEval measures an evaluation with the body already parsed and attributes converted, as it is for all but the
// first of the programs that look at an event.
func BenchmarkEval(b *testing.B) {
	env := newEnv(b)
	for name, expr := range benchmarks() {
		b.Run(name, func(b *testing.B) {
			p := compile(b, env, expr)
			in := NewInput(order())
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.Eval(in)
			}
			in.stopClock()
		})
	}
}

// BenchmarkEvent measures a new event each time.
func BenchmarkEvent(b *testing.B) {
	env := newEnv(b)
	for _, name := range []string{"equality", "data"} {
		b.Run(name, func(b *testing.B) {
			p := compile(b, env, benchmarks()[name])
			e := order()
			in := NewInput(e)
			b.ReportAllocs()
			for b.Loop() {
				in.Reset(e)
				_, _ = p.Eval(in)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	env := newEnv(b)
	b.ReportAllocs()
	for b.Loop() {
		compile(b, env, benchmarks()["everything"])
	}
}

func TestAllocations(t *testing.T) {
	env := newEnv(t)
	in := NewInput(order())
	for name, limit := range map[string]float64{"equality": 0, "and": 0, "in": 0, "prefix": 1, "regex": 0, "timestamp": 2, "data": 2} {
		p := compile(t, env, benchmarks()[name])
		if n := testing.AllocsPerRun(200, func() { _, _ = p.Eval(in) }); n > limit+1 { // the evaluator's pools may be emptied
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
