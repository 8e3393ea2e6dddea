package broker_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"millrace.dev/pkg/broker"
	"millrace.dev/pkg/event"
)

func benchmarkServe(b *testing.B, r *http.Request, body string) {
	h := newHandler(storeFunc(func(context.Context) error { return nil }), broker.Options{})
	reader := strings.NewReader(body)
	r.Body = io.NopCloser(reader)
	w := &nullWriter{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		if h.ServeHTTP(w, r); w.status != http.StatusAccepted {
			b.Fatalf("got status %d", w.status)
		}
	}
}

func BenchmarkBinary(b *testing.B) {
	body := `{"data":"` + strings.Repeat("x", 1024) + `"}`
	benchmarkServe(b, post("/shop/orders", body, "Content-Type", "application/json"), body)
}

func BenchmarkStructured(b *testing.B) {
	body := `{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"application/json","data":{"data":"` +
		strings.Repeat("x", 1024) + `"}}`
	benchmarkServe(b, jsonPost("/shop/orders", event.ContentTypeJSON, body), body)
}
