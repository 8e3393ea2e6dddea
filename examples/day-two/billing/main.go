// Program billing is the subscriber of docs/guides/day-two.md. It writes an invoice for each order in a currency that it knows, and refuses
// the others, which is the fault that the guide is about.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8090", "address to listen on")
	currencies := flag.String("currencies", "EUR,USD", "the currencies that it knows, separated by commas")
	invoices := flag.String("invoices", "invoices.txt", "file that the ids of billed orders are added to, one a line")
	flag.Parse()
	file, err := os.OpenFile(*invoices, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/billing", bill(strings.Split(*currencies, ","), file))
	mux.HandleFunc("/audit", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// bill adds the id of each order to the file before it says that it has the event.
func bill(currencies []string, file *os.File) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var order struct{ Currency string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&order); err != nil {
			http.Error(w, "the order is not JSON", http.StatusBadRequest)
			return
		}
		if !slices.Contains(currencies, order.Currency) {
			http.Error(w, fmt.Sprintf("no tax rate for currency %q", order.Currency), http.StatusUnprocessableEntity)
			return
		}
		if _, err := fmt.Fprintln(file, r.Header.Get("Ce-Id")); err != nil {
			http.Error(w, "the invoice was not written", http.StatusServiceUnavailable)
		}
	}
}
