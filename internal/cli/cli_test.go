package cli

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"millrace.dev/pkg/event"
)

var update = flag.Bool("update", false, "write what the commands print to testdata")

// TestCommands runs each testdata/*.txtar: the comment's line "$ millrace ..." in a folder that holds the archive's
// files, or as "$ kubectl millrace ...". The files stdout, stderr, exit and received (the events that the test's server got) are what is expected. In
// arguments and output $URL is that of the server; a file stdin is standard input. The dlq commands have an admin API
// with a few parked events, see newAdmin; with "no dev mode" in the comment they do not know of it, and a file kubeconfig is
// the user's.
func TestCommands(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			runCase(t, path)
		})
	}
}

func runCase(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	comment := string(archive.Comment)
	before, line, ok := strings.Cut(comment, "millrace ")
	if !ok || !strings.HasSuffix(before, "$ ") && !strings.HasSuffix(before, "$ kubectl ") {
		t.Fatal(`the comment has no line "$ millrace ..." or "$ kubectl millrace ..."`)
	}
	program := "/usr/local/bin/millrace"
	if strings.HasSuffix(before, "kubectl ") {
		program = "/usr/local/bin/kubectl-millrace"
	}
	server := newTarget(t)
	admin := newAdmin(t, comment)
	t.Setenv("KUBECONFIG", "kubeconfig")
	if strings.Contains(comment, "no dev mode") {
		useDevURL(t, "http://127.0.0.1:1")
	} else {
		t.Setenv("MILLRACE_ADMIN_URL", admin)
	}
	t.Chdir(t.TempDir())
	inputs := slices.DeleteFunc(slices.Clone(archive.Files), isResult)
	var stdin []byte
	for _, f := range inputs {
		if f.Name == "stdin" {
			stdin = f.Data
		}
		if err := os.WriteFile(f.Name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := runProgram(t, program, splitArgs(strings.ReplaceAll(strings.TrimSpace(line), "$URL", server.url)), stdin)
	results := []txtar.File{
		{Name: "stdout", Data: server.scrub(strings.ReplaceAll(got.stdout, admin, "$ADMIN"))},
		{Name: "stderr", Data: server.scrub(strings.ReplaceAll(got.stderr, admin, "$ADMIN"))},
		{Name: "exit", Data: fmt.Appendln(nil, got.exit)},
		{Name: "received", Data: server.scrub(server.received())},
	}
	results = slices.DeleteFunc(results, func(f txtar.File) bool { return len(f.Data) == 0 })
	archive.Files = append(inputs, results...)
	compareGolden(t, path, txtar.Format(archive))
}

func isResult(f txtar.File) bool {
	return slices.Contains([]string{"stdout", "stderr", "exit", "received"}, f.Name)
}

// splitArgs splits a line at spaces outside of single quotes.
func splitArgs(line string) []string {
	var args []string
	for _, m := range regexp.MustCompile(`(?:[^\s']|'[^']*')+`).FindAllString(line, -1) {
		args = append(args, strings.ReplaceAll(m, "'", ""))
	}
	return args
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run `go test ./internal/cli -update` if this is right (-want +got):\n%s", diff)
	}
}

type outcome struct {
	stdout, stderr string
	exit           int
}

func runCommand(t *testing.T, args []string, stdin []byte) outcome {
	t.Helper()
	return runProgram(t, "millrace", args, stdin)
}

// useDevURL has millrace dev looked for elsewhere.
func useDevURL(t *testing.T, url string) {
	t.Helper()
	before := devURL
	devURL = url
	t.Cleanup(func() { devURL = before })
}

func runProgram(t *testing.T, program string, args []string, stdin []byte) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := NewRoot(program)
	root.SetArgs(args)
	root.SetIn(bytes.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	exit := Execute(t.Context(), root)
	return outcome{stdout: stdout.String(), stderr: stderr.String(), exit: exit}
}

// target is where tests send events to. Its path says what it answers: /accept 202, /refuse 400 with a problem, /full
// 503 with Retry-After: 0, /busy/N/... 429 to the first N requests, /redirect 302, /plain 403 with a page.
type target struct {
	url string

	mu     sync.Mutex
	hits   map[string]int
	events []byte
}

func newTarget(t *testing.T) *target {
	tg := &target{hits: map[string]int{}}
	server := httptest.NewServer(tg)
	t.Cleanup(server.Close)
	tg.url = server.URL
	return tg
}

func (tg *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	tg.hits[r.URL.Path]++
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		return
	}
	mode := "binary"
	e, err := event.DecodeBinary(r.Header, body.Bytes())
	if event.DetectMode(r.Header.Get("Content-Type")) == event.ModeStructured {
		mode = "structured"
		e, err = event.DecodeJSON(body.Bytes())
	}
	if err != nil {
		tg.events = fmt.Appendln(tg.events, "not an event:", err)
	} else {
		tg.events = append(e.AppendJSON(fmt.Append(tg.events, mode, " ")), '\n')
	}
	tg.answer(w, r.URL.Path)
}

func (tg *target) answer(w http.ResponseWriter, path string) {
	switch kind, rest, _ := strings.Cut(path[1:], "/"); kind {
	case "refuse":
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"title":"Bad event","detail":"is not a number","attribute":"size","hint":"write digits"}`)
	case "full":
		w.Header().Set("Retry-After", "0")
		http.Error(w, "the store is full", http.StatusServiceUnavailable)
	case "busy":
		if n, _ := strconv.Atoi(rest); tg.hits[path] <= n {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	case "redirect":
		w.Header().Set("Location", "/accept")
		w.WriteHeader(http.StatusFound)
	case "plain":
		http.Error(w, "go\naway\x1b[31m", http.StatusForbidden)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (tg *target) received() string {
	tg.mu.Lock()
	defer tg.mu.Unlock()
	return string(tg.events)
}

// scrub replaces what differs from run to run.
func (tg *target) scrub(text string) []byte {
	text = strings.ReplaceAll(text, tg.url, "$URL")
	for _, r := range []struct{ pattern, with string }{
		{`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`, "UUID"},
		{`2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z`, "NOW"},
		{`2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d \S+`, "NOW"},
		{`(2\d{3}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{3}`, "TIME"},
		{`over \d+\.\d s`, "over N s"},
		{`"(seconds|at)": \d+\.\d+`, `"$1": N`},
		{`\d+ events/s`, "N events/s"},
		{`latency p50 \S+ p99 [^\s,]+`, "latency p50 N p99 N"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	return []byte(text)
}
