package adminapi_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace.dev/internal/adminapi"
)

// hand pauses default/a alone.
type hand struct{ paused bool }

func (h *hand) Pause(trigger string, paused bool) (adminapi.PauseState, bool) {
	if trigger != "default/a" {
		return adminapi.PauseState{}, false
	}
	was := h.paused
	h.paused = paused
	return adminapi.PauseState{Trigger: trigger, Paused: paused, Changed: was != paused, Override: paused}, true
}

func TestPause(t *testing.T) {
	f := newFixture(t)
	s, _ := f.guarded(t, adminapi.Options{Pauses: &hand{}})
	c := &adminapi.Client{URL: s.URL}
	for i, want := range []adminapi.PauseState{
		{Trigger: "default/a", Paused: true, Changed: true, Override: true},
		{Trigger: "default/a", Paused: true, Override: true},
		{Trigger: "default/a", Changed: true},
		{Trigger: "default/a"},
	} {
		if got, err := c.Pause(t.Context(), "default/a", i < 2); err != nil || got != want {
			t.Errorf("request %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
	_, err := c.Pause(t.Context(), "default/b", true)
	if p := problem(err); p.Status != http.StatusNotFound || p.Error() != "there is no Trigger default/b; there are default/a" {
		t.Errorf("for a Trigger that is not there: %v", err)
	}
	for body, status := range map[string]int{`{}`: http.StatusBadRequest, `{"pause":true}`: http.StatusBadRequest, `{"paused":true}`: http.StatusOK} {
		if got := ask(t, http.MethodPut, s.URL+adminapi.Prefix+"triggers/default/a/paused", "", body); got.status != status {
			t.Errorf("%s: status %d, want %d: %s", body, got.status, status, got.text)
		}
	}

	filter, _ := f.guarded(t, adminapi.Options{})
	c = &adminapi.Client{URL: filter.URL}
	_, err = c.Pause(t.Context(), "default/a", true)
	if p := problem(err); p.Status != http.StatusConflict || !strings.Contains(p.Hint, "millrace.dev/paused") {
		t.Errorf("from a process that follows annotations alone: %v", err)
	}
}
