package chaos

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// subscribers are the subscribers of all roles and the dead letter sink. Each answers as its script says and writes down
// what it got.
type subscribers struct {
	*httptest.Server
	plan   *plan
	ledger *ledger
	// faint is in front of the fragile subscriber, drain in front of the sink: they break these connections.
	faint, drain *proxy
	closing      chan struct{}
}

func newSubscribers(t testing.TB, p *plan, l *ledger) *subscribers {
	s := &subscribers{plan: p, ledger: l, closing: make(chan struct{})}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		close(s.closing)
		s.CloseClientConnections()
		s.Close()
	})
	address := s.Listener.Addr().String()
	s.faint, s.drain = newProxy(t, address), newProxy(t, address)
	return s
}

// url is where the subscriber of a role, or the sink, is reached.
func (s *subscribers) url(place string) string {
	switch {
	case place == sinkName:
		return "http://" + s.drain.address() + "/" + place
	case s.plan.named[place].fragile:
		return "http://" + s.faint.address() + "/" + place
	default:
		return s.URL + "/" + place
	}
}

// ServeHTTP takes a request for the place that its path names.
func (s *subscribers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // broken off before the event was complete
	}
	rec := received{Place: strings.TrimPrefix(r.URL.Path, "/"), ID: r.Header.Get("Ce-Id")}
	rec.Nth = s.ledger.arrive(rec.Place, rec.ID)
	if rec.Place == sinkName {
		rec.Trigger = strings.TrimPrefix(r.Header.Get("Ce-Knativeerrortrigger"), "default/")
		rec.Code, _ = strconv.Atoi(r.Header.Get("Ce-Knativeerrorcode"))
		rec.Attempts, _ = strconv.Atoi(r.Header.Get("Ce-Knativeerrorattempts"))
		s.respond(w, r, &rec, answer{status: http.StatusOK})
		return
	}
	role := s.plan.named[rec.Place]
	if role == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if role.takes > 0 {
		select {
		case <-time.After(role.takes):
		case <-r.Context().Done():
		}
	}
	s.respond(w, r, &rec, s.plan.script(role, rec.ID).at(rec.Nth))
}

// respond answers, having written down what.
func (s *subscribers) respond(w http.ResponseWriter, r *http.Request, rec *received, a answer) {
	if a.deed != hang && a.deed != reset && r.Context().Err() == nil {
		rec.Status = a.status
	}
	s.ledger.receive(*rec)
	switch {
	case a.deed == hang:
		select {
		case <-r.Context().Done():
		case <-s.closing:
		}
		return
	case a.deed == reset, rec.Status == 0:
		panic(http.ErrAbortHandler) // closes the connection
	}
	if a.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(a.retryAfter))
	}
	if a.deed == reply {
		writeReply(w, rec.ID)
		return
	}
	if a.status == http.StatusMovedPermanently {
		w.Header().Set("Location", "/moved")
	}
	w.WriteHeader(a.status)
}

// writeReply answers with an event, for every other one in structured mode.
func writeReply(w http.ResponseWriter, id string) {
	h := w.Header()
	if n, _ := numberOf(id); n/10%2 == 0 {
		h.Set("Content-Type", "application/cloudevents+json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"specversion": "1.0", "id": replyPrefix + id, "source": "/chaos/asking", "type": replyType, "data": id,
		})
		return
	}
	h.Set("Ce-Specversion", "1.0")
	h.Set("Ce-Id", replyPrefix+id)
	h.Set("Ce-Source", "/chaos/asking")
	h.Set("Ce-Type", replyType)
	h.Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, id)
}

// hostPort is an address on this machine.
func hostPort(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
