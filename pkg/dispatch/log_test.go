package dispatch_test

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"millrace.dev/pkg/dispatch"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
)

// buffer may be written to by several.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestTheLogTellsOfAttemptsAndKeepsSecrets plants a secret wherever one may be and looks for it in the log.
func TestTheLogTellsOfAttemptsAndKeepsSecrets(t *testing.T) {
	f := newFixture(t)
	f.stop(0)
	var log buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.start(dispatch.Options{Logger: logger, LogDeliveries: 2})
	s := newSubscriber(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Id") == "bad" {
			w.Header().Set("X-Token", "hush-answer-header")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte("hush-answer"))
		}
	})
	const user, password, query = "hush-user", "hush-password", "hush-query"
	working := f.trigger("a", "", strings.Replace(s.URL, "://", "://"+user+":"+password+"@", 1)+"/in?token="+query)
	gone := f.trigger("b", "", "http://"+user+":"+password+"@127.0.0.1:1/?token="+query)
	gone.Policy.Retries = 0
	f.serve(working, gone)
	for _, id := range []string{"one", "two", "bad"} {
		e := &event.Event{Data: []byte("hush-data"), Headers: []event.Header{
			{Name: "Traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {Name: "Knative-Token", Value: "hush-header"},
		}}
		for name, value := range map[string]string{"specversion": "1.0", "id": id, "source": "/s", "type": "t", "secret": "hush-attribute"} {
			e.Set(name, value, event.String)
		}
		if err := f.publisher.Publish(t.Context(), f.names, stream.Message{Event: e}); err != nil {
			t.Fatal(err)
		}
	}
	f.waitEmpty()
	text := log.String()
	if strings.Contains(text, "hush") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(user+":"+password))) {
		t.Errorf("the log tells secrets:\n%s", text)
	}
	if n := strings.Count(text, "msg=delivered"); n != 1 {
		t.Errorf("%d successes are logged, want one of two", n)
	}
	if n := strings.Count(text, `msg="delivery attempt failed"`); n != 4 {
		t.Errorf("%d failures are logged, want 4", n)
	}
	for _, want := range []string{
		"trigger=default/a", "event_id=bad", "event_source=/s", "event_type=t", "attempt=1", "status=403", "reason=status", "action=give_up",
		"destination=" + s.URL + "/in ", "origin=e3", "trace_id=0af7651916cd43dd8448eb211c80319c", "duration=", "bytes=9",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the log:\n%s", want, text)
		}
	}
}
