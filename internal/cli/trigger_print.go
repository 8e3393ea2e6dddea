package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/trigger"
)

// writeText writes the report for people: a line a Trigger and event, and below it why they do not match.
//
// With quiet the reasons are left out.
func (r *testReport) writeText(w io.Writer, style terminal.Style, quiet bool) error {
	var b bytes.Buffer
	width, matched := 0, 0
	for _, result := range r.Results {
		width = max(width, len(result.Trigger))
		if result.Matched {
			matched++
		}
	}
	for _, result := range r.Results {
		result.write(&b, style, width)
		if quiet {
			continue
		}
		for _, f := range result.Failures {
			writeFailure(&b, style, f)
		}
	}
	if len(r.Results) > 1 {
		fmt.Fprintf(&b, "\n%d of %d match\n", matched, len(r.Results))
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	return nil
}

func (r *testResult) write(b *bytes.Buffer, style terminal.Style, width int) {
	mark := style.Bad("✗")
	if r.Matched {
		mark = style.Good("✓")
	}
	name := style.Bold(r.Trigger) + strings.Repeat(" ", width-len(r.Trigger))
	fmt.Fprintf(b, "%s %s  event %s (%s)\n", mark, name, terminal.Safe(r.Event.ID), terminal.Safe(r.Event.Type))
}

// writeFailure writes one part of a filter that an event failed, and what is known about why.
func writeFailure(b *bytes.Buffer, style terminal.Style, f trigger.Explanation) {
	const indent, more = "    ", "      "
	expr := strings.ReplaceAll(strings.TrimSpace(f.Expr), "\n", "\n"+more)
	fmt.Fprintf(b, "%s%s  %s\n", indent, style.Dim(f.Path), terminal.Safe(expr))
	if f.Actual != "" {
		fmt.Fprintf(b, "%ssaw %s\n", more, terminal.Safe(f.Actual))
	}
	if f.Error != "" && !strings.Contains(f.Actual, f.Error) {
		fmt.Fprintf(b, "%s%s\n", more, style.Bad(terminal.Safe(f.Error)))
	}
	if f.Hint != "" {
		fmt.Fprintf(b, "%s%s\n", more, style.Hint("hint: "+terminal.Safe(f.Hint)))
	}
}
