// Package devserver runs a NATS server with a file-backed JetStream inside the process, for dev mode and tests. It is
// the only package outside tests that imports nats-server.
package devserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	startTimeout = 10 * time.Second
	// maxPayload leaves room for an event of the default size limit with its attributes, and for larger limits by
	// annotation, up to what NATS recommends at most.
	maxPayload = 8 << 20
	// maxStore is what all streams together may reserve where nothing else bounds it. It is no promise that the disk has it.
	maxStore = 1 << 40
	maxMem   = 64 << 20
)

// Options say where the server keeps its data and whether others may connect.
type Options struct {
	// Dir is the folder of the JetStream store; created if missing.
	Dir string
	// Listen, when true, opens a TCP port on loopback (Port, or any free one if 0) besides the in-process connection.
	Listen bool
	Port   int
	// Bounded keeps the store from filling its file system: the streams together may reserve what is free at the start,
	// and what they have, less a part that is left to others. Where that is not known there is no bound.
	Bounded bool
	// Logger learns of a store that cannot be written to, and of its recovery. Default slog.Default().
	Logger *slog.Logger
}

// Server is a running server. It is safe for concurrent use.
type Server struct {
	opts Options
	dir  string // absolute
	log  *slog.Logger
	lock *flock.Flock
	stop context.CancelFunc
	done chan struct{} // closed when nobody restarts the server any more

	mu      sync.Mutex
	current *server.Server
}

// ErrInUse says that another process has the data folder open.
var ErrInUse = errors.New("the data folder is in use by another process")

// Start runs a server. A folder that another process has open is refused with [ErrInUse]: JetStream itself would not
// notice, and the two would ruin each other's files. A server that cannot write any more is replaced by a new one on the
// same folder and port as soon as there is room on the disk.
func Start(o Options) (*Server, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder %q: %w", o.Dir, err)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	current, err := start(dir, o)
	if err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{opts: o, dir: dir, log: o.Logger, lock: lock, stop: stop, done: make(chan struct{}), current: current}
	if a, ok := current.Addr().(*net.TCPAddr); ok {
		s.opts.Port = a.Port // clients come back to it
	}
	go func() {
		defer close(s.done)
		s.supervise(ctx)
	}()
	return s, nil
}

func (s *Server) server() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// InProcessConn opens a connection without a socket; nats.go calls it anew for each reconnection.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server().InProcessConn() }

// ClientURL is the address for NATS clients, if the server listens.
func (s *Server) ClientURL() string { return s.server().ClientURL() }

// Addr is the address that the server listens on, nil if it does not.
func (s *Server) Addr() net.Addr { return s.server().Addr() }

// PortsInfo lists the addresses that the server listens on. It waits up to the given time for them.
func (s *Server) PortsInfo(wait time.Duration) *server.Ports { return s.server().PortsInfo(wait) }

func lockDir(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	if !held {
		return nil, fmt.Errorf("%w: %s; stop the other one or choose another folder", ErrInUse, dir)
	}
	return lock, nil
}

func start(dir string, o Options) (*server.Server, error) {
	port := o.Port
	if o.Listen && port == 0 {
		port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "millrace-dev",
		Host:       "127.0.0.1",
		Port:       port,
		DontListen: !o.Listen,
		JetStream:  true,
		StoreDir:   dir,
		MaxPayload: maxPayload,
		NoSigs:     true,
		NoLog:      true,

		JetStreamMaxStore:  storeLimit(dir, o.Bounded),
		JetStreamMaxMemory: maxMem,
	})
	if err != nil {
		return nil, fmt.Errorf("configure the embedded NATS server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		s.Shutdown()
		return nil, errors.New("the embedded NATS server did not start: is the data folder writable?")
	}
	if !s.JetStreamEnabled() {
		s.Shutdown()
		return nil, fmt.Errorf("the embedded NATS server could not open its store in %s", dir)
	}
	return s, nil
}

// Stop shuts the server down and waits until its store is written.
func (s *Server) Stop() {
	s.stop()
	<-s.done
	shutDown(s.server())
	_ = s.lock.Unlock()
}

func shutDown(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}
