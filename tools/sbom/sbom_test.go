// Package sbom tests hack/sbom.sh, which lists what is in programs with the cyclonedx-gomod of this module.
package sbom

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSBOM finds every module of a program in its list, and the version of the program.
func TestSBOM(t *testing.T) {
	program := filepath.Join(t.TempDir(), "broker-ingress")
	build := exec.CommandContext(t.Context(), "go", "-C", filepath.Join("..", ".."), "build", "-trimpath", "-o", program, "./cmd/broker-ingress")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	folder := t.TempDir()
	list := exec.CommandContext(t.Context(), filepath.Join("..", "..", "hack", "sbom.sh"), folder, "v1.2.3", program)
	// Nothing is looked up anywhere.
	// The tool itself is got and built before the network is taken away.
	if out, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "cyclonedx-gomod").CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	list.Env = append(os.Environ(), "HTTP_PROXY=http://127.0.0.1:1", "HTTPS_PROXY=http://127.0.0.1:1")
	if out, err := list.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(folder, "broker-ingress.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if c := document.Metadata.Component; document.Format != "CycloneDX" || c.Name != "millrace.dev" || c.Version != "v1.2.3" {
		t.Errorf("a list of format %q for %+v", document.Format, c)
	}
	listed := map[string]bool{}
	for _, c := range document.Components {
		listed[c.Name+"@"+c.Version] = true
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 10 {
		t.Fatalf("the program has only %d modules", len(info.Deps))
	}
	for _, m := range info.Deps {
		if !listed[m.Path+"@"+m.Version] {
			t.Errorf("the list lacks %s %s", m.Path, m.Version)
		}
	}
	if strings.Contains(string(text), "timestamp") {
		t.Error("the list holds the time when it was made, so making it again gives another")
	}
}
