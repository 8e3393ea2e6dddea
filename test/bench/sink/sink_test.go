package sink_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"millrace.dev/test/bench/ledger"
	"millrace.dev/test/bench/sink"
)

func post(t *testing.T, url, id string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Ce-Id", id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func TestDeliveriesAreEnteredInTheBook(t *testing.T) {
	book := ledger.New(2)
	book.Begin(0)
	s, err := sink.Listen(book, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		book.Send(time.Now())
	}
	for _, d := range []struct {
		subscriber int
		id         string
	}{{0, "0000000000000000"}, {1, "0"}, {0, "1"}, {0, "1"}, {5, "2"}} {
		if err := post(t, s.URL(d.subscriber), d.id); err != nil {
			t.Fatal(err)
		}
	}
	want := ledger.Account{Owed: 6, Lost: 3, Duplicate: 1, Strays: 1}
	if got := book.Account(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoDeliveryFailsTheRun(t *testing.T) {
	s, err := sink.Listen(ledger.New(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := post(t, s.URL(0), "not a number"); err == nil {
		t.Error("a request with an unknown id was answered")
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "Ce-Id") {
		t.Errorf("Close returned %v", err)
	}
}
