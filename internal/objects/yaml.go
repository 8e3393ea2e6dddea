package objects

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFileSize bounds a manifest file, in bytes.
	maxFileSize = 16 << 20
	// maxLocateLines bounds the documents in which the line of a syntax error is searched for.
	maxLocateLines = 400
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

// parseDocuments parses the documents of a text. Each is parsed by itself, so that a mistake in one hides no other.
func parseDocuments(t *text) []document {
	var docs []document
	for start := 0; start < len(t.lines); {
		end := start + 1
		for end < len(t.lines) && !isDocumentStart(t.lines[end]) {
			end++
		}
		docs = append(docs, parseChunk(t.lines[start:end], start)...)
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
func parseChunk(lines []string, offset int) []document {
	if onlyDirectives(lines) {
		return nil
	}
	docs, err := decodeNodes(strings.Join(lines, ""))
	for _, doc := range docs {
		shiftLines(doc.root, offset)
	}
	if err != nil {
		fault := locateFault(lines, err)
		fault.line += offset
		docs = append(docs, document{fault: fault})
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

// locateFault says where in lines a syntax error is, and what it is. The parser's own line is often that of the block
// around the mistake, so the mistake is looked for: it is on the line after the longest beginning that parses.
func locateFault(lines []string, err error) *syntaxFault {
	fault := &syntaxFault{line: 1, column: 1, detail: parserMessage(err)}
	if line, ok := parserLine(err); ok {
		fault.line = min(line, len(lines))
	}
	if len(lines) <= maxLocateLines {
		fault.line = firstBadLine(lines)
	}
	line := lines[fault.line-1]
	fault.column = 1 + utf8.RuneCountInString(line) - utf8.RuneCountInString(strings.TrimLeft(line, " \t"))
	if tab := tabInIndentation(line); tab > 0 {
		fault.column = tab
		fault.detail, fault.hint = "a tab in the indentation, which YAML does not allow", "indent with spaces"
		return fault
	}
	fault.hint = syntaxHint(fault.detail, line)
	return fault
}

// firstBadLine returns the number of the line after the longest beginning of lines that parses.
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
	return n + 1
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

// parserLine is the line the parser names. It counts from 0 in most of its messages.
func parserLine(err error) (int, bool) {
	match := regexp.MustCompile(`yaml: line (\d+):`).FindStringSubmatch(err.Error())
	if match == nil {
		return 0, false
	}
	line, convErr := strconv.Atoi(match[1])
	return line + 1, convErr == nil
}

// syntaxHint says what usually is behind a message of the parser.
func syntaxHint(message, line string) string {
	switch {
	case strings.Contains(message, "mapping values are not allowed"):
		return `indent the line as the one before it, or quote the value if it holds ": "`
	case strings.Contains(message, "cannot start any token") && strings.Contains(line, "%"),
		strings.Contains(message, "cannot start any token") && strings.ContainsAny(line, "@`"):
		return "quote the value"
	case strings.Contains(message, "unknown anchor"):
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
	}
	return ""
}
