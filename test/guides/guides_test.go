// Package guides_test runs the guides of docs/guides: each command of their console blocks, in one shell, and compares what it prints with
// what the guide shows.
package guides_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"millrace.dev/test/harness"
)

var (
	update   = flag.Bool("update", false, "write what the commands print into the guides, and the images")
	captures = flag.Bool("captures", false, "write the images of terminals alone")
)

const root = "../.."

// block is a console block of a guide, or a comment that has a command run for an image.
type block struct {
	first, last int // the lines of its fences
	commands    []command
	image       *capture // nil in a console block
}

type command struct {
	text   string
	output []string
}

func blocksOf(lines []string) (blocks []block) {
	for i := 0; i < len(lines); i++ {
		if c := captureOf(lines[i]); c != nil {
			blocks = append(blocks, block{image: c})
			continue
		}
		if lines[i] != "```console" {
			continue
		}
		b := block{first: i}
		for i++; i < len(lines) && lines[i] != "```"; i++ {
			if text, is := strings.CutPrefix(lines[i], "$ "); is {
				b.commands = append(b.commands, command{text: text})
			} else if n := len(b.commands); n > 0 {
				b.commands[n-1].output = append(b.commands[n-1].output, lines[i])
			}
		}
		b.last = i
		blocks = append(blocks, b)
	}
	return blocks
}

// needsPrometheus says whether the commands of a block can be run only where Prometheus is.
func (b *block) needsPrometheus() bool {
	return strings.HasPrefix(b.commands[0].text, "prometheus ") || strings.HasPrefix(b.commands[0].text, "promtool ")
}

// once are commands that change something; the others are repeated until they print what the guide shows.
var once = regexp.MustCompile(`^(go build|export|millrace send|millrace dlq redrive|kill|sleep) |&$`)

// What differs from run to run.
var varies = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d( UTC)?)?`), "DATE"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d(\.\d+)?`), "TIME"},
	{regexp.MustCompile(`@\[[\d.]+\]`), "@[TIME]"},
	{regexp.MustCompile(`\b\d+(\.\d+)?\s?(µs|ms|s|m)\b`), "DURATION"},
	{regexp.MustCompile(`\d+ events/s`), "RATE"},
	{regexp.MustCompile(`from 127\.0\.0\.1:\d+`), "from ADDRESS"},
	{regexp.MustCompile(` +`), " "},
}

