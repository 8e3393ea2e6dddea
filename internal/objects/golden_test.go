package objects

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
)

var update = flag.Bool("update", false, "rewrite the want files of testdata/cases")

// TestGolden reads the manifests of each testdata/cases/*.txtar and compares the Set, written as text, with the file
// want in it.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(cases) < 30 {
		t.Fatalf("found %d cases, %v", len(cases), err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			goldenCase(t, path)
		})
	}
}

func goldenCase(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	var manifests []*manifest
	inputs := archive.Files[:0:0]
	for _, file := range archive.Files {
		if file.Name == "want" {
			want = string(file.Data)
			continue
		}
		inputs = append(inputs, file)
		found := foundFile{name: file.Name, root: file.Name}
		manifests = append(manifests, readManifest(found, unescape(string(file.Data)), nil, &manifest{}))
	}
	got := render(buildForTest(manifests))
	if *update {
		archive.Files = append(inputs, txtar.File{Name: "want", Data: []byte(got)})
		if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want(-) got(+), after \"go test -update\" see git diff:\n%s", diff)
	}
}

// unescape puts in what editors and repositories do not keep in a text file.
func unescape(s string) string {
	return strings.NewReplacer("<TAB>", "\t", "<BEL>", "\a", "<CR>", "\r", "<BOM>", "\ufeff", "<FF>", "\xff").Replace(s)
}

func buildForTest(manifests []*manifest) *Set {
	b := builder{
		now: metav1.NewTime(time.Unix(0, 0)), previous: newPrevious(),
		resolver: resolver{
			services: map[string]string{
				"default/gift-wall": "http://127.0.0.1:8080",
				"other/based":       "http://127.0.0.1:8081/base/",
			},
			brokerURL: func(namespace, name string) string { return "http://dev/" + namespace + "/" + name },
		},
	}
	set, _ := b.build(manifests)
	return set
}

// render writes a Set as text: problems, objects, and what was skipped.
func render(set *Set) string {
	var b strings.Builder
	for _, problem := range set.Problems {
		fmt.Fprintln(&b, problem)
	}
	for _, broker := range set.Brokers {
		fmt.Fprintf(&b, "Broker %s/%s %s\n", broker.Namespace, broker.Name, readiness(broker.Status.Conditions))
		renderFields(&b, broker.Spec, broker.Status.DeadLetterSinkURI, broker.Status.Address)
	}
	for _, trigger := range set.Triggers {
		fmt.Fprintf(&b, "Trigger %s/%s %s\n", trigger.Namespace, trigger.Name, readiness(trigger.Status.Conditions))
		renderFields(&b, trigger.Spec, trigger.Status.DeadLetterSinkURI, trigger.Status.SubscriberURI)
	}
	for _, source := range set.Sources {
		fmt.Fprintf(&b, "%s %s/%s %s\n", source.SourceKind(), source.GetNamespace(), source.GetName(), readiness(source.Observed().Conditions))
		renderFields(&b, source.Specification(), source.Observed().DeadLetterSinkURI, source.Observed().SinkURI)
	}
	if len(set.Skipped) > 0 {
		fmt.Fprintln(&b, "skipped:", summary(set.Skipped))
	}
	return b.String()
}

func renderFields(b *strings.Builder, spec any, sink *string, target any) {
	for _, field := range []struct {
		name  string
		value any
	}{{"spec", spec}, {"target", target}, {"dead letters", sink}} {
		text, err := json.Marshal(field.value)
		if err != nil {
			text = []byte(err.Error())
		}
		if string(text) != "null" {
			fmt.Fprintf(b, "  %s: %s\n", field.name, text)
		}
	}
}

func readiness(conditions []metav1.Condition) string {
	for _, c := range conditions {
		if c.Type == eventingv1.ConditionReady {
			if c.Status == metav1.ConditionTrue {
				return "is ready"
			}
			return "is not ready: " + c.Reason + ": " + c.Message
		}
	}
	return "has no Ready condition"
}
