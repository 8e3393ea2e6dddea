package e2e

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace.dev/internal/demo"
	"millrace.dev/test/harness"
)

// The curl line of the README, and the one that dev mode prints, are accepted as they stand.
func TestCurlLinesWork(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	out := &harness.Output{}
	subscribers := httptest.NewServer(demo.Subscribers(out))
	t.Cleanup(subscribers.Close)
	dir := t.TempDir()
	for _, name := range []string{"broker.yaml", "triggers.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../examples/live-stream", name))
		if err != nil {
			t.Fatal(err)
		}
		harness.WriteFile(t, filepath.Join(dir, name), strings.ReplaceAll(string(text), "http://127.0.0.1:8090", subscribers.URL))
	}
	dev := harness.StartDev(t, t.TempDir(), dir)

	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := curlLines(string(readme))
	if len(lines) != 1 {
		t.Fatalf("%d curl lines in the README, want 1", len(lines))
	}
	runCurl(t, strings.ReplaceAll(lines[0], "http://127.0.0.1:8080", dev.URL))
	for _, want := range []string{"gift-animation", "analytics", "big-spender"} {
		harness.Eventually(t, want+" prints the event", func() error {
			if !regexp.MustCompile(want + `.*"amount":500`).MatchString(out.String()) {
				return fmt.Errorf("printed so far:\n%s", out)
			}
			return nil
		})
	}
	lines = curlLines(dev.Out.String())
	if len(lines) != 1 {
		t.Fatalf("%d curl lines printed by dev mode, want 1:\n%s", len(lines), dev.Out)
	}
	runCurl(t, lines[0])
}

// curlLines finds commands that start with curl, with their continuation lines.
func curlLines(text string) []string {
	return regexp.MustCompile(`(?m)^\s*curl (?:.*\\\n)*.*$`).FindAllString(text, -1)
}

func runCurl(t *testing.T, line string) {
	t.Helper()
	start := time.Now()
	answer, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, line, answer)
	}
	if !strings.Contains(string(answer), " 202 Accepted") {
		t.Errorf("%s\n%s", line, answer)
	}
	t.Logf("answered in %s", time.Since(start).Round(time.Millisecond))
}
