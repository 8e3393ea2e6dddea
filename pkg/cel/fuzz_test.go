package cel

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"millrace.dev/pkg/event"
)

func seeds() []string {
	return []string{
		`ce.type == "order.created"`, `data.items.exists(i, i.qty > 1) && ce["partitionkey"] != ""`, `ce.type = 1`,
		`"a".replace("", data.s).matches("(a?){9}$")`, `lists.range(9).map(i, [i, i]).flatten().distinct().sort() == []`,
		`cel.bind(a, data, cel.bind(b, [a, a], b == b))`, `data.?a[?0].orValue({}) == {"a": 1.5e300, 1u: b"\xff"}`,
		`timestamp(ce.time).getHours("Europe/Berlin") > 3 || duration("1h") < ce.time - ce.time`, `"%s%d%.3f%e%x%b".format([data, 1, 2.0, 3.0, 4, 5]) != ""`,
		`ce.all(k, v, k in data && data[k] == v)`, `!!!!true`, `[[[[]]]]`, `((((`, "ce.type == '\x00\xff\u2028'", `math.greatest(data.n) in sets`,
	}
}

// FuzzCompile checks that no text makes the compiler panic or take long, and that errors point into the text.
func FuzzCompile(f *testing.F) {
	env := newEnv(f)
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		start := time.Now()
		p, err := env.Compile(expr)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if err != nil {
			var compileErr *CompileError
			if !errors.As(err, &compileErr) || compileErr.Message == "" {
				t.Errorf("not a CompileError: %v", err)
			}
			_ = compileErr.Snippet()
			return
		}
		_, _ = p.Eval(NewInput(order()))
		p.Explain(NewInput(order()))
	})
}

// FuzzEval checks that no event makes an evaluation panic or take long, and that it gives the same result twice.
func FuzzEval(f *testing.F) {
	env := newEnv(f)
	for i, data := range []string{orderJSON, `{"a": [1, 2, {"b": null}]}`, `[1e400, -0, 123456789012345678901]`, `"\ud800"`, `{`, ``} {
		f.Add(seeds()[i], []byte(data), "2026-02-03T04:05:06Z", "503")
		f.Add(seeds()[i+6], []byte(data), "never", "x")
	}
	f.Fuzz(func(t *testing.T, expr string, data []byte, time1, code string) {
		p, err := env.Compile(expr)
		if err != nil {
			return
		}
		e := jsonEvent("{}", "time", time1, "knativeerrorcode", code, "subject", time1+code)
		e.Set("n", code, event.Integer)
		e.Data = data
		in := NewInput(e)
		start := time.Now()
		got, err := p.Eval(in)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		var evalErr *EvalError
		if err != nil && (!errors.As(err, &evalErr) || got) {
			t.Errorf("got %v, %v", got, err)
		}
		if err != nil && (evalErr.Kind == KindDeadline || evalErr.Kind == KindInternal) {
			return
		}
		if again, err2 := p.Eval(in); again != got || (err2 == nil) != (err == nil) {
			t.Errorf("first %v, %v, then %v, %v", got, err, again, err2)
		}
	})
}

// FuzzDecode checks that data is read as encoding/json reads it: the same texts are JSON, and they have the same values.
func FuzzDecode(f *testing.F) {
	for _, data := range []string{
		orderJSON, `{"a": 1, "a": {"b": [null, true, "x"]}}`, `[1e400, -0, 123456789012345678901, 0.5E-1]`, `"\ud800\u00e9\ud83d\ude00"`, "{\"\xff\": \"\xc3\"}",
		`{"a":1,}`, `[01]`, `{} {}`, " \n[ ] ", `{"a"`, `[1 2]`, ``, `nul`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeJSON(data)
		want, wantErr := decodeByReflection(data)
		if err != nil && strings.Contains(err.Error(), "nested deeper") {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/json: %v", data, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, encoding/json: %#v", data, got, want)
		}
	})
}

// decodeByReflection is the oracle.
func decodeByReflection(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return exactNumbers(v), nil
}

func exactNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = exactNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = exactNumbers(v[k])
		}
	}
	return v
}
