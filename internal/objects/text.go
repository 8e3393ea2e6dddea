package objects

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// text is a manifest file's text.
type text struct {
	name  string
	lines []string // each with its line break
}

func newText(name, content string) *text {
	return &text{name: name, lines: splitLines(content)}
}

// splitLines cuts content where YAML sees line breaks: LF, CR LF, CR, and the breaks of Unicode. Each line keeps its
// break.
func splitLines(content string) []string {
	var lines []string
	start := 0
	for i := 0; i < len(content); {
		r, size := utf8.DecodeRuneInString(content[i:])
		i += size
		if r == '\r' && strings.HasPrefix(content[i:], "\n") {
			continue
		}
		if isBreak(r) {
			lines = append(lines, content[start:i])
			start = i
		}
	}
	if start < len(content) {
		lines = append(lines, content[start:])
	}
	return lines
}

func isBreak(r rune) bool {
	return r == '\n' || r == '\r' || r == '\u0085' || r == '\u2028' || r == '\u2029'
}

// inScalar returns the line and column in the file of a place inside the value of a scalar node.
//
// White space is the only thing that YAML rearranges between the way a string is written and its value (folding,
// indentation), so the place is found by counting the characters that are not white space, in the value up to the place
// and then in the file.
func (t *text) inScalar(node *yaml.Node, at TextPosition) (line, column int) {
	node = resolveAlias(node)
	if node.Kind != yaml.ScalarNode || node.Line < 1 || node.Line > len(t.lines) {
		return node.Line, node.Column
	}
	before := visibleBefore(node.Value, at)
	walker := &scalarWalker{text: t, style: node.Style, line: node.Line, column: node.Column}
	walker.enter()
	for range before {
		if !walker.next() {
			return node.Line, node.Column
		}
	}
	if !walker.skipSpace() {
		return node.Line, node.Column
	}
	return walker.line, walker.column
}

// visibleBefore counts the characters before a place that are not white space.
func visibleBefore(value string, at TextPosition) int {
	count := 0
	for i, line := range strings.Split(value, "\n") {
		if i+1 > at.Line {
			break
		}
		column := 0
		for _, r := range line {
			column++
			if i+1 == at.Line && column >= at.Column {
				break
			}
			if !unicode.IsSpace(r) {
				count++
			}
		}
	}
	return count
}

// scalarWalker goes through a scalar as it is written, one character of its value at a time.
type scalarWalker struct {
	text         *text
	style        yaml.Style
	line, column int // of the next character; both from 1
}

// enter moves from the start of the node to the first character of its text: past the quote, or past the line that
// announces a block.
func (w *scalarWalker) enter() {
	switch {
	case w.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		w.line, w.column = w.line+1, 1
	case w.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		w.column++
	}
}

// rest is what is left of the current line, from the next character on.
func (w *scalarWalker) rest() (string, bool) {
	if w.line > len(w.text.lines) {
		return "", false
	}
	line := w.text.lines[w.line-1]
	for range w.column - 1 {
		if line == "" {
			break
		}
		_, size := utf8.DecodeRuneInString(line)
		line = line[size:]
	}
	return line, true
}

// skipSpace moves to the next character that is not white space; it reports whether there is one.
func (w *scalarWalker) skipSpace() bool {
	for {
		rest, ok := w.rest()
		if !ok {
			return false
		}
		for _, r := range rest {
			if !unicode.IsSpace(r) {
				return true
			}
			w.column++
		}
		w.line, w.column = w.line+1, 1
	}
}

// next moves over one visible character of the value, however it is written.
func (w *scalarWalker) next() bool {
	for {
		if !w.skipSpace() {
			return false
		}
		rest, _ := w.rest()
		width, visible := w.unit(rest)
		w.column += width
		if visible {
			return true
		}
	}
}

// unit is the width, in characters, of the next character of the value as it is written, and whether it counts:
// escaped white space does not.
func (w *scalarWalker) unit(rest string) (width int, visible bool) {
	if w.style&yaml.SingleQuotedStyle != 0 && strings.HasPrefix(rest, "''") {
		return 2, true
	}
	if w.style&yaml.DoubleQuotedStyle == 0 || !strings.HasPrefix(rest, `\`) || len(rest) < 2 {
		return 1, true
	}
	switch rest[1] {
	case 'x':
		return 4, true
	case 'u':
		return 6, true
	case 'U':
		return 10, true
	case 'n', 't', 'r', 'v', 'f', ' ', '\t', '\n', '\r', 'N', '_', 'L', 'P':
		return 2, false
	}
	return 2, true
}
