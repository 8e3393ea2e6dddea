package devserver

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	checkEvery = time.Second
	// restartPause is the least time between two restarts, for a disk that others fill at once.
	restartPause = 5 * time.Second
	// restartRoom is what must be free for a restart to be of use, in bytes: two blocks of messages.
	restartRoom = 16 << 20
)

// supervise replaces the server when it cannot write to its store any more and the reason may have gone. JetStream does
// not write to a stream again after a write that failed, until it is started anew.
func (s *Server) supervise(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	var told string
	var restarted time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		fault := writeFault(s.server())
		if fault == "" {
			told = ""
			continue
		}
		free, known := freeSpace(s.dir)
		if fault != told {
			told = fault
			s.log.ErrorContext(ctx, "the store cannot be written to, events are refused; make room, the rest goes by itself",
				slog.String("folder", s.dir), slog.String("error", fault),
				slog.Int64("free_bytes", free), slog.Int64("needed_bytes", restartRoom))
		}
		if known && free < restartRoom || time.Since(restarted) < restartPause {
			continue
		}
		restarted = time.Now()
		s.restart(ctx)
	}
}

// writeFault is why the server cannot write to its store, or "". It is the server's own health check, of which only those
// findings count that a restart may mend.
func writeFault(s *server.Server) string {
	if !s.Running() {
		return "the embedded NATS server is not running"
	}
	health := s.Healthz(&server.HealthzOptions{Details: true})
	for _, e := range health.Errors {
		if e.Type == server.HealthzErrorJetStream || strings.Contains(e.Error, "write error") {
			return e.Error
		}
	}
	return ""
}

// restart replaces the server. If the new one does not start, the next round tries again.
func (s *Server) restart(ctx context.Context) {
	shutDown(s.server())
	next, err := start(s.dir, s.opts)
	if err != nil {
		s.log.ErrorContext(ctx, "the store could not be opened again; trying again",
			slog.String("folder", s.dir), slog.Any("error", err))
		return
	}
	s.mu.Lock()
	s.current = next
	s.mu.Unlock()
	s.log.InfoContext(ctx, "the store was opened again, for there is room on its disk", slog.String("folder", s.dir))
}
