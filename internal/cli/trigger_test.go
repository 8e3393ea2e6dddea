package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

// words are few, so that filters match now and then.
func words() *rapid.Generator[string] { return rapid.SampledFrom([]string{"a", "b", "ab", "B"}) }

func attributeNames() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"type", "source", "subject", "tenant"})
}

// genFilter returns a generator of filters that nest at most so deep.
func genFilter(depth int) *rapid.Generator[eventingv1.Filter] {
	return rapid.Custom(func(t *rapid.T) eventingv1.Filter {
		kinds := []string{"exact", "prefix", "suffix", "cel", "data", "cesql"}
		if depth > 0 {
			kinds = append(kinds, "all", "any", "not")
		}
		name, word := attributeNames().Draw(t, "name"), words().Draw(t, "word")
		some := func() []eventingv1.Filter { return rapid.SliceOfN(genFilter(depth-1), 1, 2).Draw(t, "some") }
		switch rapid.SampledFrom(kinds).Draw(t, "kind") {
		case "exact":
			return eventingv1.Filter{Exact: map[string]string{name: word}}
		case "prefix":
			return eventingv1.Filter{Prefix: map[string]string{name: word}}
		case "suffix":
			return eventingv1.Filter{Suffix: map[string]string{name: word}}
		case "cel":
			return eventingv1.Filter{CEL: "ce." + name + " == '" + word + "'"}
		case "data":
			return eventingv1.Filter{CEL: "data.n > 1"}
		case "cesql":
			return eventingv1.Filter{CESQL: name + " = '" + word + "'"}
		case "all":
			return eventingv1.Filter{All: some()}
		case "any":
			return eventingv1.Filter{Any: some()}
		default:
			return eventingv1.Filter{Not: &some()[0]}
		}
	})
}

func genEvent(t *rapid.T) *event.Event {
	e := &event.Event{}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "x", event.String)
	for _, name := range []string{"type", "source"} {
		e.Set(name, words().Draw(t, name), event.String)
	}
	for _, name := range []string{"subject", "tenant"} {
		if rapid.Bool().Draw(t, "has "+name) {
			e.Set(name, words().Draw(t, name), event.String)
		}
	}
	if data := rapid.SampledFrom([]string{"", `{"n":1}`, `{"n":2}`, `{}`}).Draw(t, "data"); data != "" {
		e.Set(event.DataContentType, "application/json", event.String)
		e.Data = []byte(data)
	}
	return e
}

// TestVerdict checks that the command says of any Trigger and event what the engine says that routes events, and that the
// exit code agrees.
func TestVerdict(t *testing.T) {
	compiler, err := trigger.NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	manifest, events := filepath.Join(dir, "trigger.yaml"), filepath.Join(dir, "event.json")
	rapid.Check(t, func(rt *rapid.T) {
		uri := "http://127.0.0.1/"
		tr := &eventingv1.Trigger{
			TypeMeta:   metav1.TypeMeta{APIVersion: "eventing.knative.dev/v1", Kind: "Trigger"},
			ObjectMeta: metav1.ObjectMeta{Name: "t", Namespace: "default"},
			Spec: eventingv1.TriggerSpec{
				Broker: "b", Subscriber: eventingv1.Destination{URI: &uri},
				Filters: rapid.SliceOfN(genFilter(2), 0, 2).Draw(rt, "filters"),
			},
		}
		e := genEvent(rt)
		write(rt, manifest, must(yaml.Marshal(tr)))
		write(rt, events, e.AppendJSON(nil))
		filter, errs := compiler.Compile(tr)
		if len(errs) > 0 {
			rt.Fatal(errs)
		}
		want := filter.Match(trigger.NewInput(e))

		got := runCommand(t, []string{"trigger", "test", "-f", manifest, "--event", events, "-o", "json"}, nil)
		var report testReport
		if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || len(report.Results) != 1 {
			rt.Fatalf("%v\n%s%s", err, got.stdout, got.stderr)
		}
		result := report.Results[0]
		if result.Matched != want || (len(result.Failures) == 0) != want || (got.exit == ExitOK) != want {
			rt.Fatalf("want match %t, got exit code %d and\n%s", want, got.exit, got.stdout)
		}
	})
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func write(t *rapid.T, path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
