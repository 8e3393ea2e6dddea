package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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

func TestTheLogLevelIsChangedAtRunTime(t *testing.T) {
	var out bytes.Buffer
	level := &slog.LevelVar{}
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	h := (&admin{metrics: http.NotFoundHandler(), level: level, log: log}).handler()
	ask := func(method, body string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/log-level", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	if code, body := ask(http.MethodGet, ""); code != http.StatusOK || !strings.Contains(body, `"info"`) {
		t.Errorf("got %d %s", code, body)
	}
	log.Debug("unheard")
	if code, body := ask(http.MethodPut, `{"level": "debug"}`); code != http.StatusOK || !strings.Contains(body, `"debug"`) {
		t.Errorf("got %d %s", code, body)
	}
	log.Debug("heard")
	if text := out.String(); strings.Contains(text, "unheard") || !strings.Contains(text, "heard") || !strings.Contains(text, "log level changed") {
		t.Errorf("the log has:\n%s", text)
	}
	for _, bad := range []string{"", "{}", `{"level": "loud"}`, strings.Repeat(" ", 2048)} {
		if code, body := ask(http.MethodPut, bad); code != http.StatusBadRequest || !strings.Contains(body, "debug") {
			t.Errorf("%.20q: got %d %s", bad, code, body)
		}
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("a bad request changed the level to %s", level.Level())
	}
}
