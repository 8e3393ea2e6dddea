package event_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace.dev/pkg/event"
)

func TestAdmit(t *testing.T) {
	now := time.Date(2020, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for _, tc := range []struct {
		in, out   string
		exhausted bool
	}{
		{in: "", out: "255"},
		{in: "255", out: "254"},
		{in: "2", out: "1"},
		{in: "1", exhausted: true},
		{in: "0", exhausted: true},
		{in: "-5", exhausted: true},
		{in: "many"},
		{in: "1.5"},
		{in: "99999999999"},
	} {
		e := minimal()
		if tc.in != "" {
			e.Set(event.HopLimit, tc.in, event.String)
		}
		err := event.Admit(e, now)
		if errors.Is(err, event.ErrHopLimit) != tc.exhausted {
			t.Errorf("hop limit %q: got error %v", tc.in, err)
		}
		if tc.out == "" {
			wantError(t, err, event.HopLimit)
			continue
		}
		if err != nil || e.Value(event.HopLimit) != tc.out || e.Value(event.ArrivalTime) != "2020-01-02T02:04:05.000000006Z" {
			t.Errorf("hop limit %q: got %+v, %v", tc.in, e, err)
		}
	}
}

func TestAdmitKeepsArrivalTime(t *testing.T) {
	e := minimal()
	e.Set(event.ArrivalTime, "2001-01-01T00:00:00Z", event.String)
	if err := event.Admit(e, time.Now()); err != nil || e.Value(event.ArrivalTime) != "2001-01-01T00:00:00Z" {
		t.Errorf("got %q, %v", e.Value(event.ArrivalTime), err)
	}
}

func TestCheckSize(t *testing.T) {
	e := minimal()
	e.Data = make([]byte, 1<<20)
	e.Set("ext", strings.Repeat("x", 1000), event.String)
	size := e.AttributeBytes()
	for _, tc := range []struct {
		limits event.Limits
		part   string
	}{
		{event.Limits{}, ""},
		{event.Limits{Data: 1 << 20, Attributes: size}, ""},
		{event.Limits{Data: 1<<20 - 1}, "data"},
		{event.Limits{Attributes: size - 1}, "attributes"},
	} {
		var tooLarge *event.SizeError
		if err := e.CheckSize(tc.limits); errors.As(err, &tooLarge) != (tc.part != "") || tooLarge != nil && tooLarge.Part != tc.part {
			t.Errorf("%+v: got %v", tc.limits, err)
		}
	}
}

// TestAdmittedEventStaysValid guards against an event that is accepted and then cannot be read back from the store.
func TestAdmittedEventStaysValid(t *testing.T) {
	e := minimal()
	for i := len(e.Attributes); i < event.MaxAttributes; i++ {
		e.Set("x"+strconv.Itoa(i), "v", event.String)
	}
	if err := event.Admit(e, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
}
