// Package devserver runs a NATS server with a file-backed JetStream inside the process, for dev mode and tests. It is
// the only package outside tests that imports nats-server.
package devserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
)

const (
	startTimeout = 10 * time.Second
	// maxPayload leaves room for an event of the default size limit with its attributes, and for larger limits by
	// annotation, up to what NATS recommends at most.
	maxPayload = 8 << 20
	// maxStore is what all streams together may reserve. It is no promise that the disk has it: the file system refuses
	// first, and the ingress then answers 503.
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
}

// Server is a running server.
type Server struct {
	*server.Server
	lock *flock.Flock
}

// ErrInUse says that another process has the data folder open.
var ErrInUse = errors.New("the data folder is in use by another process")

// Start runs a server. A folder that another process has open is refused with [ErrInUse]: JetStream itself would not
// notice, and the two would ruin each other's files.
func Start(o Options) (*Server, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder %q: %w", o.Dir, err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := start(dir, o)
	if err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	return &Server{Server: s, lock: lock}, nil
}

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

		JetStreamMaxStore:  maxStore,
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
	s.Shutdown()
	s.WaitForShutdown()
	_ = s.lock.Unlock()
}
