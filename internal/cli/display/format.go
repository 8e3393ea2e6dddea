package display

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// Format is the form in which events are written.
type Format uint8

const (
	// Block writes an event over several lines: attributes, extensions, data.
	Block Format = iota
	// Compact writes one line an event, shortened where it is long.
	Compact
	// JSON writes one event in the CloudEvents JSON format a line (NDJSON), without name, notes or colors.
	JSON
	// YAML writes the same as YAML, a document an event.
	YAML
	// ID writes the id alone, one a line.
	ID
)

// forPrograms says whether the format is one in which nothing but events may be.
func (f Format) forPrograms() bool { return f == JSON || f == YAML || f == ID }

const (
	hexBytes     = 64  // of binary data shown in a block
	compactRunes = 100 // of data shown in a line
)

// delivery is one event that arrived, and what became of it.
type delivery struct {
	event *event.Event
	name  string // of the subscriber
	note  string // on an answer that is out of the ordinary
}

// render returns the text for one delivery, with its final line feed.
func (f Format) render(d delivery, style terminal.Style) []byte {
	switch f {
	case JSON:
		return line(d.event)
	case YAML:
		return document(d.event)
	case ID:
		return []byte(terminal.Safe(d.event.Value(event.ID)) + "\n")
	case Compact:
		return compact(d, style)
	default:
		return block(d, style)
	}
}

// Render returns an event as a [Block].
func Render(e *event.Event, style terminal.Style) []byte {
	return Block.render(delivery{event: e}, style)
}

// line returns the event as one line of JSON; its data may have been pretty-printed.
func line(e *event.Event) []byte {
	var b bytes.Buffer
	text := e.AppendJSON(nil)
	if json.Compact(&b, text) != nil {
		return append(text, '\n')
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// document returns the event as a document of YAML, of which JSON is a part.
func document(e *event.Event) []byte {
	text, err := yaml.JSONToYAML(e.AppendJSON(nil))
	if err != nil {
		text = line(e)
	}
	return append([]byte("---\n"), text...)
}

func block(d delivery, style terminal.Style) []byte {
	var b bytes.Buffer
	b.WriteString(style.Bold("☁ cloudevents.Event"))
	if d.name != "" {
		b.WriteString("  " + style.Label(d.name))
	}
	b.WriteByte('\n')
	attributes, extensions := split(d.event)
	writeAttributes(&b, style.Dim("Context Attributes,"), attributes)
	writeAttributes(&b, style.Dim("Extensions,"), extensions)
	if len(d.event.Data) > 0 {
		b.WriteString(style.Dim("Data,") + "\n")
		b.WriteString(indent(dataText(d.event)))
	}
	if d.note != "" {
		b.WriteString(style.Bad("→ "+d.note) + "\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// split separates the attributes that CloudEvents defines, in its order, from extensions, in theirs.
func split(e *event.Event) (attributes, extensions []event.Attribute) {
	rest := e.Clone()
	for _, name := range []string{
		event.SpecVersion, event.Type, event.Source, event.Subject, event.ID,
		event.Time, event.DataSchema, event.DataContentType,
	} {
		if a := e.Lookup(name); a != nil {
			attributes = append(attributes, *a)
			rest.Remove(name)
		}
	}
	return attributes, rest.Attributes
}

func writeAttributes(b *bytes.Buffer, title string, attributes []event.Attribute) {
	if len(attributes) == 0 {
		return
	}
	b.WriteString(title + "\n")
	for _, a := range attributes {
		fmt.Fprintf(b, "  %s: %s\n", a.Name, terminal.Safe(a.Value))
	}
}

// dataText returns data for people: JSON over several lines, text as it is, of anything else the size and the start.
func dataText(e *event.Event) string {
	var pretty bytes.Buffer
	switch {
	case event.IsJSON(e.Value(event.DataContentType)) && json.Indent(&pretty, e.Data, "", "  ") == nil:
		return terminal.Safe(pretty.String())
	case isText(e.Data):
		return terminal.Safe(string(e.Data))
	default:
		shown := e.Data[:min(len(e.Data), hexBytes)]
		return fmt.Sprintf("%d bytes of binary data\n%s", len(e.Data), hex.Dump(shown))
	}
}

func isText(data []byte) bool {
	return utf8.Valid(data) && !bytes.ContainsRune(data, 0)
}

func indent(text string) string {
	text = strings.TrimRight(text, "\n")
	return "  " + strings.ReplaceAll(text, "\n", "\n  ") + "\n"
}

func compact(d delivery, style terminal.Style) []byte {
	var fields []string
	if d.name != "" {
		fields = append(fields, style.Label(fmt.Sprintf("%-15s", d.name)))
	}
	e := d.event
	fields = append(fields, style.Bold(terminal.Safe(e.Value(event.Type))), terminal.Safe(e.Value(event.ID)))
	if subject := e.Value(event.Subject); subject != "" {
		fields = append(fields, terminal.Safe(subject))
	}
	if len(e.Data) > 0 {
		fields = append(fields, style.Dim(summary(e)))
	}
	if d.note != "" {
		fields = append(fields, style.Bad("→ "+d.note))
	}
	return []byte(strings.Join(fields, "  ") + "\n")
}

// summary returns data in one line.
func summary(e *event.Event) string {
	var packed bytes.Buffer
	switch {
	case event.IsJSON(e.Value(event.DataContentType)) && json.Compact(&packed, e.Data) == nil:
		return shorten(terminal.Safe(packed.String()))
	case isText(e.Data):
		return shorten(strings.Join(strings.Fields(terminal.Safe(string(e.Data))), " "))
	default:
		return fmt.Sprintf("%d bytes", len(e.Data))
	}
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > compactRunes {
		return string(runes[:compactRunes]) + "…"
	}
	return text
}
