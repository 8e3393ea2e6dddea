package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// checkDocument reports a body that is not one JSON text in UTF-8. It is what lets the scanner below trust its input.
// Nesting is bounded by encoding/json, to 10,000 levels.
func checkDocument(body []byte) error {
	if !utf8.Valid(body) {
		return invalid("", "the body is not valid UTF-8", "send JSON encoded as UTF-8")
	}
	if json.Valid(body) {
		return nil
	}
	var raw json.RawMessage
	var syntax *json.SyntaxError
	if err := json.Unmarshal(body, &raw); errors.As(err, &syntax) {
		return invalid("", "the body is not JSON: byte "+strconv.FormatInt(syntax.Offset, 10)+": "+syntax.Error(), "")
	}
	return invalid("", "the body is not JSON", "")
}

// scanner walks over JSON that is known to be valid, without looking into what it passes.
type scanner struct {
	b []byte
	i int
}

// members yields the names, still quoted, and the values of a valid JSON object.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		s := scanner{b: object}
		for s.open(); !s.closed(); s.separator() {
			name := s.value()
			s.separator()
			if !yield(name, s.value()) {
				return
			}
		}
	}
}

// elements yields the positions and the values of a valid JSON array.
func elements(array []byte) iter.Seq2[int, []byte] {
	return func(yield func(i int, value []byte) bool) {
		s := scanner{b: array}
		n := 0
		for s.open(); !s.closed(); s.separator() {
			if !yield(n, s.value()) {
				return
			}
			n++
		}
	}
}

// open passes the bracket that begins an object or array.
func (s *scanner) open() {
	s.space()
	s.i++
}

// closed says whether the bracket that ends an object or array comes next.
func (s *scanner) closed() bool {
	s.space()
	return s.b[s.i] == '}' || s.b[s.i] == ']'
}

// separator passes a comma or colon, if there is one.
func (s *scanner) separator() {
	s.space()
	if c := s.b[s.i]; c == ',' || c == ':' {
		s.i++
	}
}

// first returns the byte that begins the next value.
func (s *scanner) first() byte {
	s.space()
	return s.b[s.i]
}

func (s *scanner) space() {
	for s.i < len(s.b) && isSpace(s.b[s.i]) {
		s.i++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// value passes a value and returns it as it stands.
func (s *scanner) value() []byte {
	s.space()
	start := s.i
	switch s.b[s.i] {
	case '"':
		s.text()
	case '{', '[':
		s.nested()
	default:
		for s.i < len(s.b) && !isSpace(s.b[s.i]) && s.b[s.i] != ',' && s.b[s.i] != '}' && s.b[s.i] != ']' {
			s.i++
		}
	}
	return s.b[start:s.i]
}

func (s *scanner) text() {
	for s.i++; s.b[s.i] != '"'; s.i++ {
		if s.b[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
}

func (s *scanner) nested() {
	for depth := 0; ; {
		switch s.b[s.i] {
		case '"':
			s.text()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		s.i++
		if depth == 0 {
			return
		}
	}
}

// unescape returns what a valid JSON string, quotes included, stands for, sharing its memory if it can. It is false for
// a string with half a surrogate pair, which no UTF-8 text equals.
func unescape(quoted []byte) ([]byte, bool) {
	s := quoted[1 : len(quoted)-1]
	i := bytes.IndexByte(s, '\\')
	if i < 0 {
		return s, true
	}
	out := make([]byte, 0, len(s))
	for ; i >= 0; i = bytes.IndexByte(s, '\\') {
		out = append(out, s[:i]...)
		r, n := unescapeOne(s[i:])
		if n == 0 {
			return nil, false
		}
		out = utf8.AppendRune(out, r)
		s = s[i+n:]
	}
	return append(out, s...), true
}

// unescapeOne returns the character of the escape sequence that s begins with and its length; 0 for half a surrogate pair.
func unescapeOne(s []byte) (rune, int) {
	switch s[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		return unescapeUnicode(s)
	default:
		return rune(s[1]), 2
	}
}

func unescapeUnicode(s []byte) (rune, int) {
	const size = len(`\u0000`)
	r := hexRune(s)
	switch {
	case !utf16.IsSurrogate(r):
		return r, size
	case len(s) < 2*size || s[size] != '\\' || s[size+1] != 'u':
		return 0, 0
	}
	if r = utf16.DecodeRune(r, hexRune(s[size:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 2 * size
}

// hexRune returns the code unit of an escape sequence \uXXXX.
func hexRune(s []byte) rune {
	var r rune
	for _, c := range s[2:6] {
		r = r<<4 | rune(unhex(c))
	}
	return r
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)])); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		dst = appendEscaped(append(dst, s[start:i]...), c)
		i += size
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// appendEscaped appends a byte that cannot stand in a JSON string as it is.
func appendEscaped(dst []byte, c byte) []byte {
	switch {
	case c == '"', c == '\\':
		return append(dst, '\\', c)
	case c == '\n':
		return append(dst, `\n`...)
	case c == '\r':
		return append(dst, `\r`...)
	case c == '\t':
		return append(dst, `\t`...)
	case c < ' ':
		return append(dst, '\\', 'u', '0', '0', upperHex[c>>4], upperHex[c&0xf])
	default:
		return append(dst, `\ufffd`...)
	}
}
