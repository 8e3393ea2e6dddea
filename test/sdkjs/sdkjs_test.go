// Package sdkjs holds the test that the official CloudEvents SDK for JavaScript can send events to a Broker.
package sdkjs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
	"millrace.dev/test/harness"
)

// requireNode is the environment variable that makes the absence of Node.js a failure.
const requireNode = "MILLRACE_REQUIRE_NODE"

var update = flag.Bool("update", false, "write what is delivered to testdata")

// timeout bounds each run of npm and node.
const timeout = 3 * time.Minute

// sent is the number of events that client.mjs sends.
const sent = 11

// manifest is a Broker with one Trigger for everything, delivered in the JSON format so that types show.
const manifest = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: live}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all}
spec:
  broker: live
  subscriber: {uri: %q}
  delivery: {format: json}
`

// subscriber keeps the events that it receives.
type subscriber struct {
	mu     sync.Mutex
	events map[string]string // in the JSON format, by id
}

func (s *subscriber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e, err := event.DecodeJSON(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	e.Remove(event.ArrivalTime)
	slices.SortFunc(e.Attributes, func(a, b event.Attribute) int { return strings.Compare(a.Name, b.Name) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[e.Value(event.ID)] = string(e.AppendJSON(nil))
}

func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events)
}

// TestSend has the SDK post an event of each sort, in both content modes, and looks at what is delivered.
func TestSend(t *testing.T) {
	needNode(t)
	folder := workFolder(t)
	sub := &subscriber{events: map[string]string{}}
	server := httptest.NewServer(sub)
	defer server.Close()
	file := filepath.Join(t.TempDir(), "live.yaml")
	harness.WriteFile(t, file, fmt.Sprintf(manifest, server.URL))
	dev := harness.StartDev(t, t.TempDir(), file)

	run(t, folder, "node", "client.mjs", dev.URL+"/default/live")
	harness.Eventually(t, "all events are delivered", func() error {
		if n := sub.count(); n != sent {
			return fmt.Errorf("%d of %d", n, sent)
		}
		return nil
	})
	compareGolden(t, sub.lines())
	testRefusal(t, folder, dev.URL+"/default/nobody")
}

// testRefusal checks that the client tells a refusal from a success, without which the test would prove nothing.
func testRefusal(t *testing.T, folder, url string) {
	out, err := output(t, folder, "node", "client.mjs", url)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(out, "answered 404") {
		t.Errorf("the client does not mind a broker that is not there: %v\n%s", err, out)
	}
}

// lines returns the events as NDJSON, in order of their ids.
func (s *subscriber) lines() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(s.events)) {
		b.WriteString(s.events[id] + "\n")
	}
	return b.String()
}

func compareGolden(t *testing.T, got string) {
	t.Helper()
	const path = "testdata/delivered.ndjson"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run `go test ./test/sdkjs -update` if this is right (-want +got):\n%s", diff)
	}
}

// needNode skips the test if there is no Node.js, unless the environment requires it.
func needNode(t *testing.T) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv(requireNode) == "1" {
				t.Fatalf("%s=1, but %s is not installed: %v", requireNode, program, err)
			}
			t.Skipf("%s is not installed, so the JavaScript SDK is not tried; %s=1 makes this a failure", program, requireNode)
		}
	}
}

// workFolder returns a folder that holds the client and leads to the SDK.
func workFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	copyFile(t, "client.mjs", dir)
	if err := os.Symlink(filepath.Join(install(t), "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// install returns a folder outside of the checkout in which npm has installed what package-lock.json says. It is kept
// for the next time.
func install(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(lock)
	cache = filepath.Join(cache, "millrace")
	dir := filepath.Join(cache, "sdkjs-"+hex.EncodeToString(hash[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	// A folder with the final name is always whole. t.TempDir may be on another file system.
	fresh, err := os.MkdirTemp(cache, "sdkjs-new-") //nolint:usetesting // See above.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(fresh) })
	copyFile(t, "package.json", fresh)
	copyFile(t, "package-lock.json", fresh)
	run(t, fresh, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return dir
}

func copyFile(t *testing.T, name, dir string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs a program in the folder and fails the test, with what it printed, if it fails.
func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	if out, err := output(t, dir, program, args...); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, args, err, out)
	}
}

func output(t *testing.T, dir, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}
