package v1_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	sourcesv1 "millrace.dev/api/sources/v1"
)

// TestStringList holds lists to the forms that any version of the API has for them.
func TestStringList(t *testing.T) {
	for text, want := range map[string]sourcesv1.StringList{
		`"a:1,b:2"`:      {"a:1", "b:2"},
		`" a:1 , ,b:2,"`: {"a:1", "b:2"},
		`["a:1","b:2"]`:  {"a:1", "b:2"},
		`""`:             nil,
		`null`:           nil,
		`7`:              {"7"},
		`["a:1",7]`:      {"a:1", "7"},
		`{"a": ["b"]}`:   {`{"a":["b"]}`}, // for Validate to refuse, not for a client that lists sources to fail at
	} {
		var got sourcesv1.StringList
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: want(-) got(+):\n%s", text, diff)
		}
	}
}

// TestGroup keeps the default group of a source the same for as long as its UID is.
func TestGroup(t *testing.T) {
	source := &sourcesv1.KafkaSource{}
	source.UID = "c0ffee"
	if got, want := source.Group(), "knative-kafka-source-c0ffee"; got != want {
		t.Errorf("group %q, want %q", got, want)
	}
	source.Spec.ConsumerGroup = "mine"
	if got := source.Group(); got != "mine" {
		t.Errorf("group %q, want mine", got)
	}
}
