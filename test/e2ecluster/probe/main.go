// Command probe is the pod from which the cluster tests see the cluster: it subscribes, posts events, and counts which of
// those it posted under load came back.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// received is an event as a subscriber got it.
type received struct {
	Type, Source, ID string
	// Attributes are all ce- headers, by attribute.
	Attributes map[string]string
	Data       string
}

// inboxes are the events received so far, by the name in the path of the subscriber.
type inboxes struct {
	mu     sync.Mutex
	events map[string][]received
}

func main() {
	in := &inboxes{events: map[string][]received{}}
	l := &load{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /in/{name}", in.receive)
	mux.HandleFunc("GET /in/{name}", in.list)
	mux.HandleFunc("POST /send", send)
	mux.HandleFunc("POST /load", l.start)
	mux.HandleFunc("POST /load/stop", l.stop)
	mux.HandleFunc("GET /load", l.report)
	mux.HandleFunc("POST /load/in", l.receive)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// receive is a subscriber. ?status=500 has it answer that, ?reply=TYPE reply with an event of that type.
func (in *inboxes) receive(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	event := received{Attributes: map[string]string{}, Data: string(data)}
	for header, values := range r.Header {
		if attribute, ok := strings.CutPrefix(strings.ToLower(header), "ce-"); ok {
			event.Attributes[attribute] = values[0]
		}
	}
	event.Type, event.Source, event.ID = event.Attributes["type"], event.Attributes["source"], event.Attributes["id"]
	in.mu.Lock()
	in.events[r.PathValue("name")] = append(in.events[r.PathValue("name")], event)
	in.mu.Unlock()
	if reply := r.URL.Query().Get("reply"); reply != "" {
		w.Header().Set("Ce-Specversion", "1.0")
		w.Header().Set("Ce-Type", reply)
		w.Header().Set("Ce-Source", "/probe")
		w.Header().Set("Ce-Id", "reply-to-"+event.ID)
	}
	status := http.StatusOK
	if s, err := strconv.Atoi(r.URL.Query().Get("status")); err == nil {
		status = s
	}
	w.WriteHeader(status)
}

// list returns what arrived at a subscriber.
func (in *inboxes) list(w http.ResponseWriter, r *http.Request) {
	in.mu.Lock()
	defer in.mu.Unlock()
	_ = json.NewEncoder(w).Encode(in.events[r.PathValue("name")])
}

// send posts what it gets to ?to, and answers what it was answered.
func send(w http.ResponseWriter, r *http.Request) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, r.URL.Query().Get("to"), r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for header, values := range r.Header {
		if strings.HasPrefix(header, "Ce-") || header == "Content-Type" {
			request.Header[header] = values
		}
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
}
