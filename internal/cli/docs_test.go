package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"millrace.dev/internal/objects"
)

// TestDeadLettersGuide runs every command of the guide, and reads its manifest.
func TestDeadLettersGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/dead-letters.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(text)
	admin := newAdmin(t, "")
	t.Setenv("MILLRACE_ADMIN_URL", admin)
	commands := regexp.MustCompile(`(?m)^millrace (dlq .*)$`).FindAllStringSubmatch(guide, -1)
	if len(commands) < 10 {
		t.Fatalf("%d commands in the guide", len(commands))
	}
	for _, m := range commands {
		// The store here has other Triggers and may have been purged of what a command names; all else must be right.
		args := strings.NewReplacer("gift-animation", "gifts", "big-spender", "gifts", "analytics", "rooms").Replace(m[1])
		got := runCommand(t, splitArgs(args), nil)
		if got.exit == ExitUsage || got.exit == ExitFailure && got.stdout == "" && !strings.Contains(got.stderr, "no event is parked") {
			t.Errorf("millrace %s: exit code %d\n%s", args, got.exit, got.stderr)
		}
	}
	manifest := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(guide)[1]
	file := filepath.Join(t.TempDir(), "guide.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := objects.Load([]string{file})
	if err != nil || len(set.Problems) > 0 || len(set.Triggers) != 1 {
		t.Errorf("the manifest of the guide: %v, %v", set, err)
	}
	runCurls(t, strings.ReplaceAll(guide, "http://127.0.0.1:8081", admin))
}

// runCurls runs the lines with curl as they stand.
func runCurls(t *testing.T, guide string) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("without curl its lines are not tried")
		return
	}
	lines := regexp.MustCompile(`(?m)^curl (?:.*\\\n)*.*$`).FindAllString(guide, -1)
	if len(lines) != 2 {
		t.Fatalf("%d curl lines, want 2", len(lines))
	}
	for _, line := range lines {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"state":"done"`) {
			t.Errorf("%s\n%s%v", line, out, err)
		}
	}
}
