package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	_ "net/http/pprof" // profiles of the baseline
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// runBare runs the baseline until it is told to stop.
func runBare(args []string) error {
	fs := flag.NewFlagSet("bare", flag.ExitOnError)
	url := fs.String("nats", nats.DefaultURL, "URLs of NATS")
	listen := fs.String("listen", "127.0.0.1:0", "address")
	subject := fs.String("subject", "bare", "subject that events are published to")
	_ = fs.Parse(args) // exits on an error
	nc, err := nats.Connect(*url)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	http.Handle("/bare", bareHandler(js, *subject))
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// bareHandler is the least that any ingress must do: read the request, publish its ce- headers and body asynchronously,
// answer 202 after the ack. It checks nothing.
func bareHandler(js jetstream.JetStream, subject string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		msg := &nats.Msg{Subject: subject, Data: body, Header: nats.Header{}}
		for name, values := range r.Header {
			if strings.HasPrefix(name, "Ce-") {
				msg.Header[name] = values
			}
		}
		future, err := js.PublishMsgAsync(msg)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		select {
		case <-future.Ok():
			w.WriteHeader(http.StatusAccepted)
		case err := <-future.Err():
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}
