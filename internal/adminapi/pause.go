package adminapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// pauseTrigger is the right of whoever may annotate the Trigger, which does the same.
var pauseTrigger = Right{Verb: "patch", APIGroup: eventingv1.Group, Resource: "triggers"}

// Pauser pauses Triggers, whatever their manifests say, for as long as the process lives.
type Pauser interface {
	// Pause has deliveries to the subscriber of a Trigger, given as namespace/name, begin no more, or again. It returns once this process
	// holds to it, and reports false if there is no such Trigger.
	Pause(trigger string, paused bool) (PauseState, bool)
}

// PauseState says whether a Trigger is paused.
type PauseState struct {
	// Trigger is namespace/name.
	Trigger string `json:"trigger"`
	Paused  bool   `json:"paused"`
	// Changed says that it was not so before.
	Changed bool `json:"changed"`
	// Override says that its manifest says otherwise, so that it is so until the process ends.
	Override bool `json:"override,omitempty"`
}

// pauseRequest is the body of a request to pause a Trigger, or to resume it.
type pauseRequest struct {
	Paused *bool `json:"paused"`
}

// putPaused serves PUT /api/v1/triggers/{namespace}/{trigger}/paused.
func (h *Handler) putPaused(w http.ResponseWriter, r *http.Request) {
	var req pauseRequest
	if p := readBody(w, r, &req); p != nil {
		writeProblem(w, p)
		return
	}
	name := r.PathValue("namespace") + "/" + r.PathValue("trigger")
	switch {
	case req.Paused == nil:
		writeProblem(w, problemf(http.StatusBadRequest, `the body is not as expected: write {"paused": true} or {"paused": false}`))
		return
	case h.opts.Pauses == nil:
		writeProblem(w, problemf(http.StatusConflict, "what runs here is paused by annotation alone, which all processes see").
			hint(fmt.Sprintf("in a cluster name its context with --context; elsewhere write the annotation %s into the manifest", eventingv1.PausedAnnotation)))
		return
	}
	state, ok := h.opts.Pauses.Pause(name, *req.Paused)
	if !ok {
		writeProblem(w, problemf(http.StatusNotFound, "there is no Trigger %s", name).hint(listHint(h.opts.Catalog().triggers())))
		return
	}
	h.opts.Logger.InfoContext(r.Context(), "trigger paused or resumed by hand", slog.String("trigger", name),
		slog.String("user", userOf(r.Context())), slog.Bool("paused", state.Paused), slog.Bool("changed", state.Changed))
	writeJSON(w, state)
}

// triggers are the names of all Triggers, in order.
func (c Catalog) triggers() []string {
	var names []string
	for _, b := range c {
		for _, t := range b.Triggers {
			names = append(names, t.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Pause pauses a Trigger, given as namespace/name, or resumes it.
func (c *Client) Pause(ctx context.Context, trigger string, paused bool) (PauseState, error) {
	namespace, name, _ := strings.Cut(trigger, "/")
	var state PauseState
	err := c.change(ctx, operation{
		method: http.MethodPut, path: "triggers/" + url.PathEscape(namespace) + "/" + url.PathEscape(name) + "/paused", body: pauseRequest{Paused: &paused},
	}, &state)
	return state, err
}
