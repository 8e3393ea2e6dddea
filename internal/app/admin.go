package app

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"sync/atomic"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/loglevel"
)

// check is one condition for readiness: nil when it holds, else what is missing.
type check struct {
	name string
	ok   func() error
}

// admin serves /healthz, /readyz, /metrics and /log-level, and the admin API where there is one.
type admin struct {
	checks []check
	// remarks, if set, are what people should know although it is no reason not to be ready.
	remarks  func() map[string]string
	metrics  http.Handler
	api      http.Handler // nil if not served
	profiles bool         // serve /debug/pprof/
	stopping atomic.Bool
	level    *slog.LevelVar // nil if it cannot be changed
	guard    adminapi.Guard // of what tells of events, or changes something
	log      *slog.Logger
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { a.ready(w) })
	mux.Handle("GET /metrics", a.metrics)
	if a.level != nil {
		h := loglevel.Handler(a.level, a.log)
		mux.Handle("GET "+loglevel.Path, h)
		mux.HandleFunc("PUT "+loglevel.Path, a.guard.Protect(adminapi.SetLogLevel, h.ServeHTTP))
	}
	if a.api != nil {
		mux.Handle(adminapi.Prefix, a.api)
	}
	if a.profiles {
		mux.HandleFunc("GET /debug/pprof/", a.guard.Protect(adminapi.ReadProfiles, pprof.Index))
		mux.HandleFunc("GET /debug/pprof/profile", a.guard.Protect(adminapi.ReadProfiles, pprof.Profile))
		mux.HandleFunc("GET /debug/pprof/trace", a.guard.Protect(adminapi.ReadProfiles, pprof.Trace))
	}
	return mux
}

// ready answers 200 if every check holds, else 503 with what is missing.
func (a *admin) ready(w http.ResponseWriter) {
	code, answer := http.StatusOK, map[string]string{"status": "ready"}
	if a.stopping.Load() {
		code, answer = http.StatusServiceUnavailable, map[string]string{"status": "stopping"}
	}
	if a.remarks != nil {
		maps.Copy(answer, a.remarks())
	}
	for _, c := range a.checks {
		if err := c.ok(); err != nil {
			code = http.StatusServiceUnavailable
			answer["status"] = "not ready"
			answer[c.name] = err.Error()
		}
	}
	writeStatus(w, code, answer)
}

func writeStatus(w http.ResponseWriter, code int, answer map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // the client is gone if this fails
}
