package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link matches the target of an inline Markdown link, without its title and anchor.
var link = regexp.MustCompile(`\]\(([^)#\s]+)`)

// code matches fenced blocks and code spans, in which nothing is a link.
var code = regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]*`")

// TestLinks holds the documents to their word: what a link names is there.
func TestLinks(t *testing.T) {
	for _, document := range documents(t) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		prose := code.ReplaceAllString(string(text), "")
		for _, match := range link.FindAllStringSubmatch(prose, -1) {
			target := match[1]
			if strings.Contains(target, ":") || strings.HasPrefix(target, "NNNN") { // elsewhere, or a placeholder
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", strings.TrimPrefix(document, "../../"), target)
			}
		}
	}
}

// TestDecisionsAreListed holds the index of the decision records complete.
func TestDecisionsAreListed(t *testing.T) {
	index, err := os.ReadFile("../../docs/adr/README.md")
	if err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob("../../docs/adr/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if name := filepath.Base(record); !strings.Contains(string(index), "("+name+")") {
			t.Errorf("docs/adr/README.md does not list %s", name)
		}
	}
}

// documents returns the Markdown files of the module.
func documents(t *testing.T) []string {
	t.Helper()
	var documents []string
	walk(t, func(path string, entry fs.DirEntry) {
		if filepath.Ext(path) == ".md" && !entry.IsDir() {
			documents = append(documents, path)
		}
	})
	return documents
}
