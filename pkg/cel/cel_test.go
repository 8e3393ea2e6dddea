package cel

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"millrace.dev/pkg/event"
)

func newEnv(t testing.TB) *Env {
	t.Helper()
	env, err := NewEnv()
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func compile(t testing.TB, env *Env, expr string) *Program {
	t.Helper()
	p, err := env.Compile(expr)
	if err != nil {
		t.Fatalf("compile %s: %v", expr, err)
	}
	return p
}

// jsonEvent returns an event with the required attributes, pairs of further ones, and a JSON body.
func jsonEvent(data string, attributes ...string) *event.Event {
	e := &event.Event{Data: []byte(data)}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "1", event.String)
	e.Set(event.Source, "/shop", event.String)
	e.Set(event.Type, "order.created", event.String)
	if data != "" {
		e.Set(event.DataContentType, "application/json", event.String)
	}
	for i := 0; i < len(attributes); i += 2 {
		e.Set(attributes[i], attributes[i+1], event.String)
	}
	return e
}

const orderJSON = `{
	"amount": 250, "price": 9.99, "whole": 10.0, "ratio": 1e-3, "negative": -5, "big": 9223372036854775807,
	"unsigned": 18446744073709551615, "huge": 123456789012345678901234567890, "far": 1e999,
	"paid": true, "note": null, "text": "Hello, Wörld", "day": "2026-02-03T04:05:06Z", "b64": "aGVsbG8=",
	"customer": {"name": "Ada", "tags": ["vip", "eu"]},
	"items": [{"sku": "a1", "qty": 2}, {"sku": "b2", "qty": 0}], "empty": [], "n": ["3", 4]
}`

func order() *event.Event {
	e := jsonEvent(orderJSON, "subject", "orders/17", "time", "2026-02-03T04:05:06.123456789Z", "partitionkey", "k1",
		"knativeerrorcode", "503", "recordedtime", "2026-02-03t05:05:06z")
	e.Set("count", "42", event.Integer)
	e.Set("urgent", "true", event.Boolean)
	return e
}

