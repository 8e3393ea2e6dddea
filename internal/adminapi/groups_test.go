package adminapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace.dev/pkg/stream"
)

func TestGeneralize(t *testing.T) {
	for cause, want := range map[string]string{
		"":                             "",
		"overloaded":                   "overloaded",
		"  spread \n over\tlines ":     "spread over lines",
		"order 1234 not found":         "order * not found",
		"user-42 is away":              "user-42 is away",
		"HTTP/1.1 wants utf-8":         "HTTP/1.1 wants utf-8",
		`{"error":"no row 778899"}`:    `{"error":"no row *"}`,
		"at 2026-01-02T03:04:05.678Z.": "at *.",
		"id 6e8bc430-9c3a-11d9-9669-0800200c9a66!":                         "id *!",
		"dial tcp 10.0.0.17:8080: connect: connection refused":             "dial tcp *: connect: connection refused",
		"read tcp 127.0.0.1:54321->127.0.0.1:80: connection reset by peer": "read tcp *->*: connection reset by peer",
		"x509: certificate signed by unknown authority":                    "x509: certificate signed by unknown authority",
		"room 房间1234 is full":                                              "room * is full",
	} {
		if got := generalize(cause); got != want {
			t.Errorf("generalize(%q) = %q, want %q", cause, got, want)
		}
	}
}

func TestGeneralizeIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cause := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9 .:*\-]{0,40}`)).Draw(t, "cause")
		once := generalize(cause)
		if again := generalize(once); again != once {
			t.Fatalf("generalize(%q) = %q, again %q", cause, once, again)
		}
	})
}

// However many causes there are, the groups are bounded and count every event once.
func TestGroupsAreBounded(t *testing.T) {
	g := newGrouper()
	const events = 20_000
	letters := strings.NewReplacer("0", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5", "f", "6", "g", "7", "h", "8", "i", "9", "j")
	at := time.Unix(1, 0)
	for i := range events {
		g.add(&stream.Parked{
			Sequence: uint64(i + 1), TriggerUID: fmt.Sprint("uid-", i%3), At: at.Add(time.Duration(i) * time.Second), Size: 10,
			Progress: stream.Progress{Code: 500, Cause: letters.Replace(fmt.Sprint("cause ", i))},
		})
	}
	r := g.result(&Broker{Triggers: map[string]Trigger{"uid-0": {Name: "default/zero"}}})
	if len(r.Groups) > maxGroups+3 {
		t.Errorf("%d groups", len(r.Groups))
	}
	var count, others uint64
	for _, group := range r.Groups {
		count += group.Count
		if group.Other {
			others++
		}
		if named := group.Trigger == "default/zero"; named != (group.TriggerUID == "uid-0") || group.Newest.Before(group.Oldest) {
			t.Errorf("group %+v", group)
		}
	}
	if count != events || r.Events != events || others != 3 {
		t.Errorf("%d events in groups, %d in all, %d groups of others", count, r.Events, others)
	}
	if first := r.Groups[0]; first.Count < r.Groups[1].Count || !first.Other {
		t.Errorf("the first group is %+v", first)
	}
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "36h": 36 * time.Hour, "7d": 7 * 24 * time.Hour, "0.5d": 12 * time.Hour, "0": 0,
	} {
		if got, err := ParseAge(text); err != nil || got != want {
			t.Errorf("ParseAge(%q) = %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "7", "-1h", "-1d", "yesterday", "1w"} {
		if got, err := ParseAge(text); err == nil {
			t.Errorf("ParseAge(%q) = %s", text, got)
		}
	}
}
