package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/krew/pkg/index"
	"sigs.k8s.io/yaml"
)

// build makes the archive for this machine, and the manifest.
func build(t *testing.T) (out string) {
	t.Helper()
	out = t.TempDir()
	o := options{
		root: "../..", version: "v1.2.3", downloads: "https://downloads.example/v1.2.3/", out: out, homepage: "https://millrace.dev",
		platforms: []string{runtime.GOOS + "/" + runtime.GOARCH},
	}
	if err := o.run(); err != nil {
		t.Fatal(err)
	}
	return out
}

// run runs a program and returns what it prints.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestInstall has krew's own validator look at the manifest, and krew install the plugin by it.
func TestInstall(t *testing.T) {
	out := build(t)
	manifest := filepath.Join(out, "millrace.yaml")
	run(t, nil, "go", "tool", "validate-krew-manifest", "-skip-install", "-manifest", manifest)

	archives, err := filepath.Glob(filepath.Join(out, "*.tar.gz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives are %v, %v", archives, err)
	}
	home := []string{"KREW_ROOT=" + filepath.Join(t.TempDir(), "krew"), "KREW_NO_UPGRADE_CHECK=1"}
	// The checksum of the manifest is that of the archive, or this fails.
	said := run(t, home, "go", "tool", "krew", "install", "--manifest", manifest, "--archive", archives[0])
	if !strings.Contains(said, "Installed plugin: millrace") {
		t.Errorf("krew says:\n%s", said)
	}
	installed := filepath.Join(strings.TrimPrefix(home[0], "KREW_ROOT="), "bin", program)
	if help := run(t, nil, installed, "--help"); !strings.Contains(help, "Usage:\n  kubectl millrace") {
		t.Errorf("the plugin says:\n%s", help)
	}
	if version := run(t, nil, installed, "--version"); !strings.Contains(version, "v1.2.3") {
		t.Errorf("its version is %s", version)
	}
}

// TestManifestAgrees compares the manifest of all platforms with their archives, which are those of another build.
func TestManifestAgrees(t *testing.T) {
	first, again := build(t), build(t)
	read := func(out string) (p index.Plugin) {
		text, err := os.ReadFile(filepath.Join(out, "millrace.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	a, b := read(first).Spec.Platforms[0], read(again).Spec.Platforms[0]
	if a.Sha256 != b.Sha256 {
		t.Errorf("the same sources give archives of checksums %s and %s", a.Sha256, b.Sha256)
	}
	if want := "https://downloads.example/v1.2.3/kubectl-millrace_v1.2.3_" + runtime.GOOS + "_" + runtime.GOARCH + ".tar.gz"; a.URI != want {
		t.Errorf("the URL is %s, want %s", a.URI, want)
	}
}

// What krew would refuse later is refused before anything is built.
func TestOptions(t *testing.T) {
	for _, o := range []options{
		{version: "1.2.3", downloads: "https://downloads.example/"},
		{version: "v1.2.3", downloads: "http://downloads.example/"},
		{version: "v1.2.3", downloads: ""},
		{version: "v1.2.3", downloads: "https://downloads.example/", root: "../..", out: t.TempDir(), platforms: []string{"linux"}},
	} {
		if err := o.run(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
