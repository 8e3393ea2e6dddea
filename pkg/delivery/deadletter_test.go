package delivery

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

func TestDeadLetter(t *testing.T) {
	const dest = "http://sub.shop.svc.cluster.local:8080/a%2Fb?c=d"
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	tests := []struct {
		name    string
		failure Failure
		want    map[string]string
	}{
		{
			"status with a body",
			Failure{URL: mustURL(t, dest), Result: Result{Status: 400, Body: []byte("no\r\n")}, Attempts: 1, Trigger: "shop/t"},
			map[string]string{
				ErrorDest: dest, ErrorCode: "400", ErrorData: encoded("no\r\n"), ErrorAttempts: "1", ErrorTrigger: "shop/t",
			},
		},
		{
			"status without a body",
			Failure{URL: mustURL(t, dest), Result: Result{Status: 503}, Attempts: 11, Trigger: "shop/t"},
			map[string]string{ErrorDest: dest, ErrorCode: "503", ErrorAttempts: "11", ErrorTrigger: "shop/t"},
		},
		{
			"connection error",
			Failure{URL: mustURL(t, dest), Result: Result{Err: errors.New("refused")}, Attempts: 2, Trigger: "shop/t"},
			map[string]string{
				ErrorDest: dest, ErrorCode: "500", ErrorData: encoded("refused"), ErrorAttempts: "2", ErrorTrigger: "shop/t",
			},
		},
		{
			"password",
			Failure{URL: mustURL(t, "http://me:secret@sub/"), Result: Result{Status: 401}, Attempts: 1, Trigger: "shop/t"},
			map[string]string{ErrorDest: "http://me:xxxxx@sub/", ErrorCode: "401", ErrorAttempts: "1", ErrorTrigger: "shop/t"},
		},
		{
			"no URL",
			Failure{Result: Result{Err: ErrURL}, Attempts: 1, Trigger: "shop/t"},
			map[string]string{ErrorCode: "500", ErrorData: encoded(ErrURL.Error()), ErrorAttempts: "1", ErrorTrigger: "shop/t"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := testEvent()
			// What an earlier failure left behind does not count any more.
			for _, name := range []string{ErrorDest, ErrorCode, ErrorData, ErrorAttempts, ErrorTrigger} {
				e.Set(name, "old", event.String)
			}
			before := e.Clone()
			d := DeadLetter(e, tt.failure)
			if diff := cmp.Diff(before, e); diff != "" {
				t.Errorf("the event was changed (-want +got):\n%s", diff)
			}
			got := map[string]string{}
			for _, name := range []string{ErrorDest, ErrorCode, ErrorData, ErrorAttempts, ErrorTrigger} {
				if v, ok := d.Get(name); ok {
					got[name] = v
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("extensions (-want +got):\n%s", diff)
			}
			if d.Lookup(ErrorCode).Kind != event.Integer || d.Lookup(ErrorAttempts).Kind != event.Integer {
				t.Error("the numbers are not integers")
			}
			if d.Value(event.ID) != "1" || &d.Data[0] != &e.Data[0] {
				t.Error("the event itself is not the same")
			}
		})
	}
}

func TestErrorDataIsBounded(t *testing.T) {
	for _, n := range []int{1, 767, 768, 769, 1024} {
		body := strings.Repeat("é", n)[:n]
		d := DeadLetter(testEvent(), Failure{Result: Result{Status: 400, Body: []byte(body)}})
		text := d.Value(ErrorData)
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(text) > 1024 || string(data) != body[:min(n, 768)] {
			t.Errorf("%d bytes: %d characters that are %d bytes, %v", n, len(text), len(data), err)
		}
	}
}

// TestDeadLetterOverHTTP sends a dead letter, as a sink would get it.
func TestDeadLetterOverHTTP(t *testing.T) {
	var got received
	s, r := subscriber(t, record(&got, http.StatusOK))
	r.Event = DeadLetter(r.Event, Failure{
		URL: mustURL(t, "http://sub/"), Result: Result{Err: errors.New("line\r\nX-Evil: 1")}, Attempts: 3, Trigger: "shop/t",
	})
	r.NoReply = true
	if result := s.Send(t.Context(), r); result.Err != nil {
		t.Fatal(result.Err)
	}
	for name, want := range map[string]string{
		"Ce-Knativeerrordest": "http://sub/", "Ce-Knativeerrorcode": "500", "Ce-Knativeerrorattempts": "3",
		"Ce-Knativeerrortrigger": "shop/t", "X-Evil": "", "Ce-Knativebrokerttl": "", "Prefer": "",
	} {
		if v := got.header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

// TestDeadLetterOfNoTrigger leaves out the Trigger where there is none, and does not keep that of an earlier failure.
func TestDeadLetterOfNoTrigger(t *testing.T) {
	e := testEvent()
	e.Set(ErrorTrigger, "shop/earlier", event.String)
	d := DeadLetter(e, Failure{Result: Result{Status: 400}, Attempts: 1})
	if got, ok := d.Get(ErrorTrigger); ok {
		t.Errorf("%s is %q", ErrorTrigger, got)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}
