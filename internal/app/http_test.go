package app

import (
	"net/http"
	"testing"
	"time"
)

// TestLeave has a client with an open connection make another request while the server leaves: it is answered, and its
// connection ends with the answer.
func TestLeave(t *testing.T) {
	s, err := newHTTPServer(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.run() }()
	client := &http.Client{Transport: &http.Transport{}}
	// closes makes a request, and says whether its connection ended with the answer.
	closes := func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address(), nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.Close
	}
	if closes() {
		t.Error("a connection ended though the server was not leaving")
	}
	left := make(chan struct{})
	go func() {
		s.leave(t.Context())
		close(left)
	}()
	for !s.leaving.Load() {
		time.Sleep(time.Millisecond)
	}
	if !closes() {
		t.Error("a connection stayed open while the server was leaving")
	}
	<-left
	if err := s.close(t.Context()); err != nil {
		t.Error(err)
	}
}
