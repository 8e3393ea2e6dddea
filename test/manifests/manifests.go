// Package manifests finds the manifests that the documentation and the examples show, so that tests can apply them.
//
// A manifest is a block marked yaml in a Markdown file, what `kubectl apply -f - <<'EOF'` reads in a block marked sh, or a
// YAML file below examples/. A block that is no whole manifest says so on the line before it, in a comment that readers do
// not see:
//
//	<!-- part of FILE -->    to be merged into the object with the same metadata.name in that file
//	<!-- refused: TEXT -->   a mistake made on purpose; what refuses it says TEXT
//	<!-- for PROGRAM -->     the configuration of another program, which is no manifest
package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"sigs.k8s.io/yaml"

	"millrace.dev/test/cluster"
)

// Example is one place where manifests are shown.
type Example struct {
	// File is its path below the root, Line the first line of the manifest, which counts from 1.
	File string
	Line int
	// Text is one or more YAML documents.
	Text string
	// PartOf is the file, below the root, with the object that Text is a part of; empty for whole manifests.
	PartOf string
	// Refused is what is said about a deliberate mistake; empty for all else.
	Refused string
}

// String returns where the example is: docs/cel.md:7.
func (e *Example) String() string { return fmt.Sprintf("%s:%d", e.File, e.Line) }

// Whole returns the manifest. Of a part, that is the object it belongs to, with the part merged into it.
func (e *Example) Whole(root string) (string, error) {
	if e.PartOf == "" {
		return e.Text, nil
	}
	part, err := cluster.DecodeAll(e.Text)
	if err != nil || len(part) != 1 {
		return "", fmt.Errorf("%s: a part is of one object, and this has %d: %w", e, len(part), err)
	}
	text, err := os.ReadFile(filepath.Join(root, e.PartOf))
	if err != nil {
		return "", fmt.Errorf("%s: %w", e, err)
	}
	objects, err := cluster.DecodeAll(string(text))
	if err != nil {
		return "", fmt.Errorf("%s: %w", e, err)
	}
	for _, o := range objects {
		if o.GetName() != part[0].GetName() {
			continue
		}
		before, err1 := json.Marshal(o.Object)
		change, err2 := json.Marshal(part[0].Object)
		merged, err3 := jsonpatch.MergePatch(before, change)
		whole, err4 := yaml.JSONToYAML(merged)
		return string(whole), errors.Join(err1, err2, err3, err4)
	}
	return "", fmt.Errorf("%s: there is no object %q in %s to be a part of", e, part[0].GetName(), e.PartOf)
}

// Find returns the examples of a checkout, in the order of files and lines.
func Find(root string) ([]*Example, error) {
	var found []*Example
	add := func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		extension := filepath.Ext(path)
		if extension != ".md" && extension != ".yaml" {
			return nil
		}
		text, err := os.ReadFile(path)
		switch {
		case err != nil:
			return err
		case extension == ".md":
			examples, err := inMarkdown(file, string(text))
			found = append(found, examples...)
			return err
		case strings.HasPrefix(file, "examples"+string(filepath.Separator)):
			found = append(found, &Example{File: file, Line: 1, Text: string(text)})
		}
		return nil
	}
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		return nil, fmt.Errorf("find manifests: %w", err)
	}
	var errs []error
	for _, path := range append(top, filepath.Join(root, "docs"), filepath.Join(root, "examples")) {
		errs = append(errs, filepath.WalkDir(path, add))
	}
	return found, errors.Join(errs...)
}

var (
	fence   = regexp.MustCompile("^ *```(.*)$")
	mark    = regexp.MustCompile(`^<!-- (part of|refused:|for) (.+) -->$`)
	heredoc = regexp.MustCompile(`^kubectl apply .*-f - <<'EOF'$`)
)

// marked returns an example whose text is still to come, as the line before its block says; nil for what is no manifest.
func marked(file string, line int, before string) *Example {
	e := &Example{File: file, Line: line}
	m := mark.FindStringSubmatch(before)
	if m == nil {
		return e
	}
	switch m[1] {
	case "part of":
		e.PartOf = filepath.Join(filepath.Dir(file), m[2])
	case "refused:":
		e.Refused = m[2]
	default:
		return nil
	}
	return e
}

// inMarkdown returns the examples of a Markdown text.
func inMarkdown(file, text string) ([]*Example, error) {
	var found []*Example
	var errs []error
	var open *Example // the manifest being read
	var language, before string
	inside := false
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && !inside:
			inside, language = true, m[1]
			if language == "yaml" {
				open = marked(file, i+2, before)
			}
		case m != nil:
			if open != nil && language == "sh" {
				errs = append(errs, fmt.Errorf("%s: what kubectl reads has no end", open))
				open = nil
			}
			if open != nil {
				found = append(found, open)
			}
			open, inside = nil, false
		case open != nil && language == "sh" && line == "EOF":
			found = append(found, open)
			open = nil
		case open != nil:
			open.Text += line + "\n"
		case language == "sh" && inside && heredoc.MatchString(line):
			open = &Example{File: file, Line: i + 2}
		}
		before = line
	}
	if inside {
		errs = append(errs, fmt.Errorf("%s: the last block has no end", file))
	}
	return found, errors.Join(errs...)
}
