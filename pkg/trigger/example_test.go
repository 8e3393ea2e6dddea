package trigger_test

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

func gift() *event.Event {
	e := &event.Event{Data: []byte(`{"amount": 25, "to": "Ada"}`)}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "1", event.String)
	e.Set(event.Source, "/shop/oslo", event.String)
	e.Set(event.Type, "gift.sent", event.String)
	e.Set(event.DataContentType, "application/json", event.String)
	return e
}

func ExampleCompiler() {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		fmt.Println(err)
		return
	}
	filter, errs := compiler.Compile(&eventingv1.Trigger{
		Spec: eventingv1.TriggerSpec{Filters: []eventingv1.Filter{
			{Prefix: map[string]string{"source": "/shop/"}},
			{CEL: `data.amount > 20`},
		}},
	})
	fmt.Println(errs.ToAggregate(), filter.Match(trigger.NewInput(gift())))

	_, errs = compiler.Compile(&eventingv1.Trigger{
		Spec: eventingv1.TriggerSpec{Filters: []eventingv1.Filter{{Exact: map[string]string{"ce-type": "gift.sent"}}}},
	})
	fmt.Println(errs.ToAggregate())
	// Output:
	// <nil> true
	// spec.filters[0].exact[ce-type]: Invalid value: "ce-type": attribute names are lower-case letters and digits; did you mean "type"?
}

func ExampleTable() {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		fmt.Println(err)
		return
	}
	var entries []trigger.Entry[string]
	for name, wanted := range map[string]string{"gifts": "gift.sent", "orders": "order.placed"} {
		filter, _ := compiler.Compile(&eventingv1.Trigger{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: eventingv1.TriggerSpec{
				Filter: &eventingv1.TriggerFilter{Attributes: map[string]string{"type": wanted}},
			},
		})
		entries = append(entries, trigger.Entry[string]{Filter: filter, Target: name})
	}
	table := trigger.NewTable(entries)
	fmt.Println(table.Match(trigger.NewInput(gift()), nil))
	// Output: [gifts]
}

func ExampleFilter_Explain() {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		fmt.Println(err)
		return
	}
	filter, _ := compiler.Compile(&eventingv1.Trigger{
		Spec: eventingv1.TriggerSpec{Filters: []eventingv1.Filter{
			{Exact: map[string]string{"type": "gift.send"}},
			{Not: &eventingv1.Filter{Suffix: map[string]string{"source": "/bergen"}}},
		}},
	})
	explanation := filter.Explain(trigger.NewInput(gift()))
	fmt.Print(explanation)
	for _, failure := range explanation.Failures() {
		fmt.Println("because of", failure.Path)
	}
	// Output:
	// no  all of 2
	//   no  exact type = "gift.send"; actual: "gift.sent"; hint: "gift.sent" is nearly "gift.send"; is one of them misspelled?
	//   yes not suffix source ends with "/bergen"
	//     no  suffix source ends with "/bergen"; actual: "/shop/oslo"
	// because of spec.filters[0].exact[type]
}
