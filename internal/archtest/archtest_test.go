package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImports holds the module to its rules.
func TestImports(t *testing.T) {
	// go test caches a result by the files and folders that the test itself has opened, and not by those that the go
	// command it starts has read.
	walk(t, func(string, fs.DirEntry) {})
	packages := list(t)
	if !slices.ContainsFunc(packages, func(p Package) bool { return p.Path == "millrace.dev/pkg/event" }) {
		t.Fatal("the packages listed are not this module's")
	}
	for _, violation := range Millrace().Check(packages) {
		t.Error(violation)
	}
}

// TestRules proves that each rule can fail, and that it forbids no more than it means to.
func TestRules(t *testing.T) {
	tests := []struct {
		from, to string
		want     string // part of the violation; empty if there is to be none
	}{
		{"api/eventing/v1", "pkg/event", "what all else is built on"},
		{"api/eventing/v1", "api/duck/v1", ""},
		{"api/eventing/v1", "k8s.io/apimachinery/pkg/apis/meta/v1", ""},
		{"api/eventing/v1", "github.com/sosodev/duration", ""},
		{"api/eventing/v1", "k8s.io/klog/v2", "get its dependencies too"},
		{"pkg/event", "api/eventing/v1", "what all else is built on"},
		{"pkg/event", "github.com/google/uuid", "standard library only"},
		{"pkg/cel", "pkg/event", ""},
		{"pkg/cel", "pkg/trigger", "pure function"},
		{"pkg/cel", "github.com/google/cel-go/cel", ""},
		{"pkg/trigger", "github.com/google/cel-go/cel", "bounds on expressions"},
		{"pkg/trigger", "pkg/cel", ""},
		{"pkg/trigger", "pkg/stream", "matching is pure"},
		{"pkg/trigger", "github.com/cloudevents/sdk-go/sql/v2/parser", ""},
		{"pkg/delivery", "pkg/stream", "where it is kept"},
		{"pkg/delivery", "github.com/cloudevents/sdk-go/v2/event", "rewrites times"},
		{"pkg/stream", "pkg/delivery", "neither filters nor deliveries"},
		{"pkg/stream", "pkg/event", ""},
		{"pkg/stream", "github.com/nats-io/nats.go/jetstream", ""},
		{"pkg/stream", "github.com/nats-io/nats-server/v2/server", "must not carry one"},
		{"pkg/broker", "pkg/stream", ""},
		{"pkg/broker", "pkg/dispatch", "it knows none"},
		{"pkg/broker", "pkg/trigger", "it knows none"},
		{"pkg/broker", "github.com/nats-io/nats.go", "alone speaks to NATS"},
		{"pkg/broker", "github.com/go-chi/chi/v5", ""},
		{"pkg/brokerage", "pkg/event", "has no layer"},
		{"pkg/dispatch", "pkg/trigger", ""},
		{"pkg/dispatch", "pkg/delivery", ""},
		{"pkg/dispatch", "pkg/broker", "meet only in the store"},
		{"pkg/dispatch", "internal/telemetry", "meet only in the store"},
		{"pkg/source/kafka", "pkg/stream", ""},
		{"pkg/source/kafka", "pkg/dispatch", "like any other producer"},
		{"pkg/source/kafka", "github.com/apache/rocketmq-clients/golang/v5/protocol/v2", "alone speaks to RocketMQ"},
		{"pkg/source/rocketmq", "github.com/apache/rocketmq-clients/golang/v5/protocol/v2", ""},
		{"internal/controller", "pkg/trigger", ""},
		{"internal/controller", "pkg/dispatch", "runs no part of it"},
		{"internal/controller", "sigs.k8s.io/controller-runtime/pkg/client", ""},
		{"internal/app", "sigs.k8s.io/controller-runtime/pkg/client", "runs without a cluster"},
		{"pkg/dispatch", "k8s.io/client-go/rest", "needs its client"},
		{"internal/objects", "api/eventing/v1", ""},
		{"internal/objects", "internal/app", "put together"},
		{"internal/objects", "cmd/millrace", "put together"},
		{"internal/objects", "sigs.k8s.io/controller-runtime", "runs without a cluster"},
		{"internal/objects/kube", "sigs.k8s.io/controller-runtime", "runs without a cluster"},
		{"internal/objects/kube", "k8s.io/client-go/tools/cache", ""},
		{"internal/devserver", "github.com/nats-io/nats-server/v2/server", ""},
		{"internal/app", "pkg/dispatch", ""},
		{"internal/app", "internal/telemetry", ""},
		{"internal/app", "github.com/nats-io/nats.go", "alone speaks to NATS"},
		{"internal/app", "cmd/millrace", "business of its main alone"},
		{"internal/app", "internal/cmdline", "business of its main alone"},
		{"internal/cmdline", "internal/app", ""},
		{"internal/cmdline", "cmd/millrace", "in common"},
		{"internal/cli/sender", "github.com/cloudevents/sdk-go/v2", ""},
		{"internal/cli/sender", "internal/app", "put together"},
		{"internal/app", "test/cluster", "for tests only"},
		{"cmd/broker-filter", "internal/app", ""},
		{"cmd/broker-filter", "github.com/cloudevents/sdk-go/v2", "rewrites times"},
		{"cmd/millrace", "github.com/cloudevents/sdk-go/v2", ""},
		{"cmd/millrace", "github.com/nats-io/nats-server/v2/server", "must not carry one"},
		{"test/cluster", "github.com/nats-io/nats-server/v2/server", ""},
		{"test/cluster", "cel.dev/cel-go/cel", "two copies"},
		{"pkg/cel", "cel.dev/cel-go/cel", "two copies"},
		{"github.com/some/library", "cel.dev/cel-go/cel", "two copies"},
		{"cel.dev/cel-go/cel", "cel.dev/cel-go/common", ""},
		{"internal/app", "knative.dev/eventing/pkg/apis", "become ours"},
		{"github.com/some/library", "github.com/nats-io/nats.go", ""},
	}
	rules := Millrace()
	for _, test := range tests {
		t.Run(test.from+" imports "+test.to, func(t *testing.T) {
			got := rules.Check([]Package{{
				Path:    absolute(rules, test.from),
				Imports: []string{absolute(rules, test.to)},
			}})
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("want it allowed, got %q", got)
			case test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)):
				t.Errorf("want one violation with %q, got %q", test.want, got)
			}
		})
	}
}

