package app

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"millrace.dev/internal/adminapi"
)

func TestProfilesAreServedOnlyWhenAskedFor(t *testing.T) {
	for asked, want := range map[bool]int{false: http.StatusNotFound, true: http.StatusOK} {
		a := &admin{metrics: http.NotFoundHandler(), profiles: asked}
		w := httptest.NewRecorder()
		a.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/pprof/goroutine", nil))
		if w.Code != want {
			t.Errorf("asked for: %v, status %d, want %d", asked, w.Code, want)
		}
	}
}

// TestWhatTellsOrChangesIsGuarded asks the admin port of a program with an Access for what is not about Brokers.
func TestWhatTellsOrChangesIsGuarded(t *testing.T) {
	access := allowed{"get profiles.millrace.dev in all namespaces": "reader", "update loglevel.millrace.dev in all namespaces": "operator"}
	a := &admin{
		metrics: http.NotFoundHandler(), profiles: true, level: &slog.LevelVar{}, log: slog.New(slog.DiscardHandler),
		guard: adminapi.Guard{Access: access},
	}
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{http.MethodGet, "/healthz", "", http.StatusOK},
		{http.MethodGet, "/readyz", "", http.StatusOK},
		{http.MethodGet, "/log-level", "", http.StatusOK},
		{http.MethodPut, "/log-level", "", http.StatusUnauthorized},
		{http.MethodPut, "/log-level", "reader", http.StatusForbidden},
		{http.MethodPut, "/log-level", "operator", http.StatusOK},
		{http.MethodGet, "/debug/pprof/goroutine", "", http.StatusUnauthorized},
		{http.MethodGet, "/debug/pprof/goroutine", "operator", http.StatusForbidden},
		{http.MethodGet, "/debug/pprof/goroutine", "reader", http.StatusOK},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(`{"level": "debug"}`))
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		a.handler().ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s %s as %q: status %d, want %d", c.method, c.path, c.token, w.Code, c.want)
		}
	}
}

// allowed is who may do what; a token is the name of its user.
type allowed map[string]string

func (a allowed) Allow(_ context.Context, token string, do adminapi.Action) (string, error) {
	switch {
	case token == "":
		return "", adminapi.ErrUnauthenticated
	case a[do.String()] != token:
		return "", &adminapi.Denied{User: token, Action: do}
	default:
		return token, nil
	}
}
