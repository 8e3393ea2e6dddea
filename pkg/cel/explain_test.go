package cel

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExplain(t *testing.T) {
	env := newEnv(t)
	tests := []struct {
		expr string
		want Explanation
	}{
		{`ce.type == 'order.paid'`, Explanation{
			Expr: `ce.type == 'order.paid'`, Result: "false",
			Values: []Value{{Expr: "ce.type", Value: `"order.created"`}},
		}},
		{`ce.type == "order.created" && data.amount > 300 && has(ce.dataschema)`, Explanation{
			Expr: `ce.type == "order.created" && data.amount > 300 && has(ce.dataschema)`, Result: "false",
			Children: []Explanation{
				{Expr: `ce.type == "order.created"`, Result: "true", Values: []Value{{Expr: "ce.type", Value: `"order.created"`}}},
				{Expr: `data.amount > 300`, Result: "false", Values: []Value{{Expr: "data.amount", Value: "250"}}},
				{Expr: `has(ce.dataschema)`, Result: "false", Values: []Value{{Expr: "ce.dataschema", Value: "no such key: dataschema", Missing: true}}},
			},
		}},
		{`!(ce["subject"] == "x" || data.missing == 1)`, Explanation{
			Expr: `!(ce["subject"] == "x" || data.missing == 1)`, Result: "no such key: missing", Failed: true,
			Children: []Explanation{{
				Expr: `ce["subject"] == "x" || data.missing == 1`, Result: "no such key: missing", Failed: true,
				Children: []Explanation{
					{Expr: `ce["subject"] == "x"`, Result: "false", Values: []Value{{Expr: `ce["subject"]`, Value: `"orders/17"`}}},
					{
						Expr: `data.missing == 1`, Result: "no such key: missing", Failed: true,
						Values: []Value{{Expr: "data.missing", Value: "no such key: missing", Missing: true}},
					},
				},
			}},
		}},
		{`data.items.exists(i, i.sku == ce.subject) && data.?customer.?name.orValue("") == "Bob" && data.price > data.items[0].qty`, Explanation{
			Expr:   `data.items.exists(i, i.sku == ce.subject) && data.?customer.?name.orValue("") == "Bob" && data.price > data.items[0].qty`,
			Result: "false",
			Children: []Explanation{
				{Expr: `data.items.exists(i, i.sku == ce.subject)`, Result: "false", Values: []Value{
					{Expr: "data.items", Value: `[{"qty": 2, "sku": "a1"}, {"qty": 0, "sku": "b2"}]`},
					{Expr: "ce.subject", Value: `"orders/17"`},
				}},
				{Expr: `data.?customer.?name.orValue("") == "Bob"`, Result: "false", Values: []Value{{Expr: "data.customer.name", Value: `"Ada"`}}},
				{Expr: `data.price > data.items[0].qty`, Result: "true", Values: []Value{
					{Expr: "data.price", Value: "9.99"}, {Expr: "data.items[0].qty", Value: "2"},
				}},
			},
		}},
		{`ce.time < timestamp("2020-01-01T00:00:00Z")`, Explanation{
			Expr: `ce.time < timestamp("2020-01-01T00:00:00Z")`, Result: "false",
			Values: []Value{{Expr: "ce.time", Value: `timestamp("2026-02-03T04:05:06.123456789Z")`}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			p := compile(t, env, tt.expr)
			in := NewInput(order())
			if diff := cmp.Diff(tt.want, p.Explain(in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplainShortensValues(t *testing.T) {
	env := newEnv(t)
	in := NewInput(jsonEvent(`{"list": [1,2,3,4,5,6,7,8,9,10], "deep": [[[[1]]]], "o": {"a":1,"b":1.0,"c":null,"d":true,"e":[],"f":{},"g":18446744073709551615,"h":8,"i":9}}`))
	for path, want := range map[string]string{
		`data.list`: "[1, 2, 3, 4, 5, 6, 7, 8, ... 10 in all]",
		`data.deep`: "[[[[...]]]]",
		`data.o`:    `{"a": 1, "b": 1.0, "c": null, "d": true, "e": [], "f": {}, "g": 18446744073709551615u, "h": 8, ... 9 in all}`,
	} {
		x := compile(t, env, path+" == 1").Explain(in)
		if len(x.Values) != 1 || x.Values[0].Value != want {
			t.Errorf("%s: %+v", path, x.Values)
		}
	}
}
