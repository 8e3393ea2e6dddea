package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"pgregory.net/rapid"

	eventingv1 "millrace.dev/api/eventing/v1"
)

const brokerManifest = `apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
`

// triggerManifest is a Trigger whose subscriber is at a path of its own.
func triggerManifest(name, path string) string {
	return fmt.Sprintf(`apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: %s}
spec:
  broker: default
  subscriber: {uri: "http://127.0.0.1:8080/%s"}
`, name, path)
}

func write(t *testing.T, content string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// follow runs Files and returns a function that waits for its next Set.
func follow(t *testing.T, options FilesOptions) func() *Set {
	t.Helper()
	if options.Debounce == 0 {
		options.Debounce = 20 * time.Millisecond
	}
	if options.Poll == 0 {
		options.Poll = time.Hour
	}
	files, err := NewFiles(options)
	must(t, err)
	sets := make(chan *Set)
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- files.Run(ctx, func(set *Set) {
			select {
			case sets <- set:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return func() *Set {
		t.Helper()
		select {
		case set := <-sets:
			return set
		case <-time.After(10 * time.Second):
			t.Fatal("no Set was delivered")
			return nil
		}
	}
}

// subscribers returns the Triggers of a Set with the paths of their subscribers and their generations.
func subscribers(set *Set) string {
	var parts []string
	for _, trigger := range set.Triggers {
		path := strings.TrimPrefix(*trigger.Status.SubscriberURI, "http://127.0.0.1:8080/")
		parts = append(parts, fmt.Sprintf("%s=%s(%d)", trigger.Name, path, trigger.Generation))
	}
	return strings.Join(parts, " ")
}

func wantSet(t *testing.T, set *Set, triggers string, problems ...string) {
	t.Helper()
	if got := subscribers(set); got != triggers {
		t.Errorf("the triggers are %q, want %q", got, triggers)
	}
	if len(set.Problems) != len(problems) {
		t.Fatalf("the problems are %v, want %d", set.Problems, len(problems))
	}
	for i, problem := range set.Problems {
		if !strings.Contains(problem.String(), problems[i]) {
			t.Errorf("the problem is %q, want %q in it", problem, problems[i])
		}
	}
}

func TestFilesFollowsChanges(t *testing.T) {
	folder := t.TempDir()
	write(t, brokerManifest, folder, "broker.yaml")
	write(t, triggerManifest("a", "1"), folder, "a.yaml")
	next := follow(t, FilesOptions{Paths: []string{folder}})
	wantSet(t, next(), "a=1(1)")

	write(t, triggerManifest("a", "2"), folder, "a.yaml")
	wantSet(t, next(), "a=2(2)")

	// An editor that writes beside the file and renames.
	write(t, triggerManifest("a", "3"), folder, ".a.yaml.swp")
	must(t, os.Rename(filepath.Join(folder, ".a.yaml.swp"), filepath.Join(folder, "a.yaml")))
	wantSet(t, next(), "a=3(3)")

	// A folder that comes with what is in it.
	outside := t.TempDir()
	must(t, os.Mkdir(filepath.Join(outside, "more"), 0o700))
	write(t, triggerManifest("b", "1"), outside, "more", "b.yml")
	must(t, os.Rename(filepath.Join(outside, "more"), filepath.Join(folder, "more")))
	wantSet(t, next(), "a=3(3) b=1(1)")

	write(t, triggerManifest("b", "2"), folder, "more", "b.yml")
	wantSet(t, next(), "a=3(3) b=2(2)")

	must(t, os.Remove(filepath.Join(folder, "a.yaml")))
	wantSet(t, next(), "b=2(2)")

	// What comes back goes on counting: nobody must take it for what it was before.
	write(t, triggerManifest("a", "4"), folder, "a.yaml")
	wantSet(t, next(), "a=4(4) b=2(2)")
}

func TestFilesDeliversOnlyChanges(t *testing.T) {
	folder := t.TempDir()
	write(t, brokerManifest+"---\n"+triggerManifest("a", "1"), folder, "a.yaml")
	next := follow(t, FilesOptions{Paths: []string{folder}, Poll: 10 * time.Millisecond})
	wantSet(t, next(), "a=1(1)")

	// A touch, the same text again, and a file that is none of ours.
	must(t, os.Chtimes(filepath.Join(folder, "a.yaml"), time.Now(), time.Now()))
	write(t, brokerManifest+"---\n"+triggerManifest("a", "1"), folder, "a.yaml")
	write(t, "hello", folder, "README.md")
	write(t, triggerManifest("b", "1"), folder, ".hidden.yaml")
	// The next Set is that of the next change, and the comment changes no generation.
	write(t, "# comment\n"+brokerManifest+"---\n"+triggerManifest("a", "1")+"---\n"+triggerManifest("c", "1"), folder, "a.yaml")
	wantSet(t, next(), "a=1(1) c=1(1)")
}

func TestFilesKeepsWhatWasGood(t *testing.T) {
	folder := t.TempDir()
	good := brokerManifest + "---\n" + triggerManifest("a", "1") + "---\n" + triggerManifest("b", "1")
	write(t, good, folder, "all.yaml")
	next := follow(t, FilesOptions{Paths: []string{folder}})
	wantSet(t, next(), "a=1(1) b=1(1)")

	// A document that is not YAML for a moment; the others are read.
	write(t, brokerManifest+"---\n"+triggerManifest("a", "\"{")+"---\n"+triggerManifest("b", "2"), folder, "all.yaml")
	wantSet(t, next(), "a=1(1) b=2(2)", "not YAML")

	// An object with a mistake.
	broken := strings.Replace(triggerManifest("a", "3"), "broker:", "broke:", 1)
	write(t, brokerManifest+"---\n"+broken+"---\n"+triggerManifest("b", "2"), folder, "all.yaml")
	set := next()
	wantSet(t, set, "a=1(1) b=2(2)", "did you mean broker?); the last good version stays in use")
	if !set.Problems[0].Kept {
		t.Error("the problem does not say that the last good version is kept")
	}

	write(t, brokerManifest+"---\n"+triggerManifest("a", "4"), folder, "all.yaml")
	wantSet(t, next(), "a=4(2)")
}

func TestFilesKeepsWhatVanishes(t *testing.T) {
	parent := t.TempDir()
	folder := filepath.Join(parent, "manifests")
	must(t, os.Mkdir(folder, 0o700))
	write(t, brokerManifest+"---\n"+triggerManifest("a", "1"), folder, "a.yaml")
	next := follow(t, FilesOptions{Paths: []string{folder}})
	wantSet(t, next(), "a=1(1)")

	must(t, os.Rename(folder, folder+"-away"))
	wantSet(t, next(), "a=1(1)", "manifests: cannot be read: no such file or directory; the last good version stays in use")

	write(t, brokerManifest+"---\n"+triggerManifest("a", "2"), folder+"-away", "a.yaml")
	must(t, os.Rename(folder+"-away", folder))
	wantSet(t, next(), "a=2(2)")
}

// TestFilesMountedConfigMap swaps the link that a mounted ConfigMap is read through, as the kubelet does.
func TestFilesMountedConfigMap(t *testing.T) {
	folder := t.TempDir()
	version := func(name, path string) {
		must(t, os.Mkdir(filepath.Join(folder, name), 0o700))
		write(t, brokerManifest+"---\n"+triggerManifest("a", path), folder, name, "a.yaml")
		must(t, os.Symlink(name, filepath.Join(folder, "..data_tmp")))
		must(t, os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")))
	}
	version("..1", "1")
	must(t, os.Symlink(filepath.Join("..data", "a.yaml"), filepath.Join(folder, "a.yaml")))
	for _, path := range []string{folder, filepath.Join(folder, "a.yaml")} {
		next := follow(t, FilesOptions{Paths: []string{path}})
		before := next()
		version("..2"+filepath.Base(path), "2"+filepath.Base(path))
		if after := next(); subscribers(after) == subscribers(before) {
			t.Errorf("%s: still %s", path, subscribers(after))
		}
	}
}

// TestFilesPolls follows changes where no watcher is to be had.
func TestFilesPolls(t *testing.T) {
	folder := t.TempDir()
	write(t, brokerManifest+"---\n"+triggerManifest("a", "1"), folder, "a.yaml")
	files, err := NewFiles(FilesOptions{Paths: []string{folder}, Poll: time.Millisecond})
	must(t, err)
	sets := make(chan *Set, 1)
	f := newFollower(files, func(set *Set) { sets <- set })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.loop(ctx); close(done) }()
	wantSet(t, <-sets, "a=1(1)")
	write(t, brokerManifest+"---\n"+triggerManifest("a", "2"), folder, "new.yaml")
	must(t, os.Rename(filepath.Join(folder, "new.yaml"), filepath.Join(folder, "a.yaml")))
	for set := <-sets; subscribers(set) != "a=2(2)"; set = <-sets {
		t.Log(subscribers(set)) // the moment between the two
	}
	cancel()
	<-done
}

func TestFilesConditionsKeepTheirTimes(t *testing.T) {
	folder := t.TempDir()
	write(t, triggerManifest("a", "1"), folder, "a.yaml")
	next := follow(t, FilesOptions{Paths: []string{folder}})
	ready := func(set *Set) (status, reason string, at time.Time) {
		c := meta.FindStatusCondition(set.Triggers[0].Status.Conditions, eventingv1.ConditionReady)
		if set.Triggers[0].Status.ObservedGeneration != c.ObservedGeneration {
			t.Errorf("the condition speaks of generation %d, the status of %d", c.ObservedGeneration, set.Triggers[0].Status.ObservedGeneration)
		}
		return string(c.Status), c.Reason, c.LastTransitionTime.Time
	}
	status, reason, first := ready(next())
	if status != "False" || reason != eventingv1.ReasonBrokerDoesNotExist {
		t.Errorf("before the broker is there the trigger is %s, %s", status, reason)
	}
	write(t, triggerManifest("a", "2"), folder, "a.yaml")
	if _, _, at := ready(next()); !at.Equal(first) {
		t.Errorf("the condition has not changed, but its time has: %v, then %v", first, at)
	}
	write(t, brokerManifest, folder, "broker.yaml")
	set := next()
	if status, _, at := ready(set); status != "True" || !at.After(first) {
		t.Errorf("once the broker is there the trigger is %s since %v", status, at)
	}
	if got := set.Triggers[0].Generation; got != 2 {
		t.Errorf("the generation is %d: a change of status must not count", got)
	}
}

func TestUIDsAreStableAndDistinct(t *testing.T) {
	if got := uidOf(Key{"Trigger", "default", "gifts"}); got != "0aa8ccc1-7822-5901-abec-d20b8a5cff2b" {
		t.Errorf("the UID is %s: durable consumers of a running store would be orphaned by the change", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c.-]{1,3}`)
		x := Key{name.Draw(t, "kind"), name.Draw(t, "namespace"), name.Draw(t, "name")}
		y := Key{name.Draw(t, "kind"), name.Draw(t, "namespace"), name.Draw(t, "name")}
		if (uidOf(x) == uidOf(y)) != (x == y) {
			t.Fatalf("%v has %s, %v has %s", x, uidOf(x), y, uidOf(y))
		}
	})
}

func TestLoad(t *testing.T) {
	folder := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(folder, "deep", "deeper"), 0o700))
	must(t, os.MkdirAll(filepath.Join(folder, ".git"), 0o700))
	write(t, brokerManifest, folder, "broker.yaml")
	write(t, triggerManifest("deep", "1"), folder, "deep", "deeper", "t.YML")
	write(t, triggerManifest("git", "1"), folder, ".git", "t.yaml")
	write(t, triggerManifest("text", "1"), folder, "t.txt")
	write(t, "{{ template }}\n\t- x", folder, "chart.yaml")
	write(t, "{{ template }}: Trigger\n\t- x", folder, "triggers.yaml")
	must(t, os.Symlink("..", filepath.Join(folder, "deep", "loop")))
	must(t, os.Symlink("nowhere", filepath.Join(folder, "dangling.yaml")))
	set, err := load([]string{folder, "-", filepath.Join(folder, "broker.yaml"), "-"}, strings.NewReader(triggerManifest("stdin", "1")))
	must(t, err)
	wantSet(t, set, "deep=1(1) stdin=1(1)", "triggers.yaml:2:1: a tab")
	if diff := cmp.Diff(map[string]int{"file that is not YAML": 1}, set.Skipped); diff != "" {
		t.Errorf("skipped: want(-) got(+):\n%s", diff)
	}
}

func TestLoadRefusesWhatIsNotThere(t *testing.T) {
	if _, err := Load([]string{filepath.Join(t.TempDir(), "nowhere.yaml")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestReadManifestReportsUnreadableFiles(t *testing.T) {
	file := foundFile{name: "a.yaml", root: "."}
	earlier := parseManifest("a.yaml", brokerManifest)
	for want, err := range map[string]error{
		"a.yaml: cannot be read: permission denied; the last good version stays in use":         &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES},
		"a.yaml: the file is larger than 16 MiB (split it); the last good version stays in use": fmt.Errorf("read manifest: %w", errTooLarge),
	} {
		m := readManifest(file, "", err, earlier)
		if len(m.problems) != 1 || len(m.objects) != 1 {
			t.Fatalf("got problems %v and %d objects", m.problems, len(m.objects))
		}
		if got := m.problems[0].String(); !strings.EqualFold(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if _, err := readAll(zeros{}); !errors.Is(err, errTooLarge) {
		t.Errorf("an endless file gives %v", err)
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestNewFilesChecksItsOptions(t *testing.T) {
	folder := t.TempDir()
	for want, options := range map[string]FilesOptions{
		"no file or folder":          {},
		"cannot be followed":         {Paths: []string{"-"}},
		"no such file":               {Paths: []string{filepath.Join(folder, "x")}},
		"is neither a file":          {Paths: []string{os.DevNull}},
		"must not be negative":       {Paths: []string{folder}, Poll: -1},
		"must be written namespace/": {Paths: []string{folder}, Resolve: map[string]string{"x": "http://x"}},
		"is not a URL":               {Paths: []string{folder}, Resolve: map[string]string{"a/x": "localhost:80"}},
	} {
		if _, err := NewFiles(options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	folder := b.TempDir()
	var all strings.Builder
	for i := range 10_000 {
		all.WriteString("---\n" + triggerManifest(fmt.Sprint("t", i), "x"))
	}
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(all.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if set, err := Load([]string{folder}); err != nil || len(set.Triggers) != 10_000 {
			b.Fatal(err, set)
		}
	}
}
