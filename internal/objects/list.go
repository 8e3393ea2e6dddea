package objects

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxFiles bounds the files found in folders, for those who name their home folder by accident.
	maxFiles = 100_000
	// maxFolderDepth bounds how deep folders are searched.
	maxFolderDepth = 32
)

var errTooManyFiles = errors.New("too many files")

// foundFile is a manifest file.
type foundFile struct {
	// name is the path as people see it: below the path they gave.
	name string
	// root is the path given that led to the file.
	root string
	info fs.FileInfo
}

// explicit reports whether the file itself was named, not a folder above it.
func (f *foundFile) explicit() bool { return f.name == f.root }

// listing is what is there to read.
type listing struct {
	files []foundFile
	// folders are those to watch: every one that holds manifests or could come to.
	folders []string
	// faults says, by path given, why it cannot be searched.
	faults map[string]error
}

// list finds the manifests at and below paths: files as they are named, and of folders every *.yaml, *.yml and *.json
// that is not hidden. Links are followed, so that a mounted ConfigMap, whose files are links into a hidden folder, is
// read like any other folder. The order is that of paths, and by name in folders.
func list(paths []string) *listing {
	l := &lister{listing: listing{faults: map[string]error{}}, seen: map[string]bool{}}
	for _, root := range paths {
		if err := l.add(root); err != nil {
			l.faults[root] = err
		}
	}
	slices.Sort(l.folders)
	l.folders = slices.Compact(l.folders)
	return &l.listing
}

type lister struct {
	listing
	seen map[string]bool // real paths of files and folders, so that links cannot make a loop or a duplicate
}

func (l *lister) add(root string) error {
	l.folders = append(l.folders, filepath.Dir(root)) // also when root is gone: this is where it will come back
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("find manifests: %w", err)
	}
	if info.IsDir() {
		return l.addFolder(root, root, 0)
	}
	if target, err := filepath.EvalSymlinks(root); err == nil {
		l.folders = append(l.folders, filepath.Dir(target))
	}
	l.addFile(foundFile{name: root, root: root, info: info})
	return nil
}

func (l *lister) addFolder(folder, root string, depth int) error {
	if depth > maxFolderDepth || l.visited(folder) {
		return nil
	}
	l.folders = append(l.folders, folder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	for _, entry := range entries {
		if err := l.addEntry(filepath.Join(folder, entry.Name()), root, depth); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) addEntry(path, root string, depth int) error {
	if strings.HasPrefix(filepath.Base(path), ".") {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil // gone since, or a link to nowhere such as editors leave for a lock
	case info.IsDir():
		return l.addFolder(path, root, depth+1)
	case info.Mode().IsRegular() && isManifest(path):
		l.addFile(foundFile{name: path, root: root, info: info})
	}
	if len(l.files) > maxFiles {
		return fmt.Errorf("read folder %s: %w: more than %d", root, errTooManyFiles, maxFiles)
	}
	return nil
}

func (l *lister) addFile(file foundFile) {
	if !l.visited(file.name) {
		l.files = append(l.files, file)
	}
}

// visited reports whether a path was seen before, under any name.
func (l *lister) visited(path string) bool {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		target = path
	}
	if abs, err := filepath.Abs(target); err == nil {
		target = abs
	}
	seen := l.seen[target]
	l.seen[target] = true
	return seen
}

func isManifest(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// errTooLarge is the error of a file over maxFileSize.
var errTooLarge = fmt.Errorf("larger than %d MiB", maxFileSize>>20)

// readAll reads up to maxFileSize bytes.
func readAll(r io.Reader) (string, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	if len(content) > maxFileSize {
		return "", errTooLarge
	}
	return string(content), nil
}

func readFile(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("open manifest: %w", err)
	}
	defer file.Close()
	return readAll(file)
}

// readManifest turns what reading a file gave into a manifest, with the good of an earlier version where this one fails.
func readManifest(file foundFile, content string, err error, earlier *manifest) *manifest {
	var m *manifest
	switch {
	case errors.Is(err, errTooLarge):
		m = brokenManifest(file.name, "the file is "+errTooLarge.Error(), "split it")
	case err != nil:
		m = brokenManifest(file.name, "cannot be read: "+reason(err), "")
	default:
		m = parseManifest(file.name, content)
		if m.broken && len(m.objects)+len(earlier.objects) == 0 && !file.explicit() && !concerns(content) {
			// A template, or settings of some tool: it only happens to lie there.
			return &manifest{skipped: map[string]int{"file that is not YAML": 1}}
		}
	}
	m.keep(earlier)
	return m
}

// concerns reports whether a text seems to be about Brokers or Triggers.
func concerns(content string) bool {
	return strings.Contains(content, "knative.dev") || strings.Contains(content, "Trigger") || strings.Contains(content, "Broker")
}

// reason is the innermost error, without the paths that a Problem names anyway.
func reason(err error) string {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	return err.Error()
}
