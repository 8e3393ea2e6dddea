package demo

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/internal/cli/eventfile"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

const example = "../../examples/live-stream"

func exampleEvents(t *testing.T) map[string]*event.Event {
	t.Helper()
	events := map[string]*event.Event{}
	for item := range eventfile.Open(example+"/events.ndjson", nil) {
		if item.Err != nil {
			t.Fatal(item.Err)
		}
		events[item.Event.Value(event.ID)] = item.Event
	}
	return events
}

func deliver(h http.Handler, path string, e *event.Event) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(e.Data))
	e.WriteHeader(r.Header)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestModerationFlagsLinks(t *testing.T) {
	events := exampleEvents(t)
	h := Subscribers(&bytes.Buffer{})
	var flagged []string
	for id, e := range events {
		if deliver(h, "/moderation", e).Header().Get("Ce-Type") == typeCommentFlagged {
			flagged = append(flagged, id)
		}
	}
	if diff := cmp.Diff([]string{"comment-3"}, flagged); diff != "" {
		t.Fatalf("flagged (-want +got):\n%s", diff)
	}
	w := deliver(h, "/moderation", events["comment-3"])
	reply, err := event.DecodeBinary(w.Header(), w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"specversion":"1.0","id":"comment-3-flagged","source":"/moderation","type":"com.example.live.comment.flagged",` +
		`"subject":"room-7","datacontenttype":"application/json",` +
		`"data":{"user":"bot9000","text":"cheap coins at https://coins.example","reason":"contains a link"}}`
	if diff := cmp.Diff(want, string(reply.AppendJSON(nil))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOutput(t *testing.T) {
	events := exampleEvents(t)
	var out bytes.Buffer
	h := Subscribers(&out)
	deliver(h, "/moderation", events["comment-3"])
	deliver(h, "/big-spender", events["gift-2"])
	want := `moderation       com.example.live.comment.posted  comment-3  room-7  {"user":"bot9000","text":"cheap coins at https://coins.example"}  → replied com.example.live.comment.flagged
big-spender      com.example.live.gift.sent  gift-2  room-7  {"user":"omar","gift":"rocket","amount":500}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUnknownPath(t *testing.T) {
	w := deliver(Subscribers(&bytes.Buffer{}), "/nobody", exampleEvents(t)["gift-1"])
	if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "/moderation") {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

// TestExample checks that the example's manifests are sound, that each of its Triggers sends to a subscriber of the demo,
// and that events go where the story says.
func TestExample(t *testing.T) {
	set, err := objects.Load([]string{example})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range set.Problems {
		t.Error(p)
	}
	if len(set.Brokers) != 1 || len(set.Triggers) != len(Paths()) {
		t.Fatalf("%d Brokers and %d Triggers", len(set.Brokers), len(set.Triggers))
	}
	compiler, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	events := exampleEvents(t)
	events["comment-3-flagged"] = moderate(events["comment-3"])
	got := map[string][]string{}
	for _, tr := range set.Triggers {
		u, err := url.Parse(*tr.Spec.Subscriber.URI)
		if err != nil || u.Host != "127.0.0.1:8090" || !slices.Contains(Paths(), u.Path) {
			t.Errorf("Trigger %s sends to %s, %v", tr.Name, *tr.Spec.Subscriber.URI, err)
		}
		filter, errs := compiler.Compile(tr)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for id, e := range events {
			if filter.Match(trigger.NewInput(e)) {
				got[tr.Name] = append(got[tr.Name], id)
			}
		}
		slices.Sort(got[tr.Name])
	}
	want := map[string][]string{
		"moderation":     {"comment-1", "comment-2", "comment-3", "comment-4"},
		"gift-animation": {"gift-1", "gift-2", "gift-3"},
		"big-spender":    {"gift-2", "gift-3"},
		"review":         {"comment-3-flagged", "comment-4"},
		"analytics": {
			"comment-1", "comment-2", "comment-3", "comment-4", "gift-1", "gift-2", "gift-3",
			"like-1", "like-2", "like-3", "room-1",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
