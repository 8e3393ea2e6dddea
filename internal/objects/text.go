package objects

import (
	"strings"
	"unicode/utf8"
)

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
