package event_test

import (
	"fmt"
	"net/http"
	"time"

	"millrace.dev/pkg/event"
)

func ExampleDecodeBinary() {
	h := http.Header{}
	h.Set("ce-specversion", "1.0")
	h.Set("ce-id", "A-1")
	h.Set("ce-source", "/orders")
	h.Set("ce-type", "com.example.placed")
	h.Set("ce-subject", "Caf%C3%A9")
	h.Set("Content-Type", "application/json")
	e, err := event.DecodeBinary(h, []byte(`{"total":12}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Value(event.Subject))
	fmt.Printf("%s\n", e.AppendJSON(nil))
	// Output:
	// Café
	// {"specversion":"1.0","id":"A-1","source":"/orders","type":"com.example.placed","subject":"Café","datacontenttype":"application/json","data":{"total":12}}
}

func ExampleDecodeJSON_invalid() {
	_, err := event.DecodeJSON([]byte(`{"specversion":"1.0","source":"/orders","type":"com.example.placed"}`))
	fmt.Println(err)
	// Output:
	// id: is missing (add the header "ce-id", or the member "id" of a JSON event)
}

func ExampleAdmit() {
	e := &event.Event{}
	e.Set(event.HopLimit, "9", event.Integer)
	if err := event.Admit(e, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.Value(event.HopLimit), e.Value(event.ArrivalTime))
	// Output:
	// 8 2026-01-02T03:04:05Z
}
