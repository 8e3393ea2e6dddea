package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/terminal"
)

const (
	timeLayout = "2006-01-02 15:04:05 MST"
	// causeRunes is how much of a cause a table shows.
	causeRunes = 60
	// tableRows is after how many rows a table is printed and begun anew: it is kept in memory to find its widths.
	tableRows = 1000
)

func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

func row(w io.Writer, cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.Join(strings.Fields(terminal.Safe(cell)), " ")
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

func printGroups(w io.Writer, all []brokerGroups) error {
	now := time.Now()
	for i, b := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %s parked\n", b.Broker, plural(int(b.Events), "event"))
		if len(b.Groups.Groups) == 0 {
			continue
		}
		t := newTable(w)
		row(t, "COUNT", "TRIGGER", "CODE", "CAUSE", "OLDEST", "NEWEST", "LAST SEQ")
		for _, g := range b.Groups.Groups {
			code, cause := codeLabel(g.Code), cut(orDash(g.Cause))
			if g.Other {
				code, cause = "any", "(many other causes)"
			}
			row(t, strconv.FormatUint(g.Count, 10), triggerLabel(g.Trigger, g.TriggerUID), code, cause,
				age(now.Sub(g.Oldest)), age(now.Sub(g.Newest)), strconv.FormatUint(g.Last, 10))
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("print table: %w", err)
		}
	}
	return nil
}

// itemPrinter prints a list of events of any length.
type itemPrinter struct {
	w      io.Writer
	output string
	table  *tabwriter.Writer
	rows   int
	now    time.Time
}

func newItemPrinter(w io.Writer, output string) *itemPrinter {
	return &itemPrinter{w: w, output: output, table: newTable(w), now: time.Now()}
}

func (p *itemPrinter) print(broker string, item adminapi.Item) error {
	switch p.output {
	case "name":
		return printNames(p.w, []string{strconv.FormatUint(item.Sequence, 10)})
	case "yaml":
		if _, err := io.WriteString(p.w, "---\n"); err != nil {
			return fmt.Errorf("print YAML: %w", err)
		}
		return printYAML(p.w, brokerItem{Broker: broker, Item: item})
	case "json":
		enc := json.NewEncoder(p.w)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(brokerItem{Broker: broker, Item: item}); err != nil {
			return fmt.Errorf("print JSON: %w", err)
		}
		return nil
	}
	if p.rows%tableRows == 0 {
		if err := p.end(); err != nil {
			return err
		}
		row(p.table, "BROKER", "SEQ", "AGE", "TRIGGER", "TRIED", "CODE", "TYPE", "ID", "CAUSE")
	}
	p.rows++
	row(p.table, broker, strconv.FormatUint(item.Sequence, 10), age(p.now.Sub(item.Parked)), triggerLabel(item.Trigger, item.TriggerUID),
		strconv.Itoa(item.Attempts), codeLabel(item.Code), orDash(item.Type), orDash(item.ID), cut(orDash(item.Cause+item.Unreadable)))
	return nil
}

func (p *itemPrinter) end() error {
	if err := p.table.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}

func triggerLabel(name, uid string) string {
	if name == "" {
		return uid + " (deleted)"
	}
	return name
}

func codeLabel(code int) string {
	if code == 0 {
		return "-"
	}
	return strconv.Itoa(code)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func cut(text string) string {
	if runes := []rune(text); len(runes) > causeRunes {
		return string(runes[:causeRunes-1]) + "…"
	}
	return text
}

// age writes how long ago something was, in its largest unit.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// progressLine is a line on a terminal that is written over and over. It writes nothing elsewhere.
type progressLine struct {
	w  io.Writer
	on bool
}

func newProgressLine(w io.Writer) *progressLine {
	return &progressLine{w: w, on: terminal.Interactive(w)}
}

func (p *progressLine) show(format string, args ...any) {
	if p.on {
		fmt.Fprintf(p.w, clearLine+format, args...)
	}
}

func (p *progressLine) clear() {
	if p.on {
		fmt.Fprint(p.w, clearLine)
	}
}
