package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/internal/objects"
	"millrace.dev/pkg/trigger"
	"millrace.dev/test/cluster"
)

// TestDevModeTakesExamples loads every example as dev mode does, each by itself, and compiles its filters.
func TestDevModeTakesExamples(t *testing.T) {
	examples, err := Find(cluster.Root())
	if err != nil {
		t.Fatal(err)
	}
	compiler, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	brokers, triggers, sources := 0, 0, 0
	for _, e := range examples {
		t.Run(e.String(), func(t *testing.T) {
			set := load(t, e)
			brokers, triggers, sources = brokers+len(set.Brokers), triggers+len(set.Triggers), sources+len(set.Sources)
			var wrong []string
			for _, p := range set.Problems {
				wrong = append(wrong, p.String())
			}
			for _, tr := range set.Triggers {
				if _, errs := compiler.Compile(tr); len(errs) > 0 {
					wrong = append(wrong, tr.Name+": "+errs.ToAggregate().Error())
				}
			}
			if set.Skipped["not a Kubernetes object"] > 0 {
				wrong = append(wrong, "it is no whole object; if it is a part of one, say so on the line before: <!-- part of FILE -->")
			}
			switch said := strings.Join(wrong, "\n"); {
			case e.Refused == "" && said != "":
				t.Error(said)
			case e.Refused != "" && said == "":
				t.Logf("dev mode takes this mistake; the API server is to refuse it")
			case e.Refused != "" && !strings.Contains(said, e.Refused):
				t.Errorf("it is said to be refused with %q, but dev mode says %s", e.Refused, said)
			}
		})
	}
	if brokers < 3 || triggers < 6 || sources < 2 {
		t.Errorf("found only %d Brokers, %d Triggers and %d sources in %v", brokers, triggers, sources, examples)
	}
}

// load reads an example from a file, as dev mode does.
func load(t *testing.T, e *Example) *objects.Set {
	t.Helper()
	text, err := e.Whole(cluster.Root())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "example.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestInMarkdown holds what counts as an example.
func TestInMarkdown(t *testing.T) {
	const text = "# A\n```yaml\na: 1\n```\n<!-- refused: unknown field -->\n```yaml\nb: 2\n```\n" +
		"<!-- part of x.yaml -->\n```yaml\nc: 3\n```\n```sh\nls\nkubectl apply -f - <<'EOF'\nd: 4\nEOF\nls\n```\n```\ne: 5\n```\n" +
		"<!-- for Prometheus -->\n```yaml\nf: 6\n```\n"
	got, err := inMarkdown("docs/a.md", text)
	if err != nil {
		t.Fatal(err)
	}
	want := []*Example{
		{File: "docs/a.md", Line: 3, Text: "a: 1\n"},
		{File: "docs/a.md", Line: 7, Text: "b: 2\n", Refused: "unknown field"},
		{File: "docs/a.md", Line: 11, Text: "c: 3\n", PartOf: "docs/x.yaml"},
		{File: "docs/a.md", Line: 16, Text: "d: 4\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for _, bad := range []string{"```yaml\na: 1\n", "```sh\nkubectl apply -f - <<'EOF'\na: 1\n```\n"} {
		if _, err := inMarkdown("a.md", bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestWhole merges a part into its object.
func TestWhole(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "x.yaml"), []byte("metadata: {name: a}\n---\nmetadata: {name: b}\nspec: {c: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Example{PartOf: "x.yaml", Text: "metadata: {name: b, annotations: {d: e}}\n"}
	got, err := e.Whole(root)
	if want := "metadata:\n  annotations:\n    d: e\n  name: b\nspec:\n  c: 1\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	e.Text = "metadata: {name: c}\n"
	if _, err := e.Whole(root); err == nil || !slices.Contains(strings.Fields(err.Error()), "x.yaml") {
		t.Errorf("a part of nothing: %v", err)
	}
}
