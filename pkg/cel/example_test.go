package cel_test

import (
	"errors"
	"fmt"

	"millrace.dev/pkg/cel"
	"millrace.dev/pkg/event"
)

func exampleEvent() *event.Event {
	e := &event.Event{Data: []byte(`{"amount": 250, "country": "DE"}`)}
	e.Set(event.Type, "order.created", event.String)
	e.Set(event.Source, "/shop", event.String)
	e.Set(event.DataContentType, "application/json", event.String)
	return e
}

func Example() {
	env, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	program, err := env.Compile(`ce.type == "order.created" && data.amount > 100`)
	if err != nil {
		panic(err)
	}
	matched, err := program.Eval(cel.NewInput(exampleEvent()))
	fmt.Println(matched, err)
	// Output: true <nil>
}

func ExampleEnv_Compile() {
	env, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	_, err = env.Compile(`ce.type = "order.created"`)
	var compileErr *cel.CompileError
	if errors.As(err, &compileErr) {
		fmt.Println(compileErr.Snippet())
		fmt.Println(compileErr.Message)
		fmt.Println(compileErr.Hint)
	}
	// Output:
	// ce.type = "order.created"
	//         ^
	// "=" is not CEL
	// to compare, write ==
}

func ExampleProgram_Equalities() {
	env, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	program, err := env.Compile(`ce.type in ["a", "b"] && ce.source == "/shop" && data.amount > 100`)
	if err != nil {
		panic(err)
	}
	for _, eq := range program.Equalities() {
		fmt.Println(eq.Attribute, eq.Values)
	}
	// Output:
	// type [a b]
	// source [/shop]
}

func ExampleProgram_Explain() {
	env, err := cel.NewEnv()
	if err != nil {
		panic(err)
	}
	program, err := env.Compile(`ce.type == "order.created" && data.amount > 300 && data.vip`)
	if err != nil {
		panic(err)
	}
	x := program.Explain(cel.NewInput(exampleEvent()))
	fmt.Println(x.Result)
	for _, part := range x.Children {
		fmt.Println("-", part.Expr, "is", part.Result)
		for _, v := range part.Values {
			fmt.Println("  -", v.Expr, "=", v.Value)
		}
	}
	// Output:
	// false
	// - ce.type == "order.created" is true
	//   - ce.type = "order.created"
	// - data.amount > 300 is false
	//   - data.amount = 250
	// - data.vip is no such key: vip
	//   - data.vip = no such key: vip
}
