package event_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace.dev/pkg/event"
)

// typicalHeader and typicalData are an event of common size.
func typicalHeader() http.Header {
	return header("Content-Type", "application/json", "ce-time", "2020-01-01T00:00:00Z", "ce-subject", "order-1",
		"ce-partitionkey", "abc", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
}

func typicalData() []byte {
	return []byte(`{"items":[` + strings.Repeat(`{"sku":"abc-123","count":12,"price":9.5},`, 24) + `{}]}`)
}

func BenchmarkDecodeBinary(b *testing.B) {
	h, data := typicalHeader(), typicalData()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.DecodeBinary(h, data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	e, err := event.DecodeBinary(typicalHeader(), typicalData())
	if err != nil {
		b.Fatal(err)
	}
	document := e.AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := event.DecodeJSON(document); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteHeader(b *testing.B) {
	e, err := event.DecodeBinary(typicalHeader(), typicalData())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		e.WriteHeader(make(http.Header, 16))
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	e, err := event.DecodeBinary(typicalHeader(), typicalData())
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}
