// Package chart renders the Helm chart and the kustomize bases for tests.
package chart

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"millrace.dev/test/cluster"
)

// Namespace is that of the release, unless a test says otherwise.
const Namespace = "millrace-system"

// Folder is where the chart is.
func Folder() string { return filepath.Join(cluster.Root(), "charts", "millrace") }

// helm and kustomize are the programs pinned in tools/, built the first time.
var (
	helm      = sync.OnceValues(func() (string, error) { return tool("tools/helm", "helm") })
	kustomize = sync.OnceValues(func() (string, error) { return tool("tools", "kustomize") })
)

func tool(module, name string) (string, error) {
	out, err := run(context.Background(), "go", "-C", filepath.Join(cluster.Root(), module), "tool", "-n", name)
	return strings.TrimSpace(out), err
}

// Build builds what Template and Kustomize run. Otherwise their first call does.
func Build() error {
	for _, build := range []func() (string, error){helm, kustomize} {
		if _, err := build(); err != nil {
			return err
		}
	}
	return nil
}

// Helm runs helm and returns what it prints. An error holds what it says went wrong.
func Helm(ctx context.Context, args ...string) (string, error) {
	program, err := helm()
	if err != nil {
		return "", err
	}
	return run(ctx, program, args...)
}

// Template returns the objects of the chart, rendered for Namespace with the values of a YAML text, and where it is with
// further arguments of helm template.
func Template(t testing.TB, values string, args ...string) []*unstructured.Unstructured {
	t.Helper()
	out, err := TryTemplate(t, values, args...)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Decode(t, out)
}

// TryTemplate is Template for values that may be refused. It returns the text.
func TryTemplate(t testing.TB, values string, args ...string) (string, error) {
	t.Helper()
	program, err := helm()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program, append([]string{"template", "millrace", Folder(), "--namespace", Namespace, "--values", "-"}, args...)...)
	command.Stdin = strings.NewReader(values)
	return output(command)
}

// Kustomize returns the objects of a kustomization.
func Kustomize(t testing.TB, folder string) []*unstructured.Unstructured {
	t.Helper()
	program, err := kustomize()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t.Context(), program, "build", folder)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Decode(t, out)
}

func run(ctx context.Context, name string, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, name, args...))
}

func output(c *exec.Cmd) (string, error) {
	var out, complaints bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaints
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(c.Args, " "), err, out.String(), complaints.String())
	}
	return out.String(), nil
}
