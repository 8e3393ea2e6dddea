package objects

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFileSize bounds a manifest file, in bytes.
	maxFileSize = 16 << 20
	// maxLocateLines and maxLocateSize, in bytes, bound the documents in which the line of a syntax error is searched
	// for, and maxLocated their number in a file: a search parses a document as often as it has lines.
	maxLocateLines = 400
	maxLocateSize  = 64 << 10
	maxLocated     = 5
)

// document is one YAML document of a file, or what is wrong with it.
type document struct {
	root  *yaml.Node
	fault *syntaxFault
}

// syntaxFault is text that is not YAML.
type syntaxFault struct {
	line, column int
	detail, hint string
}

// parseDocuments parses the documents of a file's lines. Each is parsed by itself, so that a mistake in one hides no other.
func parseDocuments(lines []string) []document {
	var docs []document
	faults := 0
	for start := 0; start < len(lines); {
		end := start + 1
		for end < len(lines) && !isDocumentStart(lines[end]) {
			end++
		}
		chunk, fault := parseChunk(lines[start:end], faults < maxLocated)
		if fault != nil {
			faults++
			chunk = append(chunk, document{fault: fault})
		}
		docs = append(docs, shift(chunk, start)...)
		start = end
	}
	return docs
}

// isDocumentStart reports whether a line begins a document: "---" at the margin, which nothing inside a document can be.
func isDocumentStart(line string) bool {
	rest, ok := strings.CutPrefix(line, "---")
	return ok && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n"))
}

// parseChunk parses the lines between two document starts. These are one document, unless "..." ends it early.
// With search, the line of a fault is searched for; else it is what the parser says.
func parseChunk(lines []string, search bool) ([]document, *syntaxFault) {
	if onlyDirectives(lines) {
		return nil, nil
	}
	content := strings.Join(lines, "")
	docs, err := decodeNodes(content)
	if err == nil {
		return docs, nil
	}
	line := parserLine(err, len(lines))
	if search && len(lines) <= maxLocateLines && len(content) <= maxLocateSize {
		line = firstBadLine(lines)
	}
	return docs, faultAt(lines, line, err)
}

// shift moves documents from the lines of their chunk to those of the file.
func shift(docs []document, offset int) []document {
	for _, doc := range docs {
		if doc.fault != nil {
			doc.fault.line += offset
			continue
		}
		shiftLines(doc.root, offset)
	}
	return docs
}

// onlyDirectives reports whether lines hold nothing but comments and directives such as %YAML, which the parser would
// take for an unfinished document.
func onlyDirectives(lines []string) bool {
	for _, line := range lines {
		trimmed := strings.TrimSpace(line)
		if trimmed != "" && trimmed[0] != '#' && trimmed[0] != '%' {
			return false
		}
	}
	return true
}

func decodeNodes(content string) ([]document, error) {
	var docs []document
	decoder := yaml.NewDecoder(strings.NewReader(content))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, fmt.Errorf("parse yaml: %w", err)
		}
		if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
			docs = append(docs, document{root: node.Content[0]})
		}
	}
}

func shiftLines(node *yaml.Node, offset int) {
	node.Line += offset
	for _, child := range node.Content {
		shiftLines(child, offset)
	}
}

// faultAt describes the syntax error on a line, which counts from 1.
func faultAt(lines []string, number int, err error) *syntaxFault {
	fault := &syntaxFault{line: number, detail: parserMessage(err)}
	line := lines[number-1]
	fault.column = 1 + utf8.RuneCountInString(line) - utf8.RuneCountInString(strings.TrimLeft(line, " \t"))
	if tab := tabInIndentation(line); tab > 0 {
		fault.column = tab
		fault.detail, fault.hint = "a tab in the indentation, which YAML does not allow", "indent with spaces"
		return fault
	}
	if bad := badCharacter(line); bad > 0 {
		fault.column = bad
	}
	fault.hint = syntaxHint(fault.detail, line)
	if strings.Contains(fault.detail, "mapping values") && lacksColon(lines[:fault.line-1]) {
		fault.hint = "the line before it lacks a colon: write key: value"
	}
	return fault
}

