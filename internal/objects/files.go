package objects

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultDebounce = 100 * time.Millisecond
	defaultPoll     = 5 * time.Second
	// maxDebounce is how many times Debounce a change waits at most, should more changes keep coming.
	maxDebounce = 10
	// racyAge is how old a file's time must be for it to prove that the file has not changed since it was read: file
	// systems count time in steps, the coarsest of them two seconds.
	racyAge = 2 * time.Second
)

// FilesOptions configures Files.
type FilesOptions struct {
	// Paths are files and folders with manifests; at least one. Folders are searched to the bottom for *.yaml, *.yml and
	// *.json; hidden files and folders are passed over.
	Paths []string
	// Resolve maps a Service, as namespace/name, to its URL, since there is no cluster that knows it. It is asked for
	// every other kind of reference too.
	Resolve map[string]string
	// BrokerURL returns where events for a Broker are posted to. Without it Brokers have no address and no reference to a
	// Broker is resolved.
	BrokerURL func(namespace, name string) string
	// Debounce is how long files must have been quiet before they are read again [100 ms].
	Debounce time.Duration
	// Poll is how often files are looked at without being told of a change, for file systems that do not tell [5 s].
	Poll time.Duration
	// Logger gets a summary of every Set [none].
	Logger *slog.Logger
}

func (o *FilesOptions) validate() error {
	if len(o.Paths) == 0 {
		return errors.New("no file or folder with manifests given")
	}
	for _, path := range o.Paths {
		info, err := os.Stat(path)
		switch {
		case path == "-":
			return errors.New("standard input cannot be followed: give a file or folder")
		case err != nil:
			return fmt.Errorf("find manifests: %w", err)
		case !info.IsDir() && !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither a file nor a folder: it cannot be followed", path)
		}
	}
	if o.Debounce < 0 || o.Poll < 0 {
		return errors.New("debounce and poll must not be negative")
	}
	return validateResolve(o.Resolve)
}

func validateResolve(services map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if parts := strings.Split(name, "/"); len(parts) != 2 || parts[0] == "" || parts[1] == "" {
			return fmt.Errorf("service %q must be written namespace/name", name)
		}
		target, err := url.Parse(services[name])
		if err != nil || target.Scheme == "" || target.Host == "" {
			return fmt.Errorf("service %s: %q is not a URL such as http://127.0.0.1:8080", name, services[name])
		}
	}
	return nil
}

// Files is the Source that reads manifests from files and follows their changes.
//
// What was good stays: a file that cannot be read or parsed, and an object that has mistakes, leave the last good version
// in use, as a cluster does that refuses a manifest. What is removed from the files is gone.
type Files struct {
	options FilesOptions
	logger  *slog.Logger
}

// NewFiles returns a Source of the manifests at the paths given. It fails if a path is not there or an option makes no
// sense; mistakes in the manifests are problems of the Sets.
func NewFiles(options FilesOptions) (*Files, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	if options.Debounce == 0 {
		options.Debounce = defaultDebounce
	}
	if options.Poll == 0 {
		options.Poll = defaultPoll
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	return &Files{options: options, logger: options.Logger}, nil
}

// Load reads the manifests at paths once. The path "-" is standard input. Mistakes in the manifests are problems of the
// Set; an error means that a path could not be read at all.
func Load(paths []string) (*Set, error) {
	return load(paths, os.Stdin)
}

func load(paths []string, stdin io.Reader) (*Set, error) {
	found := list(slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return path == "-" }))
	for _, path := range paths {
		if err := found.faults[path]; err != nil {
			return nil, fmt.Errorf("load manifests: %w", err)
		}
	}
	var manifests []*manifest
	if slices.Contains(paths, "-") {
		content, err := readAll(stdin)
		manifests = append(manifests, readManifest(foundFile{name: "-", root: "-"}, content, err, &manifest{}))
	}
	for _, file := range found.files {
		content, err := readFile(file.name)
		manifests = append(manifests, readManifest(file, content, err, &manifest{}))
	}
	b := builder{now: metav1.Now(), previous: newPrevious()}
	set, _ := b.build(manifests)
	return set, nil
}

// Run implements Source. It returns nil when ctx ends; a file system that cannot be watched is polled instead.
func (f *Files) Run(ctx context.Context, apply func(*Set)) error {
	follower := newFollower(f, apply)
	if err := follower.watch(); err != nil {
		f.logger.WarnContext(ctx, "cannot watch files: changes are noticed by polling only", slog.Any("error", err))
	}
	defer follower.close()
	follower.loop(ctx)
	return nil
}

// follower is the state of one Run.
type follower struct {
	files    *Files
	apply    func(*Set)
	watcher  *fsnotify.Watcher // nil when there is none to be had
	watched  map[string]bool
	entries  map[string]*entry // by name
	order    []string
	faults   map[string]string // by path given
	previous *previous
	applied  bool
}

// entry is a file as it was when last read.
type entry struct {
	file     foundFile
	readAt   time.Time
	digest   [sha256.Size]byte // of the content, or of the error
	manifest *manifest
}

func newFollower(files *Files, apply func(*Set)) *follower {
	return &follower{
		files: files, apply: apply, previous: newPrevious(),
		entries: map[string]*entry{}, watched: map[string]bool{}, faults: map[string]string{},
	}
}

