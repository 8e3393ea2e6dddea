package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestStringIsNeverEmpty(t *testing.T) {
	if got := String(); got == "" {
		t.Error("String() is empty in a program built without a version")
	}
}

// TestLinkedVersion holds the name of the variable and the linker flag in the Makefile together: the linker ignores a
// name that does not exist.
func TestLinkedVersion(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`-X \S+=`).Find(makefile)
	if flag == nil {
		t.Fatal("the Makefile links no version")
	}
	program := filepath.Join(t.TempDir(), "print")
	build := exec.CommandContext(t.Context(), "go", "build",
		"-ldflags="+string(flag)+"v1.2.3", "-o", program, "./testdata/print")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), program).Output()
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	if got := strings.TrimSpace(string(out)); got != "v1.2.3" {
		t.Errorf("a program linked with v1.2.3 says %q", got)
	}
}