// TestLeanFollowsImports has a program get a library by way of others.
func TestLeanFollowsImports(t *testing.T) {
	rules := Rules{Module: "millrace.dev", Exempt: []string{"cmd"}, Lean: []Lean{
		{Library: "example.com/heavy", Programs: []string{"cmd/small"}, Why: "it is heavy"},
	}}
	packages := []Package{
		{Path: "millrace.dev/cmd/small", Imports: []string{"example.com/light", "example.com/heavyweight"}},
		{Path: "millrace.dev/cmd/large", Imports: []string{"example.com/heavy/part"}},
		{Path: "example.com/light", Imports: []string{"example.com/lighter"}},
		{Path: "example.com/lighter", Imports: []string{"example.com/light"}},
	}
	if got := rules.Check(packages); len(got) > 0 {
		t.Errorf("want it allowed, got %q", got)
	}
	packages[3].Imports = append(packages[3].Imports, "example.com/heavy/part")
	want := []string{"cmd/small must not be linked with example.com/heavy/part, which example.com/lighter imports: it is heavy"}
	if got := rules.Check(packages); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// absolute completes the paths of this module's packages, which the tests write short, and leaves those of others.
func absolute(rules Rules, path string) string {
	if top, _, _ := strings.Cut(path, "/"); strings.Contains(top, ".") {
		return path
	}
	return rules.Module + "/" + path
}

// walk calls visit for every file and folder of the module.
func walk(t *testing.T, visit func(path string, entry fs.DirEntry)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		if name := entry.Name(); entry.IsDir() && (name == ".git" || name == "node_modules" || name == "bin") {
			return filepath.SkipDir
		}
		visit(path, entry)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// list returns the packages of this module and all they depend on, of the standard library none.
func list(t *testing.T) []Package {
	t.Helper()
	// -e, because a package that does not compile is for the compiler to report.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps",
		"-json=ImportPath,Imports,Standard", Millrace().Module+"/...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []Package
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var listed struct {
			ImportPath string
			Imports    []string
			Standard   bool
		}
		if err := decoder.Decode(&listed); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		if !listed.Standard {
			packages = append(packages, Package{
				Path:    listed.ImportPath,
				Imports: slices.DeleteFunc(listed.Imports, standard),
			})
		}
	}
}

// standard says whether an import path is of the standard library: only there has the first segment no dot.
func standard(path string) bool {
	top, _, _ := strings.Cut(path, "/")
	return !strings.Contains(top, ".")
}