func (f *follower) watch() error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("create watcher: %w", err)
	}
	f.watcher = watcher
	return nil
}

func (f *follower) close() {
	if f.watcher != nil {
		f.watcher.Close() //nolint:errcheck // nothing is left to be done about it
	}
}

// events are the channels of the watcher; without one they never deliver.
func (f *follower) events() (<-chan fsnotify.Event, <-chan error) {
	if f.watcher == nil {
		return nil, nil
	}
	return f.watcher.Events, f.watcher.Errors
}

// loop delivers the first Set at once, and one after every change until ctx ends.
func (f *follower) loop(ctx context.Context) {
	f.refresh(ctx)
	events, failures := f.events()
	poll := time.NewTicker(f.files.options.Poll)
	defer poll.Stop()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var pendingSince time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if pendingSince.IsZero() {
				pendingSince = time.Now()
			}
			if time.Since(pendingSince) < maxDebounce*f.files.options.Debounce {
				quiet.Reset(f.files.options.Debounce)
			}
			continue
		case <-failures: //nolint:errcheck // most likely more changes at once than the watcher could hold
		case <-quiet.C:
		case <-poll.C:
			if !pendingSince.IsZero() {
				continue // the files are not quiet yet
			}
		}
		pendingSince = time.Time{}
		f.refresh(ctx)
	}
}

// refresh reads what has changed and delivers a Set if anything has.
func (f *follower) refresh(ctx context.Context) {
	changed := f.scan()
	// What happened in a folder before it was watched has to be looked for once more.
	for f.watchFolders() {
		changed = f.scan() || changed
	}
	if !changed && f.applied {
		return
	}
	set := f.build()
	f.applied = true
	f.files.logger.InfoContext(ctx, "manifests loaded",
		slog.Int("brokers", len(set.Brokers)), slog.Int("triggers", len(set.Triggers)),
		slog.Int("problems", len(set.Problems)), slog.String("skipped", summary(set.Skipped)))
	f.apply(set)
}

// watchFolders watches the folders that are not watched yet; it reports whether there were any.
func (f *follower) watchFolders() bool {
	if f.watcher == nil {
		return false
	}
	folders := list(f.files.options.Paths).folders
	added := false
	for _, folder := range folders {
		if !f.watched[folder] && f.watcher.Add(folder) == nil {
			f.watched[folder] = true
			added = true
		}
	}
	for folder := range f.watched {
		if !slices.Contains(folders, folder) {
			_ = f.watcher.Remove(folder) // gone, and the watch with it
			delete(f.watched, folder)
		}
	}
	return added
}

// scan reads every file that may have changed; it reports whether one has.
func (f *follower) scan() bool {
	found := list(f.files.options.Paths)
	entries := make(map[string]*entry, len(found.files))
	var order []string
	add := func(e *entry) {
		entries[e.file.name] = e
		order = append(order, e.file.name)
	}
	for _, file := range found.files {
		if e := readEntry(file, f.entries[file.name]); e != nil {
			add(e)
		}
	}
	for _, name := range f.order {
		// A path given that is gone, or cannot be searched, is taken for a passing trouble.
		if e := f.entries[name]; entries[name] == nil && found.faults[e.file.root] != nil {
			add(e)
		}
	}
	faults := map[string]string{}
	for root, err := range found.faults {
		faults[root] = reason(err)
	}
	changed := !maps.Equal(entries, f.entries) || !maps.Equal(faults, f.faults)
	f.entries, f.order, f.faults = entries, order, faults
	return changed
}

// readEntry reads a file. It returns before itself if the content is the same, and nil if the file is gone.
func readEntry(file foundFile, before *entry) *entry {
	if before != nil && before.current(file) {
		return before
	}
	readAt := time.Now()
	content, err := readFile(file.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	digest := sha256.Sum256([]byte(content))
	if err != nil {
		digest = sha256.Sum256([]byte("error: " + err.Error()))
	}
	earlier := &manifest{}
	if before != nil {
		if before.digest == digest {
			before.file, before.readAt = file, readAt
			return before
		}
		earlier = before.manifest
	}
	return &entry{file: file, readAt: readAt, digest: digest, manifest: readManifest(file, content, err, earlier)}
}

// current reports whether the file's size, time and identity prove that it is as it was when it was read.
func (e *entry) current(file foundFile) bool {
	old := e.file.info
	return os.SameFile(old, file.info) && old.Size() == file.info.Size() && old.ModTime().Equal(file.info.ModTime()) &&
		e.readAt.Sub(old.ModTime()) > racyAge
}

// build makes a Set of what was read last.
func (f *follower) build() *Set {
	var manifests []*manifest
	for _, name := range f.order {
		manifests = append(manifests, f.entries[name].manifest)
	}
	for root, fault := range f.faults {
		m := brokenManifest(root, "cannot be read: "+fault, "")
		m.problems[0].Kept = true
		manifests = append(manifests, m)
	}
	b := builder{
		now: metav1.Now(), previous: f.previous,
		resolver: resolver{services: f.files.options.Resolve, brokerURL: f.files.options.BrokerURL},
	}
	set, next := b.build(manifests)
	f.previous = next
	return set
}

// summary writes counts as "2 apps/v1 Deployment, 1 v1 Service".
func summary(counts map[string]int) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	return strings.Join(parts, ", ")
}
