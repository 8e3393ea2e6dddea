package app

import (
	"net/http"
	"net/http/httptest"
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
