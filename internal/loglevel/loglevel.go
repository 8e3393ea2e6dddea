// Package loglevel serves a program's log level over HTTP, to read and to change it until the program ends.
package loglevel

import (
	"encoding/json"
	"log/slog"
	"math"
	"net/http"
	"strings"
)

// Path is where programs serve it.
const Path = "/log-level"

// maxBody bounds a request, in bytes.
const maxBody = 1 << 10

// none stands for no level in a request.
const none = slog.Level(math.MinInt)

// Handler answers GET with {"level": "info"}, and PUT of the same form by setting level, which it logs.
func Handler(level *slog.LevelVar, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
		case http.MethodPut:
			if !change(level, log, w, r) {
				return
			}
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		answer(w, http.StatusOK, "level", strings.ToLower(level.Level().String()))
	})
}

// change sets the level, or says why not and returns false.
func change(level *slog.LevelVar, log *slog.Logger, w http.ResponseWriter, r *http.Request) bool {
	var asked struct {
		Level slog.Level `json:"level"`
	}
	asked.Level = none
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&asked); err != nil || asked.Level == none {
		answer(w, http.StatusBadRequest, "error", `the body must be {"level": "debug"}, or info, warn or error in place of debug`)
		return false
	}
	before := level.Level()
	level.Set(asked.Level)
	log.WarnContext(r.Context(), "log level changed", slog.String("from", before.String()), slog.String("to", asked.Level.String()))
	return true
}

func answer(w http.ResponseWriter, code int, member, value string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{member: value}) // the client is gone if this fails
}
