package event

import (
	"strings"
	"unicode/utf8"
)

const upperHex = "0123456789ABCDEF"

// WireValue returns the text that stands for the attribute in a header of the HTTP and NATS bindings: the text it
// arrived in if it came in a header, else Value percent-encoded (HTTP binding, section 3.1.3.2). The datacontenttype is
// never encoded: its header is Content-Type, which has rules of its own.
func (a *Attribute) WireValue() string {
	switch {
	case a.Wire != "":
		return a.Wire
	case a.Name == DataContentType:
		return a.Value
	default:
		return percentEncode(a.Value)
	}
}

// WireLen is the length of [Attribute.WireValue] in bytes.
func (a *Attribute) WireLen() int {
	switch {
	case a.Wire != "":
		return len(a.Wire)
	case a.Name == DataContentType:
		return len(a.Value)
	default:
		return len(a.Value) + 2*countEncoded(a.Value)
	}
}

// AttributeFromWire returns the attribute that the header text wire stands for: a double-quoted text is unquoted, then
// percent-encoding is undone once (HTTP binding, section 3.1.3.2). Of source and dataschema only %25 is decoded, because
// a URI has percent-escapes of its own which most senders write as they are. A percent sign that no two hexadecimal
// digits follow stands for itself. White space around the text is dropped.
//
// The kind is always [String]. Wire is set when the text is not the one [Attribute.WireValue] would make of Value. The
// error is an [*Error] that says the value is not a CloudEvents String.
func AttributeFromWire(name, wire string) (Attribute, error) {
	wire = strings.Trim(wire, " \t")
	a := Attribute{Name: name, Value: wire}
	form := classify(wire)
	if form == wirePlain {
		return a, nil
	}
	if name != DataContentType {
		a.Value = decodeWire(name, wire)
	}
	if err := checkText(name, a.Value); err != nil {
		return Attribute{}, err
	}
	if name != DataContentType && (form == wireRaw || percentEncode(a.Value) != wire) {
		a.Wire = wire
	}
	return a, nil
}

// wireForm tells how much work a header text is.
type wireForm uint8

const (
	// wirePlain text stands for itself.
	wirePlain wireForm = iota
	// wireEscaped text has percent signs, and nothing that needs encoding.
	wireEscaped
	// wireRaw text holds characters that our own encoding would have escaped.
	wireRaw
)

func classify(wire string) wireForm {
	form := wirePlain
	for i := range len(wire) {
		switch c := wire[i]; {
		case c == '%':
			form = wireEscaped
		case mustEncode(c):
			return wireRaw
		}
	}
	return form
}

// mustEncode says whether the HTTP binding wants a byte of a value percent-encoded.
func mustEncode(c byte) bool {
	return c <= ' ' || c == '"' || c == '%' || c >= 0x7f
}

// countEncoded counts the bytes of s that percent-encoding makes three of.
func countEncoded(s string) int {
	n := 0
	for i := range len(s) {
		if mustEncode(s[i]) {
			n++
		}
	}
	return n
}

func percentEncode(s string) string {
	n := countEncoded(s)
	if n == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := range len(s) {
		if c := s[i]; mustEncode(c) {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&0xf])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func decodeWire(name, wire string) string {
	wire = unquote(wire)
	if isURIAttribute(name) {
		return strings.ReplaceAll(wire, "%25", "%")
	}
	return percentDecode(wire)
}

// isURIAttribute names the attributes whose own percent-escapes are part of the value.
func isURIAttribute(name string) bool {
	return name == Source || name == DataSchema
}

func percentDecode(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if isEscape(s[i:]) {
			b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// isEscape says whether s begins with a percent sign and two hexadecimal digits.
func isEscape(s string) bool {
	return len(s) >= 3 && s[0] == '%' && isHex(s[1]) && isHex(s[2])
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}

// unquote returns what a quoted-string (RFC 9110, section 5.6.4) stands for, and any other text unchanged. Versions of
// the HTTP binding before 1.0 let senders quote values.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	inner := s[1 : len(s)-1]
	if !strings.ContainsAny(inner, `"\`) {
		return inner
	}
	var b strings.Builder
	b.Grow(len(inner))
	for i := 0; i < len(inner); i++ {
		switch {
		case inner[i] == '"', inner[i] == '\\' && i+1 == len(inner):
			return s // Not a quoted-string after all.
		case inner[i] == '\\':
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// IsText reports whether s is a CloudEvents String (CloudEvents 1.0, section "Type System") and not empty, that is, whether
// an attribute can have it for a value.
func IsText(s string) bool { return s != "" && checkText("", s) == nil }

// checkText reports a value that is not a CloudEvents String (CloudEvents 1.0, section "Type System").
func checkText(name, s string) error {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return checkUnicode(name, s[i:])
		}
	}
	return nil
}

func checkUnicode(name, s string) error {
	if !utf8.ValidString(s) {
		return invalid(name, "is not valid UTF-8", "send the value as UTF-8, percent-encoded in a header")
	}
	for _, r := range s {
		if isControl(r) {
			return invalid(name, "contains a control character", "leave out U+0000 to U+001F and U+007F to U+009F")
		}
		if isNoncharacter(r) {
			return invalid(name, "contains a code point that is no character", "leave out U+FDD0 to U+FDEF and those that end in FFFE or FFFF")
		}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }

func isNoncharacter(r rune) bool { return r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe }
