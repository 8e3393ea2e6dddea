// Command capture runs a command in a terminal of its own and draws what is on the screen when it has ended, as an SVG image. The
// guides under docs/ show such images.
//
//	capture [-columns N] [-rows N] [-prompt TEXT] FILE COMMAND [ARGUMENT...]
//
// The command ends with the exit code that it has; the image is written all the same.
package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

func main() {
	columns := flag.Int("columns", 100, "width of the terminal")
	rows := flag.Int("rows", 40, "its height; rows without text below the last one with it are not drawn")
	prompt := flag.String("prompt", "", "what to show as the command line; default the command and its arguments")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: capture [-columns N] [-rows N] [-prompt TEXT] FILE COMMAND [ARGUMENT...]")
		os.Exit(2)
	}
	if *prompt == "" {
		*prompt = strings.Join(flag.Args()[1:], " ")
	}
	code, err := run(flag.Arg(0), flag.Args()[1:], *prompt, *columns, *rows)
	if err != nil {
		fmt.Fprintf(os.Stderr, "capture: %v\n", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(file string, args []string, prompt string, columns, rows int) (code int, _ error) {
	screen := vt.NewEmulator(columns, rows)
	code, err := play(screen, exec.Command(args[0], args[1:]...), columns, rows)
	if err != nil {
		return 0, err
	}
	image := draw(screen, "$ "+prompt, columns, rows)
	return code, os.WriteFile(file, image, 0o644) //nolint:gosec // a page of the documentation
}

// play runs the command on the screen until it ends.
func play(screen *vt.Emulator, cmd *exec.Cmd, columns, rows int) (code int, _ error) {
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}) //nolint:gosec // small
	if err != nil {
		return 0, fmt.Errorf("run %s in a terminal: %w", cmd.Path, err)
	}
	defer terminal.Close()
	// What the emulator answers to a program's questions about the terminal has to be read, or it stands still.
	go func() { _, _ = io.Copy(terminal, screen) }()
	_, _ = io.Copy(screen, terminal) // ends with an error of its own when the last program has closed the terminal
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// The sizes of a character and of the border, in pixels.
const (
	charWidth, lineHeight, fontSize = 8.4, 19.0, 14.0
	border                          = 14.0
)

// style is that of the whole image. GitHub shows images without what they would load from elsewhere, fonts too.
const style = `text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace;fill:#d0d7de;white-space:pre}` +
	`.p{fill:#8b949e}.b{font-weight:bold}.d{fill:#8b949e}.c1{fill:#ff7b72}.c2{fill:#56d364}.c3{fill:#e3b341}.c4{fill:#79c0ff}.c5{fill:#d2a8ff}.c6{fill:#76e3ea}`

// draw makes an image of the screen, below the command that was run. Each row is one text element, so that programs can read it.
func draw(screen *vt.Emulator, prompt string, columns, rows int) []byte {
	lines := []string{`<tspan class="p">` + escape(prompt) + `</tspan>`}
	widths := []int{len([]rune(prompt))}
	last := 0
	for y := range rows {
		text, width := drawRow(screen, y, columns)
		lines, widths = append(lines, text), append(widths, width)
		if width > 0 {
			last = len(lines)
		}
	}
	last = max(last, 1)
	widest := 0
	for _, w := range widths[:last] {
		widest = max(widest, w)
	}
	width, height := 2*border+float64(widest)*charWidth, 2*border+float64(last)*lineHeight
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escape(prompt), style)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="6" fill="#0d1117"/>`+"\n")
	for i, line := range lines[:last] {
		// The length keeps columns in line whatever font there is.
		length := ""
		if widths[i] > 0 {
			length = fmt.Sprintf(` textLength="%.1f"`, float64(widths[i])*charWidth)
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="%.1f" xml:space="preserve"%s>%s</text>`+"\n", border, border+fontSize+float64(i)*lineHeight, length, line)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// drawRow returns a row up to its last character that is no space, and how many columns that takes up.
func drawRow(screen *vt.Emulator, y, columns int) (text string, width int) {
	type part struct{ class, text string }
	var parts []part
	kept := 0 // bytes of the last part
	for x, step := 0, 1; x < columns; x += step {
		cell := screen.CellAt(x, y)
		content, class := " ", ""
		if step = 1; cell != nil && cell.Content != "" {
			content, class, step = cell.Content, classOf(&cell.Style), max(cell.Width, 1)
		}
		if n := len(parts); n > 0 && parts[n-1].class == class {
			parts[n-1].text += content
		} else {
			parts = append(parts, part{class, content})
		}
		if content != " " {
			width, kept = x+step, len(parts[len(parts)-1].text)
		}
	}
	for n := len(parts); n > 0 && strings.TrimLeft(parts[n-1].text, " ") == ""; n-- {
		parts = parts[:n-1]
	}
	if n := len(parts); n > 0 {
		parts[n-1].text = parts[n-1].text[:kept]
	}
	var b strings.Builder
	for _, p := range parts {
		if p.class == "" {
			b.WriteString(escape(p.text))
			continue
		}
		fmt.Fprintf(&b, `<tspan class="%s">%s</tspan>`, p.class, escape(p.text))
	}
	return b.String(), width
}

// classOf is the class of a style's characters: what the commands use of ECMA-48 is bold, faint and the basic colors.
func classOf(s *uv.Style) string {
	var classes []string
	if s.Attrs&uv.AttrBold != 0 {
		classes = append(classes, "b")
	}
	if s.Attrs&uv.AttrFaint != 0 {
		classes = append(classes, "d")
	}
	if c, ok := s.Fg.(ansi.BasicColor); ok && c >= ansi.Red && c <= ansi.Cyan {
		classes = append(classes, fmt.Sprintf("c%d", c))
	}
	return strings.Join(classes, " ")
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a Buffer takes everything
	return b.String()
}
