package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 2 * time.Minute // a slow producer may take this long for a whole request
	idleTimeout       = 2 * time.Minute
	leaveTime         = time.Second // in which clients with requests to make learn to make them elsewhere
	maxHeaderBytes    = 128 << 10   // attributes may have 64 KiB in all, and headers spell them out
)

// httpServer serves one handler on one listener that is bound from the start, so its address is known before it serves.
type httpServer struct {
	listener net.Listener
	server   *http.Server
	// leaving has every answer end its connection, open counts the connections.
	leaving atomic.Bool
	open    atomic.Int64
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
	s := &httpServer{listener: l}
	s.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.leaving.Load() {
				w.Header().Set("Connection", "close")
			}
			handler.ServeHTTP(w, r)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.open.Add(-1)
			default: // open before and after
			}
		},
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
	}
	return s, nil
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

// leave ends connections with the answer to a request, for a moment or until none is left. To close one that looks idle may
// cross a request on it, which the client then cannot know to be unheard.
func (s *httpServer) leave(ctx context.Context) {
	s.leaving.Store(true)
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	tick := time.NewTicker(leaveTime / 100)
	defer tick.Stop()
	for s.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// close accepts no more connections and waits for the requests under way until ctx ends.
func (s *httpServer) close(ctx context.Context) error {
	if err := s.server.Shutdown(ctx); err != nil {
		_ = s.server.Close()
		return fmt.Errorf("finish requests on %s: %w", s.address(), err)
	}
	return nil
}
