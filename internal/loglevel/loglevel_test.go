package loglevel_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"millrace.dev/internal/loglevel"
)

func TestTheLogLevelIsChangedAtRunTime(t *testing.T) {
	var out bytes.Buffer
	level := &slog.LevelVar{}
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	h := loglevel.Handler(level, log)
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
	if code, _ := ask(http.MethodDelete, ""); code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE got %d", code)
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("a bad request changed the level to %s", level.Level())
	}
}
