package cel

import (
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"millrace.dev/pkg/event"
)

// TestDocumentation evaluates every example of the users' guide on the event that the guide shows.
func TestDocumentation(t *testing.T) {
	guide, err := os.ReadFile("../../docs/cel.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(language string) (out []string) {
		for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(guide), -1) {
			out = append(out, m[1])
		}
		return out
	}
	events, examples := blocks("json"), blocks("cel")
	if len(events) != 1 || len(examples) < 10 {
		t.Fatalf("the guide has %d events and %d examples", len(events), len(examples))
	}
	in := NewInput(structured(t, events[0]))
	env := newEnv(t)
	for _, expr := range examples {
		if got, err := compile(t, env, expr).Eval(in); err != nil || !got {
			t.Errorf("%sgot %v, %v", expr, got, err)
		}
	}
}

func structured(t *testing.T, text string) *event.Event {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		t.Fatal(err)
	}
	e := &event.Event{Data: members["data"]}
	delete(members, "data")
	for name, raw := range members {
		var value string
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		e.Set(name, value, event.String)
	}
	return e
}
