package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"millrace.dev/internal/replay"
	"millrace.dev/pkg/stream"
)

// The rights that replays need.
var (
	listReplays  = Right{Verb: "list", Resource: "replays"}
	createReplay = Right{Verb: "create", Resource: "replays"}
	cancelReplay = Right{Verb: "delete", Resource: "replays"}
)

// ReplayRequest asks for a replay.
type ReplayRequest struct {
	// Trigger is the namespace/name of the one Trigger that is to get the events.
	Trigger string `json:"trigger"`
	replay.Selection
	// Rate bounds the events given to the Trigger a second; 0 for no bound.
	Rate float64 `json:"rate,omitempty"`
	// DryRun only counts.
	DryRun bool `json:"dryRun,omitempty"`
}

// ReplayAnswer is what came of it.
type ReplayAnswer struct {
	// Examined and Selected are the counts of a dry run.
	Examined uint64 `json:"examined,omitempty"`
	Selected uint64 `json:"selected,omitempty"`
	// Replay is the one that was begun.
	Replay *replay.Replay `json:"replay,omitempty"`
}

// handleReplays serves
//
//	GET    /api/v1/replays?namespace=…                    replays
//	POST   /api/v1/brokers/{namespace}/{broker}/replays   count events, or begin a replay
//	DELETE /api/v1/brokers/{namespace}/{broker}/replays/{id}  cancel one
func (h *Handler) handleReplays() {
	if h.opts.Replays == nil {
		return
	}
	const replays = Prefix + "brokers/{namespace}/{broker}/replays"
	h.handle("GET "+Prefix+"replays", listReplays, h.listReplays)
	h.handle("POST "+replays, createReplay, h.ofBroker(h.postReplay))
	h.handle("DELETE "+replays+"/{id}", cancelReplay, h.ofBroker(h.deleteReplay))
}

func (h *Handler) listReplays(w http.ResponseWriter, r *http.Request) {
	namespace, p := namespaceOf(r)
	if p != nil {
		writeProblem(w, p)
		return
	}
	all, err := replay.List(r.Context(), h.opts.Replays)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	shown := []replay.Replay{}
	for _, one := range all {
		if inNamespace(one.Broker, namespace) {
			shown = append(shown, one)
		}
	}
	writeJSON(w, map[string]any{"replays": shown})
}

func (h *Handler) postReplay(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	var req ReplayRequest
	if p := readBody(w, r, &req); p != nil {
		return p
	}
	if req.Rate != 0 && !(req.Rate > 1e-4 && req.Rate < 1e9) { // the pause between two fits into a Duration
		return problemf(http.StatusBadRequest, "the rate is not a number of events a second")
	}
	to, p := replayTarget(b, req.Trigger)
	if p != nil {
		return p
	}
	ctx, end := h.begin(r.Context())
	defer end()
	var answer ReplayAnswer
	var err error
	if req.DryRun {
		answer.Examined, answer.Selected, err = replay.Count(ctx, h.opts.Replays, to, req.Selection)
	} else {
		var begun replay.Replay
		begun, err = replay.Create(ctx, h.opts.Replays, to, req.Selection, req.Rate, userOf(r.Context()))
		answer.Replay = &begun
	}
	if err != nil {
		return replayProblem(err)
	}
	writeJSON(w, answer)
	return nil
}

func replayTarget(b *Broker, name string) (replay.Target, *Problem) {
	for uid, t := range b.Triggers {
		if t.Name == name {
			return replay.Target{Names: b.Names, Trigger: name, TriggerUID: uid, Filter: t.Filter}, nil
		}
	}
	return replay.Target{}, problemf(http.StatusNotFound, "Broker %s has no Trigger %q", b.key(), name)
}

func replayProblem(err error) *Problem {
	switch {
	case errors.Is(err, stream.ErrNoArchive):
		return problemf(http.StatusConflict, "%v", err).hint("annotate it with millrace.dev/archive: PT24H; it then keeps what is accepted from then on")
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, context.Canceled):
		return problemOf(err)
	default:
		return problemf(http.StatusBadRequest, "%v", err)
	}
}

func (h *Handler) deleteReplay(w http.ResponseWriter, r *http.Request, b *Broker) *Problem {
	ended, err := replay.Cancel(r.Context(), h.opts.Replays, b.key(), r.PathValue("id"))
	switch {
	case errors.Is(err, stream.ErrNoRecord):
		return problemf(http.StatusNotFound, "Broker %s has no replay %q", b.key(), r.PathValue("id")).hint("millrace replay ls shows them")
	case err != nil:
		return problemOf(err)
	}
	writeJSON(w, ended)
	return nil
}

// Replays returns the replays of all Brokers, or of those of a namespace.
func (c *Client) Replays(ctx context.Context, namespace string) ([]replay.Replay, error) {
	query := url.Values{}
	setUnlessEmpty(query, "namespace", namespace)
	var answer struct {
		Replays []replay.Replay `json:"replays"`
	}
	err := c.get(ctx, "replays", query, &answer)
	return answer.Replays, err
}

// Replay counts events of a Broker, given as namespace/name, or begins a replay.
func (c *Client) Replay(ctx context.Context, broker string, req ReplayRequest) (ReplayAnswer, error) {
	var answer ReplayAnswer
	err := c.change(ctx, operation{method: http.MethodPost, path: ofBroker(broker, "replays"), body: req}, &answer)
	return answer, err
}

// CancelReplay ends a replay of a Broker.
func (c *Client) CancelReplay(ctx context.Context, broker, id string) (replay.Replay, error) {
	var ended replay.Replay
	err := c.change(ctx, operation{method: http.MethodDelete, path: ofBroker(broker, "replays", id), body: struct{}{}}, &ended)
	return ended, err
}

func ofBroker(broker string, more ...string) string {
	namespace, name, _ := strings.Cut(broker, "/")
	parts := []string{"brokers", url.PathEscape(namespace), url.PathEscape(name)}
	for _, part := range more {
		parts = append(parts, url.PathEscape(part))
	}
	return strings.Join(parts, "/")
}

// change sends a request that changes something and reads its answer.
func (c *Client) change(ctx context.Context, o operation, into any) error {
	body, err := c.do(ctx, o)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the answer of the admin API: %w", err)
	}
	return nil
}
