package objects

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

const positions = `# comment
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: gifts
  annotations: {millrace.dev/cel-filter: 'ce.type == ''a'''}
spec:
  broker: default
  subscriber: {uri: "http://x/"}
  filters:
    - cel: |
        data.amount > 100 &&

          ce.typ == "gift"
    - cel: >-
        data.amount >
        100 && ce.typ == "a"
    - cel: "ce.type == \"ä\" && ce.typ"
    - exact: {type: gift.sent}
    - cel: ce.type
        == ce.typ
`

func TestLocate(t *testing.T) {
	set := buildForTest([]*manifest{parseManifest("gifts.yaml", positions)})
	for _, problem := range set.Problems {
		t.Fatal(problem)
	}
	for _, tc := range []struct {
		path string
		want string // the text at the place
	}{
		{"spec.broker", "default\n"},
		{"spec.filters[3].exact[type]", "gift.sent}\n"},
		{"spec.filters[0].cel", "|\n"},
		{"spec.filters[3].exact[nowhere]", "{type: gift.sent}\n"},
		{"spec.filters[9].cel", "- cel: |\n"},
		{"metadata.annotations[millrace.dev/cel-filter]", "'ce.type == ''a'''}\n"},
		{"", "apiVersion: eventing.knative.dev/v1\n"},
		{"spec.nowhere.at[all]", "broker: default\n"},
	} {
		file, line, column := set.Locate("Trigger", "default", "gifts", tc.path)
		if got := textAt(line, column); file != "gifts.yaml" || got != tc.want {
			t.Errorf("Locate(%s) is %s:%d:%d, at %q; want %q", tc.path, file, line, column, got, tc.want)
		}
	}
	if file, _, _ := set.Locate("Trigger", "default", "unknown", "spec"); file != "" {
		t.Errorf("an unknown object is located in %q", file)
	}
}

func textAt(line, column int) string {
	runes := []rune(splitLines(positions)[line-1])
	return string(runes[column-1:])
}

func TestExplain(t *testing.T) {
	set := buildForTest([]*manifest{parseManifest("gifts.yaml", positions)})
	path := field.NewPath("spec", "filters").Index(3).Child("exact").Key("type")
	problems := set.Explain(Key{"Trigger", "default", "gifts"}, field.ErrorList{field.Invalid(path, "gift.sent", "must be other")})
	const want = `gifts.yaml:19:21: Trigger default/gifts: spec.filters[3].exact[type]: "gift.sent" must be other`
	if len(problems) != 1 || problems[0].String() != want {
		t.Errorf("got %v\nwant %s", problems, want)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"broker", "filter", "filters", "subscriber", "delivery"}
	for name, want := range map[string]string{
		"filer": "filter", "fitler": "filter", "Filter": "filter", "filtres": "filters", "subscribers": "subscriber",
		"x": "", "deliver": "delivery", "retry": "", strings.Repeat("a", 1000): "",
	} {
		if got := nearest(name, names); got != want {
			t.Errorf("nearest(%s) is %q, want %q", name, got, want)
		}
	}
}

// FuzzLoad feeds text to everything that happens before a Set is there: nothing may panic, and every problem has a place
// inside the text.
func FuzzLoad(f *testing.F) {
	f.Add(positions)
	f.Add("a: &a [*a]\n---\nkind: List\napiVersion: v1\nitems: [*a]")
	f.Add("apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: x, creationTimestamp: 1}\nspec:\n  <<: [{broker: a}, 1]\n\tb: c\n")
	f.Add("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: &m {name: \"\\u00e4\", labels: *m}\n? [a]\n: b\n...\n--- |\n x\n")
	f.Add("{\"apiVersion\":\"eventing.knative.dev/v1\",\"kind\":\"TriggerList\",\"items\":[{},null,1,{\"kind\":\"Triger\"}]}\r\n---\r%YAML 1.1")
	f.Fuzz(func(t *testing.T, content string) {
		if len(content) > 1<<16 {
			t.Skip()
		}
		m := readManifest(foundFile{name: "x", root: "x"}, content, nil, &manifest{})
		set := buildForTest([]*manifest{m, parseManifest("y", content)})
		lines := len(splitLines(content))
		for _, problem := range set.Problems {
			if problem.Line < 1 || problem.Line > lines+1 || problem.Column < 1 || problem.Detail == "" {
				t.Errorf("%d lines, problem at %s", lines, problem)
			}
		}
		for _, trigger := range set.Triggers {
			if trigger.Name == "" || trigger.Namespace == "" || trigger.UID == "" || trigger.Generation < 1 {
				t.Errorf("incomplete trigger %+v", trigger.ObjectMeta)
			}
			if file, _, _ := set.Locate("Trigger", trigger.Namespace, trigger.Name, "spec.filters[0].cel"); file != "x" {
				t.Errorf("%s is located in %q", trigger.Name, file)
			}
		}
	})
}
