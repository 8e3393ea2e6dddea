package trigger

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	sdk "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/event"
)

// tckCase is one case of the public CESQL test kit.
type tckCase struct {
	Name           string                     `json:"name"`
	Expression     string                     `json:"expression"`
	Result         any                        `json:"result"`
	Error          string                     `json:"error"`
	Event          map[string]json.RawMessage `json:"event"`
	EventOverrides map[string]json.RawMessage `json:"eventOverrides"`
}

// tckDir returns where the test kit is: in the module that also has the evaluator.
func tckDir(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/cloudevents/sdk-go/sql/v2").Output()
	if err != nil {
		t.Fatalf("find the CESQL test kit: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "test", "tck")
}

// TestCESQLTestKit runs every case through the node that Triggers use, and through a whole Filter, which is true exactly
// if the case's result is.
func TestCESQLTestKit(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(tckDir(t), "*.yaml"))
	if err != nil || len(files) < 18 {
		t.Fatalf("found %d files of the CESQL test kit, want at least 18 (%v)", len(files), err)
	}
	compiler, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var suite struct {
				Tests []tckCase `json:"tests"`
			}
			if err := yaml.Unmarshal(text, &suite); err != nil || len(suite.Tests) == 0 {
				t.Fatalf("%d cases (%v)", len(suite.Tests), err)
			}
			for _, c := range suite.Tests {
				t.Run(c.Name, func(t *testing.T) { c.run(t, compiler) })
			}
		})
	}
}

func (c tckCase) run(t *testing.T, compiler *Compiler) {
	filter, errs := compiler.Compile(&eventingv1.Trigger{Spec: eventingv1.TriggerSpec{
		Filters: []eventingv1.Filter{{CESQL: c.Expression}},
	}})
	if c.Error == "parse" || c.Error == "missingFunction" { // a missing function is found at compilation here
		if len(errs) == 0 {
			t.Fatal("compiled, want an error")
		}
		return
	}
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	in := NewInput(c.event(t))
	got, err := filter.root.(*sqlNode).eval(in)
	if kind := tckErrorKind(err); kind != c.Error {
		t.Errorf("got error %v of kind %q, want %q", err, kind, c.Error)
	}
	want := c.Result
	if f, ok := want.(float64); ok {
		want = int32(f)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", c.Expression, diff)
	}
	if match := filter.Match(in); match != (c.Error == "" && c.Result == true) {
		t.Errorf("Match is %v for result %v and error %q", match, c.Result, c.Error)
	}
}

func tckErrorKind(err error) string {
	switch {
	case err == nil:
		return ""
	case sqlerrors.IsMathError(err):
		return "math"
	case sqlerrors.IsCastError(err):
		return "cast"
	case sqlerrors.IsMissingAttributeError(err):
		return "missingAttribute"
	case sqlerrors.IsFunctionEvaluationError(err):
		return "functionEvaluation"
	default:
		return "generic"
	}
}

// event returns the event of the case; one that gives none gets an event with every attribute.
func (c tckCase) event(t *testing.T) *event.Event {
	t.Helper()
	attributes := c.Event
	if attributes == nil {
		attributes = map[string]json.RawMessage{
			"specversion": json.RawMessage(`"1.0"`), "id": json.RawMessage(`"full-event"`),
			"source": json.RawMessage(`"http://example.com/source"`), "type": json.RawMessage(`"com.example.FullEvent"`),
			"subject": json.RawMessage(`"topic"`), "time": json.RawMessage(`"2020-03-21T12:34:56.78Z"`),
			"dataschema": json.RawMessage(`"http://example.com/schema"`), "datacontenttype": json.RawMessage(`"text/json"`),
			"exbool": json.RawMessage(`true`), "exint": json.RawMessage(`42`), "exstring": json.RawMessage(`"exstring"`),
			"exbinary": json.RawMessage(`"AAECAw=="`), "exurl": json.RawMessage(`"http://example.com/source"`),
			"extime": json.RawMessage(`"2020-03-21T12:34:56.78Z"`),
		}
	}
	e := &event.Event{}
	for _, from := range []map[string]json.RawMessage{attributes, c.EventOverrides} {
		for name, raw := range from {
			setJSON(t, e, name, raw)
		}
	}
	return e
}

func setJSON(t *testing.T, e *event.Event, name string, raw json.RawMessage) {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	switch v := v.(type) {
	case string:
		e.Set(name, v, event.String)
	case bool:
		e.Set(name, string(raw), event.Boolean)
	case float64:
		e.Set(name, string(raw), event.Integer)
	default:
		t.Fatalf("attribute %s has value %s", name, raw)
	}
}

// TestSQLContextIsComplete compares what the evaluator sees of an event with what the SDK itself would show it.
func TestSQLContextIsComplete(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.FixedZone("", 3600))
	want := sdk.New()
	want.SetID("1")
	want.SetSource("http://example.com/a?b=c#d")
	want.SetType("t")
	want.SetSubject("s")
	want.SetDataSchema("http://example.com/schema")
	want.SetDataContentType("text/plain")
	want.SetTime(at)
	want.SetExtension("number", 5)
	want.SetExtension("flag", true)
	want.SetExtension("text", "5")

	e := &event.Event{}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "1", event.String)
	e.Set(event.Source, "http://example.com/a?b=c#d", event.String)
	e.Set(event.Type, "t", event.String)
	e.Set(event.Subject, "s", event.String)
	e.Set(event.DataSchema, "http://example.com/schema", event.String)
	e.Set(event.DataContentType, "text/plain", event.String)
	e.Set(event.Time, at.Format(time.RFC3339Nano), event.String)
	e.Set("number", "5", event.Integer)
	e.Set("flag", "true", event.Boolean)
	e.Set("text", "5", event.String)
	got := sdk.Event{Context: &NewInput(e).sql}

	type view struct {
		SpecVersion, ID, Source, Type, Subject, Schema, ContentType string
		Time                                                        time.Time
		Extensions                                                  map[string]any
	}
	viewOf := func(e sdk.Event, names ...string) view {
		v := view{
			e.SpecVersion(), e.ID(), e.Source(), e.Type(), e.Subject(), e.DataSchema(), e.DataContentType(), e.Time(),
			map[string]any{},
		}
		for _, name := range names {
			v.Extensions[name] = e.Extensions()[name]
		}
		return v
	}
	names := []string{"number", "flag", "text"}
	if diff := cmp.Diff(viewOf(want, names...), viewOf(got, names...)); diff != "" {
		t.Errorf("(-sdk +ours):\n%s", diff)
	}
}
