// Package terminal knows what a command may write to a terminal and not elsewhere: colors and lines that are rewritten.
package terminal

import (
	"hash/fnv"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
)

// Style paints text with ANSI colors. The zero value leaves text as it is.
type Style struct {
	on bool
}

// The SGR parameters of ECMA-48 that are in use.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// Colored is a Style that paints wherever the text goes.
func Colored() Style { return Style{on: true} }

// StyleFor returns the style for text that goes to w: painted on a terminal, unless the environment says NO_COLOR
// (https://no-color.org) or TERM=dumb.
func StyleFor(w io.Writer) Style {
	return Style{on: wantsColor(Interactive(w), os.Getenv)}
}

func wantsColor(interactive bool, getenv func(string) string) bool {
	return interactive && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// Interactive says whether w is a terminal, or another character device.
func Interactive(w io.Writer) bool {
	f, ok := w.(interface{ Stat() (os.FileInfo, error) })
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Bold paints what the eye should find first.
func (s Style) Bold(text string) string { return s.paint(bold, text) }

// Dim paints what may be passed over.
func (s Style) Dim(text string) string { return s.paint(dim, text) }

// Good paints a success.
func (s Style) Good(text string) string { return s.paint(green, text) }

// Bad paints a failure.
func (s Style) Bad(text string) string { return s.paint(red, text) }

// Hint paints advice.
func (s Style) Hint(text string) string { return s.paint(yellow, text) }

// Label paints a name in a color that is always the same for that name, so that the lines of several programs in one
// terminal can be told apart.
func (s Style) Label(name string) string {
	h := fnv.New32a()
	h.Write([]byte(name))
	const firstColor, colors = 32, 5 // green to cyan: red is for failures
	return s.paint(bold+";"+strconv.Itoa(firstColor+int(h.Sum32()%colors)), name)
}

func (s Style) paint(parameters, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + parameters + "m" + text + "\x1b[0m"
}

// Safe returns text that a stranger wrote in a form that cannot move the cursor, change colors or forge lines: control
// and formatting characters other than tab and line feed are written as Go escapes. The carriage return of a CR LF is
// dropped.
func Safe(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if strings.IndexFunc(text, unsafe) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unsafe(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unsafe reports control characters and the marks that reorder text. Other formatting characters stay: emoji are made
// with them.
func unsafe(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	default:
		return unicode.IsControl(r)
	}
}
