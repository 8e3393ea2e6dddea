package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 2 * time.Minute // a slow producer may take this long for a whole request
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 128 << 10 // attributes may have 64 KiB in all, and headers spell them out
)

// httpServer serves one handler on one listener that is bound from the start, so its address is known before it serves.
type httpServer struct {
	listener net.Listener
	server   *http.Server
}

func newHTTPServer(ctx context.Context, address string, handler http.Handler) (*httpServer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err // names the address
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &httpServer{listener: l, server: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
	}}, nil
}

// address is host:port as bound.
func (s *httpServer) address() string { return s.listener.Addr().String() }

// run serves until close; an error means that serving broke down by itself.
func (s *httpServer) run() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", s.address(), err)
	}
	return nil
}

// close accepts no more connections and waits for the requests under way until ctx ends.
func (s *httpServer) close(ctx context.Context) error {
	if err := s.server.Shutdown(ctx); err != nil {
		_ = s.server.Close()
		return fmt.Errorf("finish requests on %s: %w", s.address(), err)
	}
	return nil
}
