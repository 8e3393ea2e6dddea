package cel

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

func TestDataIsParsedAtMostOnce(t *testing.T) {
	env := newEnv(t)
	withData := []*Program{
		compile(t, env, `data.amount > 1`), compile(t, env, `data.items.exists(i, i.qty > 1)`), compile(t, env, `data.missing == 1`),
	}
	in := NewInput(order())
	if _, err := compile(t, env, `ce.type == "other" && data.amount > 1`).Eval(in); err != nil {
		t.Fatal(err)
	}
	if n := in.DataParses(); n != 0 {
		t.Errorf("parsed %d times before data was needed", n)
	}
	for _, p := range withData {
		_, _ = p.Eval(in)
		in.Data()
	}
	if n := in.DataParses(); n != 1 {
		t.Errorf("parsed %d times, want 1", n)
	}
	in.Reset(jsonEvent(`{"amount": 2`))
	for _, p := range withData {
		_, _ = p.Eval(in)
	}
	if n := in.DataParses(); n != 1 {
		t.Errorf("invalid JSON parsed %d times, want 1", n)
	}
	in.Reset(jsonEvent(""))
	in.Data()
	if n := in.DataParses(); n != 0 {
		t.Errorf("absent data parsed %d times", n)
	}
}

func TestReset(t *testing.T) {
	p := compile(t, newEnv(t), `ce.id == data.id && !has(ce.extra)`)
	in := NewInput(jsonEvent(`{"id": "1"}`, "extra", "x"))
	if got, _ := p.Eval(in); got {
		t.Error("the first event matches")
	}
	for i := range 3 {
		id := fmt.Sprint(i)
		e := jsonEvent(`{"id": "`+id+`"}`, "id", id)
		in.Reset(e)
		if got, err := p.Eval(in); err != nil || !got {
			t.Errorf("event %d: got %v, %v", i, got, err)
		}
		if in.Event() != e {
			t.Error("Event() is not the event of the last Reset")
		}
	}
}

func TestData(t *testing.T) {
	tests := []struct {
		name, contentType, data string
		want                    any
		ok                      bool
	}{
		{"object", "application/json", `{"a": [1, -2.5, "x", true, null]}`, map[string]any{"a": []any{int64(1), -2.5, "x", true, nil}}, true},
		{"parameters and case", "Application/JSON; charset=utf-8", `1`, int64(1), true},
		{"suffix", "application/vnd.acme+json", `"x"`, "x", true},
		{"text/json", "text/json", `[]`, []any{}, true},
		{"null", "application/json", `null`, nil, true},
		{"last duplicate wins", "application/json", `{"a": 1, "a": 2}`, map[string]any{"a": int64(2)}, true},
		{"int64", "application/json", `[9223372036854775807, -9223372036854775808]`, []any{int64(math.MaxInt64), int64(math.MinInt64)}, true},
		{"uint64", "application/json", `18446744073709551615`, uint64(math.MaxUint64), true},
		{"doubles", "application/json", `[1.0, 1e2, -0.5E-1]`, []any{1.0, 100.0, -0.05}, true},
		{"depth at the limit", "application/json", strings.Repeat("[", 64) + strings.Repeat("]", 64), nested(64), true},
		{"brackets in strings", "application/json", `"\"` + strings.Repeat("[", 100) + `"`, `"` + strings.Repeat("[", 100), true},
		{"too deep", "application/json", strings.Repeat("[", 65) + strings.Repeat("]", 65), nil, false},
		{"far too deep", "application/json", strings.Repeat(`{"a":`, 100_000), nil, false},
		{"text", "text/plain", `{}`, nil, false},
		{"no content type", "", `{}`, nil, false},
		{"only a suffix", "+json", `{}`, nil, false},
		{"empty", "application/json", ``, nil, false},
		{"cut off", "application/json", `{"a": `, nil, false},
		{"two values", "application/json", `{} {}`, nil, false},
		{"trailing comma", "application/json", `[1,]`, nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &event.Event{Data: []byte(tt.data)}
			if tt.contentType != "" {
				e.Set(event.DataContentType, tt.contentType, event.String)
			}
			got, ok := NewInput(e).Data()
			if ok != tt.ok {
				t.Fatalf("ok = %v", ok)
			}
			if !reflect.DeepEqual(got, tt.want) { // cmp takes exponential time for deep nesting
				t.Errorf("got %#v", got)
			}
		})
	}
}

func nested(depth int) any {
	v := []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

func TestIntegersKeepTheirValue(t *testing.T) {
	env := newEnv(t)
	less := compile(t, env, `data.a < data.b`)
	equal := compile(t, env, `data.a == data.b`)
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64().Draw(t, "a")
		b := rapid.OneOf(rapid.Int64(), rapid.Just(a)).Draw(t, "b")
		in := NewInput(jsonEvent(fmt.Sprintf(`{"a": %d, "b": %d}`, a, b)))
		if got, err := less.Eval(in); err != nil || got != (a < b) {
			t.Errorf("%d < %d: %v, %v", a, b, got, err)
		}
		if got, err := equal.Eval(in); err != nil || got != (a == b) {
			t.Errorf("%d == %d: %v, %v", a, b, got, err)
		}
	})
}

func TestEachProgramGetsASliceAfterTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := NewInput(jsonEvent(""))
		first, done := in.context()
		done()
		if end, ok := first.Deadline(); !ok || time.Until(end) != EventDeadline {
			t.Errorf("the first program has %v", time.Until(end))
		}
		time.Sleep(EventDeadline - MinSlice - 1)
		second, done := in.context()
		done()
		if second != first {
			t.Error("the second program does not share the event's deadline")
		}
		time.Sleep(10 * MinSlice)
		for range 3 {
			late, done := in.context()
			if end, ok := late.Deadline(); !ok || time.Until(end) != MinSlice {
				t.Errorf("a late program has %v", time.Until(end))
			}
			time.Sleep(MinSlice)
			done()
		}
		in.Reset(jsonEvent(""))
		fresh, done := in.context()
		done()
		if end, _ := fresh.Deadline(); time.Until(end) != EventDeadline {
			t.Errorf("after Reset the first program has %v", time.Until(end))
		}
		in.stopClock()
	})
}

// The body takes longer to parse than the deadline, which must not count against the filter that needs it first.
func TestParsingDoesNotUseUpTheDeadline(t *testing.T) {
	padding := strings.Repeat(`{"a":1},`, 120_000)
	e := jsonEvent(`{"items": [{"qty": 3}], "padding": [` + padding + `{}]}`)
	got, err := compile(t, newEnv(t), `data.items.exists(i, i.qty == 3)`).Eval(NewInput(e))
	if err != nil || !got {
		t.Errorf("got %v, %v", got, err)
	}
}
