package guides_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/test/harness"
)

// capture is an image of a terminal in which a command has been run. A guide has it made at the place of a comment:
//
//	<!-- capture captures/top.svg: millrace top -->
//
// With & at its end the command goes on while those after it are run.
type capture struct {
	file    string // below docs/guides
	command string
	beside  bool // with those that follow
}

var captureMark = regexp.MustCompile(`^<!-- capture (captures/[a-z]+\.svg): (.*?)( &)? -->$`)

// captureOf returns nil for a line that asks for no image.
func captureOf(line string) *capture {
	m := captureMark.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	return &capture{file: m[1], command: m[2], beside: m[3] != ""}
}

// buildCapture builds the program that runs the commands, from a module of its own: what it takes is nothing that Millrace needs.
func buildCapture(t *testing.T, dir string) {
	t.Helper()
	module, err := filepath.Abs(filepath.Join(root, "tools", "capture"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "-C", module, "build", "-o", filepath.Join(dir, "capture"), ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build tools/capture: %v\n%s", err, out)
	}
}

// name is that of the image in the folder where the commands are run.
func (c *capture) name() string { return filepath.Base(c.file) }

// capture runs the command of an image.
func (s *shell) capture(t *testing.T, c *capture) {
	t.Helper()
	// The image is there only when it is whole.
	text := fmt.Sprintf("{ env -u NO_COLOR TERM=xterm-256color ./capture -columns 140 -prompt %s %s.new %s && mv %[2]s.new %[2]s; }",
		"'"+strings.ReplaceAll(c.command, "'", `'\''`)+"'", c.name(), c.command)
	if c.beside {
		text += " &"
	}
	if out, err := s.run(text); err != nil {
		t.Fatalf("%s: %v\n%s", c.command, err, strings.Join(out, "\n"))
	}
}

// check compares the image of this run with that of the guide, or writes that.
func (c *capture) check(t *testing.T, dir string) {
	t.Helper()
	var got []byte
	harness.Eventually(t, "there is an image of "+c.command, func() (err error) {
		got, err = os.ReadFile(filepath.Join(dir, c.name()))
		return err
	})
	path := filepath.Join(root, "docs", "guides", c.file)
	if *update || *captures {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, got, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; make captures writes it", err)
	}
	if diff := cmp.Diff(shape(t, shown), shape(t, got)); diff != "" {
		t.Errorf("%s is not what %s shows; if that is as it should be: make captures (-image +now):\n%s", c.file, c.command, diff)
	}
}

// What differs from run to run in an image: the figures of a moment, and what a Trigger comes to by them.
var (
	figure = regexp.MustCompile(`\b\d+(\.\d+)?|DURATION|(^| )-( |$)`)
	state  = regexp.MustCompile(`\b(ok|failing|behind)$`)
)

// shape is the text of an image without that.
func shape(t *testing.T, image []byte) []string {
	t.Helper()
	var rows []string
	for _, line := range strings.Split(strings.TrimSpace(normal(rowsOf(t, image))), "\n") {
		rows = append(rows, state.ReplaceAllString(figure.ReplaceAllString(line, "${2}N${3}"), "STATE"))
	}
	return rows
}

// rowsOf returns the text elements of an image, which are the rows of the screen.
func rowsOf(t *testing.T, image []byte) (rows []string) {
	t.Helper()
	in := false
	for dec := xml.NewDecoder(strings.NewReader(string(image))); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatalf("read the image: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == "text" {
				in, rows = true, append(rows, "")
			}
		case xml.EndElement:
			in = in && token.Name.Local != "text"
		case xml.CharData:
			if in {
				rows[len(rows)-1] += string(token)
			}
		}
	}
}

func TestCaptureMarks(t *testing.T) {
	for line, want := range map[string]*capture{
		"<!-- capture captures/top.svg: millrace top --count 2 -->": {file: "captures/top.svg", command: "millrace top --count 2"},
		"<!-- capture captures/tail.svg: millrace tail & -->":       {file: "captures/tail.svg", command: "millrace tail", beside: true},
		"<!-- for Prometheus -->":                                   nil,
	} {
		if diff := cmp.Diff(want, captureOf(line), cmp.AllowUnexported(capture{})); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

// What says the same of another moment has the same shape; another column, Trigger or line does not.
func TestShape(t *testing.T) {
	image := func(rows ...string) []byte {
		text := "<svg>"
		for _, row := range rows {
			text += "<text><tspan class=\"b\">" + row[:1] + "</tspan>" + row[1:] + "</text>\n"
		}
		return []byte(text + "</svg>")
	}
	one := shape(t, image("BROKER IN/S OLDEST STATE", "default/shop  2.0  -   ok"))
	if diff := cmp.Diff(one, shape(t, image("BROKER IN/S   OLDEST STATE", "default/shop  10 15s failing"))); diff != "" {
		t.Errorf("the same at another moment differs: %s", diff)
	}
	for name, other := range map[string][]byte{
		"a column":  image("BROKER IN/S STATE", "default/shop  2.0  -   ok"),
		"a name":    image("BROKER IN/S OLDEST STATE", "default/store  2.0  -   ok"),
		"one value": image("BROKER IN/S OLDEST STATE", "default/shop  2.0  ok"),
		"a row":     image("BROKER IN/S OLDEST STATE"),
	} {
		if cmp.Equal(one, shape(t, other)) {
			t.Errorf("without %s it is the same", name)
		}
	}
}