func normal(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		for _, v := range varies {
			line = v.pattern.ReplaceAllString(line, v.by)
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// ports are those that the guides use, which others may use here.
type ports struct{ away, back *strings.Replacer }

func newPorts(t *testing.T) ports {
	t.Helper()
	var away, back []string
	for _, port := range []string{"8080", "8081", "8090", "9090"} {
		free := fmt.Sprint(harness.FreePort(t))
		away = append(away, "127.0.0.1:"+port, "127.0.0.1:"+free)
		back = append(back, "127.0.0.1:"+free, "127.0.0.1:"+port)
	}
	return ports{away: strings.NewReplacer(away...), back: strings.NewReplacer(back...)}
}

// shell runs one command after the other.
type shell struct {
	in    io.Writer
	lines chan string
	ports ports
}

const endMark = "-- end of output: "

func newShell(t *testing.T, dir string, p ports) *shell {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TZ=UTC", "NO_COLOR=1",
		"MILLRACE_LISTEN="+p.away.Replace("127.0.0.1:8080"), "MILLRACE_ADMIN="+p.away.Replace("127.0.0.1:8081"),
		"MILLRACE_ADMIN_URL=http://"+p.away.Replace("127.0.0.1:8081"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it starts ends with it
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		_ = w.Close()
	})
	s := &shell{in: in, lines: make(chan string), ports: p}
	go func() {
		defer close(s.lines)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	return s
}

// run returns what a command printed. Whether it succeeded does not matter: some are to fail.
func (s *shell) run(text string) (output []string, err error) {
	if _, err := fmt.Fprintf(s.in, "%s\necho '%s'$?\n", s.ports.away.Replace(text), endMark); err != nil {
		return nil, err
	}
	timeout := time.After(2 * harness.Patience)
	for {
		select {
		case line, open := <-s.lines:
			switch {
			case !open:
				return output, errors.New("the shell has ended")
			case strings.HasPrefix(line, endMark):
				return output, nil
			}
			output = append(output, strings.TrimRight(s.ports.back.Replace(line), " "))
		case <-timeout:
			return output, errors.New("it does not end")
		}
	}
}

func TestDayTwo(t *testing.T) {
	path := filepath.Join(root, "docs", "guides", "day-two.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	blocks := blocksOf(lines)
	if len(blocks) < 10 {
		t.Fatalf("%d console blocks", len(blocks))
	}
	required := *update || os.Getenv("MILLRACE_REQUIRE_PROMETHEUS") != ""
	if _, err := exec.LookPath("curl"); err != nil {
		if required {
			t.Fatal(err)
		}
		t.Skip("needs curl")
	}
	_, noPrometheus := exec.LookPath("prometheus")
	if noPrometheus != nil && required {
		t.Fatal("install Debian's package prometheus")
	}
	p := newPorts(t)
	dir := t.TempDir()
	for _, file := range []string{"examples/day-two/shop.yaml", "examples/day-two/orders.ndjson", "examples/day-two/prometheus.yml", "config/monitoring/alerts.yaml"} {
		copyFile(t, dir, file, p)
	}
	buildCapture(t, dir)
	s := newShell(t, dir, p)
	for i := range blocks {
		b := &blocks[i]
		if b.image != nil {
			s.capture(t, b.image)
			continue
		}
		if noPrometheus != nil && b.needsPrometheus() {
			t.Logf("without Prometheus this is not run: %s", b.commands[0].text)
			continue
		}
		for k := range b.commands {
			s.check(t, dir, &b.commands[k])
		}
	}
	if *update {
		write(t, path, lines, blocks)
	}
	for i := range blocks {
		if c := blocks[i].image; c != nil {
			c.check(t, dir)
		}
	}
}

// check runs a command and compares what it prints; with -update it notes that instead.
func (s *shell) check(t *testing.T, dir string, c *command) {
	t.Helper()
	switch {
	case strings.HasPrefix(c.text, "go build -o bin/ "):
		args := append([]string{"build", "-o", filepath.Join(dir, "bin") + string(filepath.Separator)}, strings.Fields(c.text)[4:]...)
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.text, err, out)
		}
		return
	case strings.HasPrefix(c.text, "billing "): // has no environment variable for it
		if _, err := s.run(strings.Replace(c.text, "billing ", "billing -listen 127.0.0.1:8090 ", 1)); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		return
	case *update:
		c.output = s.steady(t, c.text)
		return
	}
	var got []string
	var err error
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(200 * time.Millisecond) {
		got, err = s.run(c.text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.text, err, strings.Join(got, "\n"))
		}
		if normal(got) == normal(c.output) {
			return
		}
		if once.MatchString(c.text) || time.Now().After(deadline) {
			t.Fatalf("%s prints\n%s\nand the guide says\n%s\nIf that is as it should be: go test ./test/guides -update", c.text,
				strings.Join(got, "\n"), strings.Join(c.output, "\n"))
		}
	}
}

// steady returns what a command prints, once that stays the same for some seconds and is not nothing.
func (s *shell) steady(t *testing.T, text string) []string {
	t.Helper()
	var last []string
	same := 0
	for deadline := time.Now().Add(harness.Patience); time.Now().Before(deadline); time.Sleep(time.Second) {
		got, err := s.run(text)
		if err != nil {
			t.Fatalf("%s: %v\n%s", text, err, strings.Join(got, "\n"))
		}
		if once.MatchString(text) {
			return got
		}
		if same++; normal(got) != normal(last) || len(got) == 0 {
			same = 0
		}
		if last = got; same == 4 {
			return got
		}
	}
	t.Fatalf("%s does not come to rest: %s", text, strings.Join(last, "\n"))
	return nil
}

func copyFile(t *testing.T, dir, file string, p ports) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o700); err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, filepath.Join(dir, file), p.away.Replace(string(text)))
}

func write(t *testing.T, path string, lines []string, blocks []block) {
	t.Helper()
	var out []string
	next := 0
	for _, b := range blocks {
		if b.image != nil {
			continue
		}
		out = append(out, lines[next:b.first+1]...)
		for _, c := range b.commands {
			out = append(out, "$ "+c.text)
			out = append(out, c.output...)
		}
		next = b.last
	}
	out = append(out, lines[next:]...)
	if err := os.WriteFile(path, []byte(strings.Join(out, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The rule that the guide shows is the one that is shipped.
func TestDayTwoShowsTheAlert(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join(root, "docs", "guides", "day-two.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(guide)
	if shown == nil {
		t.Fatal("the guide shows no rule")
	}
	type rule struct{ Alert, Expr string }
	var rules []rule
	if err := yaml.Unmarshal(shown[1], &rules); err != nil || len(rules) != 1 {
		t.Fatalf("the rule of the guide: %v, %v", rules, err)
	}
	text, err := os.ReadFile(filepath.Join(root, "config", "monitoring", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r == rules[0] {
				return
			}
		}
	}
	t.Errorf("no such rule is shipped: %+v", rules[0])
}
