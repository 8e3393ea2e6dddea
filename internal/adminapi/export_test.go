package adminapi

import "net/http"

// HandleUnguarded serves what nobody gave a right.
func (h *Handler) HandleUnguarded(pattern string, serve http.HandlerFunc) {
	h.mux.HandleFunc(pattern, serve)
}
