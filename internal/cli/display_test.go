package cli

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

// running is a display command in the background.
type running struct {
	url    string
	stdout *bytes.Buffer // to be read after wait
	rest   chan string   // of standard error
	exit   chan int
}

// startDisplay runs the command at a free port until it ends or ctx does.
func startDisplay(ctx context.Context, t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{stdout: &bytes.Buffer{}, rest: make(chan string, 1), exit: make(chan int, 1)}
	stderr, w := io.Pipe()
	root := NewRoot("millrace") // Commands get their context from Execute.
	root.SetArgs(append([]string{"display", "--listen", "127.0.0.1:0"}, args...))
	root.SetOut(r.stdout)
	root.SetErr(w)
	go func() {
		r.exit <- Execute(ctx, root)
		_ = w.Close()
	}()
	lines := bufio.NewReader(stderr)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("read standard error: %v", err)
	}
	r.url = regexp.MustCompile(`http://\S+`).FindString(line)
	go func() {
		rest, _ := io.ReadAll(lines)
		r.rest <- string(rest)
	}()
	return r
}

func (r *running) wait(t *testing.T, wantStderr string) {
	t.Helper()
	if code := <-r.exit; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff(wantStderr, <-r.rest); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
}

func send(t *testing.T, wantExit int, args ...string) {
	t.Helper()
	if got := runCommand(t, append([]string{"send"}, args...), nil); got.exit != wantExit {
		t.Errorf("send %s: exit code %d\n%s", args, got.exit, got.stderr)
	}
}

func TestDisplayCount(t *testing.T) {
	display := startDisplay(t.Context(), t, "--count", "2", "--compact", "--name", "demo")
	for _, id := range []string{"a", "b"} {
		send(t, ExitOK, display.url, "--type", "com.example.t", "--id", id, "--data", "5")
	}
	display.wait(t, "2 events\n")
	const want = "demo             com.example.t  a  5\ndemo             com.example.t  b  5\n"
	if diff := cmp.Diff(want, display.stdout.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDisplayStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	display := startDisplay(ctx, t, "-o", "json")
	send(t, ExitOK, display.url, "--type", "com.example.t", "--id", "a", "--ext", "time=2026-01-02T03:04:05Z", "--mode", "structured")
	cancel()
	display.wait(t, "1 event\n")
	e, err := event.DecodeJSON(bytes.TrimSpace(display.stdout.Bytes()))
	if err != nil || e.Value(event.ID) != "a" {
		t.Errorf("printed %s: %v", display.stdout, err)
	}
}

func TestDisplayFails(t *testing.T) {
	display := startDisplay(t.Context(), t, "--fail-first", "1", "--fail-status", "400", "--count", "1", "--compact")
	send(t, ExitFailure, display.url, "--type", "t", "--id", "a")
	send(t, ExitOK, display.url, "--type", "t", "--id", "a")
	display.wait(t, "2 events (1 failed on purpose)\n")
	if want := "t  a  → answered 400 on purpose\nt  a\n"; display.stdout.String() != want {
		t.Errorf("printed %s", display.stdout)
	}
}

func TestDisplayReplies(t *testing.T) {
	display := startDisplay(t.Context(), t, "--reply", "com.example.reply", "--count", "1")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, display.url,
		strings.NewReader(`{"specversion":"1.0","id":"a","source":"/s","type":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", event.ContentTypeJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Ce-Type"); got != "com.example.reply" {
		t.Errorf("replied with type %q", got)
	}
	display.wait(t, "1 event\n")
}