// badCharacter returns the column of a character that YAML does not allow in a file, 0 when there is none.
func badCharacter(line string) int {
	column := 0
	for _, r := range line {
		column++
		if r == utf8.RuneError || unicode.IsControl(r) && !unicode.IsSpace(r) {
			return column
		}
	}
	return 0
}

// lacksColon reports whether the last of lines should be a key and a value and is not.
func lacksColon(lines []string) bool {
	if len(lines) == 0 {
		return false
	}
	last := strings.TrimSpace(lines[len(lines)-1])
	return last != "" && !strings.ContainsAny(last, ":#-[{\"'")
}

// firstBadLine returns the number of the line after the longest beginning of lines that parses. The line the parser names
// is often that of the block around the mistake instead.
func firstBadLine(lines []string) int {
	for n := len(lines) - 1; n > 0; n-- {
		if _, err := decodeNodes(strings.Join(lines[:n], "")); err == nil {
			return skipBlank(lines, n)
		}
	}
	return skipBlank(lines, 0)
}

// skipBlank returns the number of the first line after n that is neither blank nor a comment.
func skipBlank(lines []string, n int) int {
	for i := n; i < len(lines); i++ {
		if trimmed := strings.TrimSpace(lines[i]); trimmed != "" && trimmed[0] != '#' {
			return i + 1
		}
	}
	return min(n+1, len(lines))
}

// tabInIndentation returns the column of a tab before the first character of a line, 0 when there is none.
func tabInIndentation(line string) int {
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	return strings.IndexByte(indent, '\t') + 1
}

// parserMessage is the parser's message without its prefix and line.
func parserMessage(err error) string {
	message := err.Error()
	if i := strings.LastIndex(message, "yaml: "); i >= 0 {
		message = message[i+len("yaml: "):]
	}
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if _, after, found := strings.Cut(rest, ": "); found {
			message = after
		}
	}
	return "not YAML: " + message
}

// parserLine is the line the parser names, which counts from 0 in most of its messages; 1 if it names none.
func parserLine(err error, lines int) int {
	match := regexp.MustCompile(`yaml: line (\d+):`).FindStringSubmatch(err.Error())
	if match == nil {
		return 1
	}
	line, convErr := strconv.Atoi(match[1])
	if convErr != nil {
		return 1
	}
	return min(line+1, lines)
}

// syntaxHint says what usually is behind a message of the parser.
func syntaxHint(message, line string) string {
	switch {
	case strings.Contains(message, "mapping values are not allowed") && strings.Count(line, ": ") > 1:
		return `quote the value, which holds ": ", or write it as a block after key: |`
	case strings.Contains(message, "mapping values are not allowed"):
		return `indent the line as the one before it, or quote the value if it holds ": "`
	case strings.Contains(message, "cannot start any token") && strings.Contains(line, "%"),
		strings.Contains(message, "cannot start any token") && strings.ContainsAny(line, "@`"):
		return "quote the value"
	case strings.Contains(message, "unknown anchor"), strings.Contains(message, "alphabetic or numeric"):
		return "quote the value: a leading * is an alias in YAML"
	case strings.Contains(message, "could not find expected ':'"):
		return "write key: value, with a space after the colon"
	case strings.Contains(message, "unexpected end of stream"):
		return "close the quote"
	case strings.Contains(message, "did not find expected ',' or"):
		return "close the bracket or brace, or add the missing comma"
	case strings.Contains(message, "did not find expected"):
		return "check the indentation and the quotes of this line"
	case strings.Contains(message, "control characters"):
		return "remove the control character"
	case strings.Contains(message, "UTF-8"):
		return "save the file as UTF-8"
	}
	return ""
}
