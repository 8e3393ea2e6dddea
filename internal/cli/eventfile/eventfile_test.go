package eventfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace.dev/pkg/event"
)

func jsonEvent(id string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"/s","type":"t"}`, id)
}

func prettyEvent(id string) string {
	return fmt.Sprintf("{\n  \"specversion\": \"1.0\",\n  \"id\": %q,\n  \"source\": \"/s\",\n  \"type\": \"t\",\n  \"data\": {\n    \"n\": 1\n  }\n}", id)
}

// outline reads a file and returns a line for each item: line number and id, or the error.
func outline(in io.Reader) []string {
	var out []string
	for item := range Read("f", in) {
		if item.Err != nil {
			out = append(out, item.Err.Error())
		} else {
			out = append(out, fmt.Sprintf("%d %s", item.Line, item.Event.Value(event.ID)))
		}
	}
	return out
}

func TestRead(t *testing.T) {
	const broken = "the body is not JSON: byte %d: %s"
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"one", jsonEvent("a"), []string{"1 a"}},
		{"one over several lines", prettyEvent("a") + "\n", []string{"1 a"}},
		{"lines", jsonEvent("a") + "\n" + jsonEvent("b") + "\n", []string{"1 a", "2 b"}},
		{"blank lines and CR", "\r\n \n" + jsonEvent("a") + "\r\n\r\n" + jsonEvent("b"), []string{"3 a", "5 b"}},
		{"indented", "  " + jsonEvent("a") + "\n\t" + jsonEvent("b"), []string{"1 a", "2 b"}},
		{"byte order mark", "\ufeff" + jsonEvent("a"), []string{"1 a"}},
		{"several over several lines", prettyEvent("a") + "\n" + prettyEvent("b"), []string{"1 a", "10 b"}},
		{"mixed", prettyEvent("a") + "\n" + jsonEvent("b") + "\n" + prettyEvent("c"), []string{"1 a", "10 b", "11 c"}},
		{"array", "[" + jsonEvent("a") + ",\n" + jsonEvent("b") + "]", []string{"1 a", "2 b"}},
		{"array over several lines", "\n[\n" + prettyEvent("a") + ",\n\n" + prettyEvent("b") + "\n]\n", []string{"3 a", "13 b"}},
		{"empty array", "[]", nil},
		{"empty", " \n", []string{"f: there is no event in it"}},
		{"bad line", jsonEvent("a") + "\nx\n" + jsonEvent("b"), []string{
			"1 a", "f:2: " + fmt.Sprintf(broken, 1, "invalid character 'x' looking for beginning of value"), "3 b",
		}},
		{"bad first line", "x\n" + jsonEvent("b"), []string{
			"f:1: " + fmt.Sprintf(broken, 1, "invalid character 'x' looking for beginning of value"), "2 b",
		}},
		{"cut line", `{"specversion":` + "\n" + jsonEvent("b"), []string{
			"f:1: " + fmt.Sprintf(broken, 15, "unexpected end of JSON input"), "2 b",
		}},
		{"two on a line", jsonEvent("a") + jsonEvent("b") + "\n" + jsonEvent("c"), []string{
			"f:1: " + fmt.Sprintf(broken, len(jsonEvent("a"))+1, "invalid character '{' after top-level value"), "2 c",
		}},
		{"no event", `{"id":"a","source":"/s","specversion":"1.0"}` + "\n" + jsonEvent("b"), []string{
			`f:1: type: is missing (add the header "ce-type", or the member "type" of a JSON event)`, "2 b",
		}},
		{"no event in array", "[{},\n" + jsonEvent("b") + "]", []string{
			`f:1: specversion: is missing (add the header "ce-specversion", or the member "specversion" of a JSON event)`, "2 b",
		}},
		{"broken array", "[" + jsonEvent("a") + ",\n{x},\n" + jsonEvent("b") + "]", []string{
			"1 a", "f:2: invalid character 'x' looking for beginning of object key string; the rest of the array was not read",
		}},
		{"cut array", "[" + jsonEvent("a") + ",\n", []string{
			"1 a", "f:2: the file ends before the array does; the rest of the array was not read",
		}},
		{"cut array after element", "[" + jsonEvent("a") + "\n", []string{
			"1 a", "f:2: the file ends before the array does; the rest of the array was not read",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, outline(strings.NewReader(test.text))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.want, outline(iotest.OneByteReader(strings.NewReader(test.text)))); diff != "" {
				t.Errorf("byte by byte (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadGzip(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	fmt.Fprintln(z, jsonEvent("a"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 a"}, outline(bytes.NewReader(packed.Bytes()))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cut := packed.Bytes()[:packed.Len()-6]
	if got := outline(bytes.NewReader(cut)); len(got) != 2 || !strings.Contains(got[1], "unexpected EOF") {
		t.Errorf("a file that breaks off gives %q", got)
	}
}

func TestReadError(t *testing.T) {
	in := io.MultiReader(strings.NewReader(jsonEvent("a")+"\n"), iotest.ErrReader(errors.New("disk on fire")))
	want := []string{"1 a", "f:2: read file of events: disk on fire"}
	if diff := cmp.Diff(want, outline(in)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadStopsEarly(t *testing.T) {
	for _, text := range []string{jsonEvent("a") + "\n" + jsonEvent("b"), "[" + jsonEvent("a") + "," + jsonEvent("b") + "]"} {
		n := 0
		for range Read("f", strings.NewReader(text)) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%d items of %s", n, text)
		}
	}
}

func TestOpen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "events.json")
	if err := os.WriteFile(name, []byte(jsonEvent("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, want string }{
		{name, "a"},
		{Stdin, "piped"},
		{name + "x", name + "x: open file of events: no such file or directory"},
	} {
		for item := range Open(test.name, strings.NewReader(jsonEvent("piped"))) {
			got := fmt.Sprint(item.Err)
			if item.Err == nil {
				got = item.Event.Value(event.ID)
			}
			if got != test.want {
				t.Errorf("%s: got %q, want %q", test.name, got, test.want)
			}
		}
	}
}

// TestAnyLayout checks that events come out the same however a file lays them out.
func TestAnyLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,5}`), 1, 5).Draw(t, "ids")
		layout := rapid.SampledFrom([]func(string) string{jsonEvent, prettyEvent})
		gap := rapid.SampledFrom([]string{"\n", "\n\n", "\r\n"})
		var sequence, array []string
		for _, id := range ids {
			text := layout.Draw(t, "layout")(id)
			sequence = append(sequence, text+gap.Draw(t, "gap"))
			array = append(array, text)
		}
		for _, text := range []string{strings.Join(sequence, ""), "[" + strings.Join(array, ",") + "]"} {
			var got []string
			for item := range Read("f", strings.NewReader(text)) {
				if item.Err != nil {
					t.Fatal(item.Err)
				}
				got = append(got, item.Event.Value(event.ID))
			}
			if diff := cmp.Diff(ids, got); diff != "" {
				t.Fatalf("%s\n(-want +got):\n%s", text, diff)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(jsonEvent("a") + "\n" + prettyEvent("b")))
	f.Add([]byte("[" + jsonEvent("a") + ",{}]"))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := bytes.Count(data, []byte("\n")) + 1
		for item := range Read("f", bytes.NewReader(data)) {
			if (item.Err == nil) == (item.Event == nil) {
				t.Fatalf("event %v and error %v", item.Event, item.Err)
			}
			if item.Line > lines && !bytes.HasPrefix(data, []byte("\x1f\x8b")) {
				t.Fatalf("line %d of %d", item.Line, lines)
			}
		}
	})
}