func TestEvalTrue(t *testing.T) {
	env := newEnv(t)
	for family, exprs := range map[string][]string{
		"attributes": {
			`ce.type == "order.created"`, `ce["partitionkey"] == "k1"`, `ce.type in ["order.created", "order.paid"]`,
			`ce.source != "/other"`, `has(ce.subject)`, `!has(ce.dataschema)`, `"subject" in ce`, `!("dataschema" in ce)`,
			`ce.?dataschema.orValue("none") == "none"`, `ce[?"subject"].hasValue()`, `size(ce) == 12`,
			`ce.exists(k, k == "source")`, `ce.exists(k, v, k == "source" && v == "/shop")`, `ce.all(k, k.size() > 1)`,
			`ce == ce`, `ce.count == 42`, `ce.count + 1 == 43`, `ce.count >= 41.5`, `ce.urgent`, `!(ce.urgent == false)`,
			`ce.knativeerrorcode == 503`, `ce.knativeerrorcode / 100 == 5`, `type(ce) == map`, `.ce.type == "order.created"`,
		},
		"timestamps": {
			`ce.time == timestamp("2026-02-03T04:05:06.123456789Z")`, `ce.time > timestamp("2026-01-01T00:00:00Z")`,
			`ce.time.getFullYear() == 2026`, `ce.time.getHours() == 4`, `ce.time.getDayOfWeek() == 2`,
			`ce.recordedtime - ce.time < duration("1h")`, `timestamp(data.day) < ce.time`,
			`ce.time.getHours("+02:00") == 6`, `type(ce.time) == google.protobuf.Timestamp`,
		},
		"numbers": {
			`data.amount == 250`, `data.amount > 100`, `data.amount > 249.5`, `data.amount == 250.0`, `data.whole == 10`,
			`data.price >= 9.99`, `data.price < 10`, `data.whole >= 9.99`, `data.ratio == 0.001`, `data.negative < 0`,
			`data.big == 9223372036854775807`, `data.unsigned == 18446744073709551615u`, `data.unsigned > data.big`,
			`data.amount in [1, 250.0]`, `data.amount % 7 == 5`, `int(data.n[0]) == 3`, `data.n[1] == 4`, `double(data.amount) == 250.0`,
			`math.greatest(data.amount, 300) == 300`, `math.least([1, 2.5, -3]) == -3`, `math.abs(data.negative) == 5`,
			`math.ceil(data.price) == 10.0`, `math.bitAnd(data.amount, 3) == 2`,
		},
		"presence": {
			`has(data.amount)`, `!has(data.missing)`, `has(data.note)`, `data.note == null`, `has(data.customer.name)`,
			`data.?customer.?name.orValue("") == "Ada"`, `data.?user.?name.orValue("") == ""`, `!data.?user.hasValue()`,
			`data.items[?9].orValue({}) == {}`, `data.?customer.optMap(c, c.name == "Ada").orValue(false)`,
			`optional.ofNonZeroValue("").orValue("x") == "x"`, `data.empty == []`, `size(data.empty) == 0`,
			`data.paid`, `data.paid && ce.urgent`, `data.missing == 1 || data.amount == 250`,
			`"amount" in data`, `data["amount"] == 250`,
		},
		"strings": {
			`ce.type.startsWith("order.")`, `ce.type.endsWith("created")`, `data.text.contains("Wör")`, `data.text.size() == 12`,
			`data.text.matches("^Hello, \\S+$")`, `"^order".matches("\\^order")`, `ce.subject.split("/")[1] == "17"`,
			`ce.subject.substring(7) == "17"`, `ce.subject.indexOf("/") == 6`, `ce.subject.lastIndexOf("s") == 5`,
			`data.text.charAt(8) == "ö"`, `data.text.upperAscii() == "HELLO, WöRLD"`, `data.text.lowerAscii().startsWith("hello")`,
			`ce.type.replace(".", "-") == "order-created"`, `"  x ".trim() == "x"`, `"abc".reverse() == "cba"`,
			`["a", "b"].join("-") == "a-b"`, `"%s=%d".format(["n", 5]) == "n=5"`, `strings.quote("a") == "\"a\""`,
			`string(data.amount) == "250"`, `ce.type + "!" == "order.created!"`, `"b" > "a"`, `ce.type < "p"`,
			`base64.encode(b"hello") == data.b64`, `string(base64.decode(data.b64)) == "hello"`,
		},
		"lists and sets": {
			`data.items.exists(i, i.sku == "b2")`, `data.items.all(i, i.qty >= 0)`, `data.items.exists_one(i, i.qty == 0)`,
			`data.items.filter(i, i.qty > 0).size() == 1`, `data.items.map(i, i.sku) == ["a1", "b2"]`,
			`data.items.map(i, i.qty > 0, i.sku) == ["a1"]`, `data.items.exists(i, v, i == 1 && v.sku == "b2")`,
			`data.items.transformList(i, v, v.qty) == [2, 0]`, `data.customer.transformMap(k, v, k == "name", v) == {"name": "Ada"}`,
			`"vip" in data.customer.tags`, `data.customer.tags.sort() == ["eu", "vip"]`, `[1, 1, 2].distinct() == [1, 2]`,
			`data.items.sortBy(i, i.qty)[0].sku == "b2"`, `[[1], [2]].flatten() == [1, 2]`, `[1, 2, 3].slice(1, 3) == [2, 3]`,
			`[1, 2].reverse() == [2, 1]`, `lists.range(3) == [0, 1, 2]`, `[1, 2].first().orValue(0) == 1`,
			`sets.contains(data.customer.tags, ["eu"])`, `sets.intersects(data.customer.tags, ["us", "eu"])`,
			`sets.equivalent([1, 2], [2, 1, 1])`, `[1] + [2] == [1, 2]`, `data.customer.tags == ["vip", "eu"]`,
			`data.customer != data.items`, `{"a": 1}.a == 1`, `cel.bind(t, data.customer.tags, t[0] == "vip" && t[1] == "eu")`,
			`true ? data.paid : false`, `dyn(1) == 1.0`, `!(data.customer.tags == data.empty)`,
		},
	} {
		for _, expr := range exprs {
			t.Run(family+"/"+expr, func(t *testing.T) {
				got, err := compile(t, env, expr).Eval(NewInput(order()))
				if err != nil || !got {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
	}
}

func TestEvalErrors(t *testing.T) {
	env := newEnv(t)
	text := order()
	text.Set(event.DataContentType, "text/plain", event.String)
	tests := []struct {
		expr  string
		event *event.Event
		kind  ErrorKind
	}{
		{`ce.dataschema == "x"`, order(), KindMissing},
		{`ce["dataschema"] == "x"`, order(), KindMissing},
		{`data.missing > 1`, order(), KindMissing},
		{`data.items[7].sku == "x"`, order(), KindMissing},
		{`data.customer.missing.deeper == 1`, order(), KindMissing},
		{`data.text > 5`, order(), KindType},
		{`data.amount.startsWith("2")`, order(), KindType},
		{`data.amount.matches("2")`, order(), KindType},
		{`data.amount`, order(), KindType},
		{`data.amount + data.text == "x"`, order(), KindType},
		{`data.amount`, text, KindData},
		{`has(data.amount)`, text, KindData},
		{`data.?amount.hasValue()`, text, KindData},
		{`data == null`, jsonEvent(""), KindData},
		{`data == null`, jsonEvent(`{"a":`), KindData},
		{`data.huge > 1`, order(), KindData},
		{`data.far > 1.0`, order(), KindData},
		{`ce.time > timestamp("2026-01-01T00:00:00Z")`, jsonEvent("", "time", "today"), KindAttribute},
		{`ce.knativeerrorcode == 500`, jsonEvent("", "knativeerrorcode", "five"), KindAttribute},
		{`data.amount / 0 == 1`, order(), KindOther},
		{`int(data.text) == 1`, order(), KindType},
		{`data.text.charAt(99) == "x"`, order(), KindOther},
		{`"a".matches(ce.type + "(")`, jsonEvent(""), KindOther},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			got, err := compile(t, env, tt.expr).Eval(NewInput(tt.event))
			var evalErr *EvalError
			if got || !errors.As(err, &evalErr) {
				t.Fatalf("got %v, %v; want an EvalError", got, err)
			}
			if evalErr.Kind != tt.kind {
				t.Errorf("kind %v, want %v (%v)", evalErr.Kind, tt.kind, err)
			}
		})
	}
}

func TestErrorsAreAbsorbedByTheOtherOperand(t *testing.T) {
	env := newEnv(t)
	in := NewInput(jsonEvent(""))
	for expr, want := range map[string]bool{
		`data.x == 1 || ce.type == "order.created"`: true,
		`ce.type == "order.created" || data.x == 1`: true,
		`data.x == 1 && ce.type == "other"`:         false,
		`has(ce.subject) && ce.subject == "x"`:      false,
	} {
		if got, err := compile(t, env, expr).Eval(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", expr, got, err, want)
		}
	}
}

func TestUnusedLargeNumbersDoNoHarm(t *testing.T) {
	if got, err := compile(t, newEnv(t), `data.amount == 250 && has(data.huge)`).Eval(NewInput(order())); err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestUsesData(t *testing.T) {
	env := newEnv(t)
	for expr, want := range map[string]bool{
		`ce.type == "data"`:                  false,
		`data.x == 1`:                        true,
		`ce.type == "a" && has(data.x)`:      true,
		`[1].exists(x, x == data.y)`:         true,
		`ce.subject == "x" || .data.x == 1`:  true,
		`ce.exists(k, k == "partitionkey")`:  false,
		`{"data": 1}.data == 1`:              false,
		`cel.bind(x, data, x == "anything")`: true,
	} {
		if got := compile(t, env, expr).UsesData(); got != want {
			t.Errorf("%s: UsesData() = %v", expr, got)
		}
	}
}

func TestProgramIsSharedByGoroutines(t *testing.T) {
	env := newEnv(t)
	programs := []*Program{
		compile(t, env, `ce.id == data.id && data.items.exists(i, i == data.id)`),
		compile(t, env, `ce.id.matches("^[0-9]+$") && data.id in data.items`),
		compile(t, env, `ce.subject == "missing" || data.huge == 1`),
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			in := &Input{}
			for n := range 50 {
				id := fmt.Sprint(g*1000 + n)
				in.Reset(jsonEvent(`{"id": "`+id+`", "items": ["x", "`+id+`"]}`, "id", id))
				for i, p := range programs {
					if got, err := p.Eval(in); got != (i < 2) || (err == nil) != (i < 2) {
						t.Errorf("%s: got %v, %v", p.Expr(), got, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestMultilineExpression(t *testing.T) {
	expr := strings.Join([]string{`// only paid orders`, `ce.type == "order.created" &&`, `data.paid`}, "\n")
	if got, err := compile(t, newEnv(t), expr).Eval(NewInput(order())); err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
}
