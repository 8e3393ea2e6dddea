package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// TestLedger has a broker that loses one event it accepted, refuses one, and delivers another twice.
func TestLedger(t *testing.T) {
	l := &load{}
	var n atomic.Int32
	var lost atomic.Value
	broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case 2:
			lost.Store(r.Header.Get("Ce-Id"))
		case 3:
			l.receive(w, r)
			l.receive(w, r)
		default:
			l.receive(w, r)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer broker.Close()

	call := func(f http.HandlerFunc, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f(w, httptest.NewRequest(http.MethodPost, target, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		return w
	}
	call(l.start, "/load?"+url.Values{"rate": {"200"}, "to": {broker.URL}}.Encode())
	for deadline := time.Now().Add(time.Minute); n.Load() < 5 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	call(l.stop, "/load/stop")

	var got report
	if err := json.Unmarshal(call(l.report, "/load").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	id, _ := lost.Load().(string)
	if !slices.Equal(got.Missing, []string{id}) || got.Repeats != 1 || got.Others["503"] != 1 || got.Accepted != got.Posted-1 || got.Posted < 5 {
		t.Errorf("the ledger says %+v, want %s missing, one repeat, one 503", got, id)
	}
}
