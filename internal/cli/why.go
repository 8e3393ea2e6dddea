package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/terminal"
)

// watchFlags are those of the commands that show what happens.
type watchFlags struct{ adminFlags }

// explain says what to do about an error of the client. That somebody ends a command that only looks is no failure.
func (f *watchFlags) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return f.adminFlags.explain(err)
}

type whyFlags struct {
	watchFlags
	broker, source string
}

func newWhyCommand() *cobra.Command {
	f := &whyFlags{}
	cmd := &cobra.Command{
		Use:   "why EVENT_ID",
		Short: "Tell what became of an event: where it is, and why",
		Long: `why tells, from the journal, when an event was received and from whom, where it was stored, which Triggers it matched and which
part of the filter of each other one it failed, every attempt to deliver it, and where it ended or waits. The journal is about half
a second behind. It is read through the admin port of millrace dev or of a filter, whichever of the filters took the event.`,
		Example: "  millrace why 5f2a7c1e\n  millrace why order-17 --broker default/orders --source /shop -o yaml",
		Args:    cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.register(cmd)
	cmd.Flags().StringVar(&f.broker, "broker", "", "only the event of this Broker, `namespace/name`")
	cmd.Flags().StringVar(&f.source, "source", "", "only the event with this `source` attribute")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(idWords))
	return cmd
}

func (f *whyFlags) run(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usageErrorf("say which event: give the value of its id attribute")
	}
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	t, err := c.Trace(cmd.Context(), args[0], f.qualify(f.broker), f.source)
	if err != nil {
		return err
	}
	if err := f.print(cmd.OutOrStdout(), t, func(w io.Writer) error { return printTrace(w, &t, time.Now()) }); err != nil {
		return err
	}
	if len(t.Events) == 0 {
		return &exitError{code: ExitFailure, err: notFound(&t)}
	}
	return nil
}

// notFound says why the journal may not hold an event.
func notFound(t *adminapi.Trace) error {
	text := "the journal holds no event of id " + strconv.Quote(t.ID)
	if t.Since != nil {
		text += "; it goes back to " + t.Since.Local().Format(timeLayout)
	}
	if len(t.Gaps) > 0 {
		text += ", with gaps"
	}
	for _, g := range t.Gaps {
		if g.Of != "" {
			text += "; it lacks " + plural(int(g.Dropped), "refusal") + " of the minute before " + g.Until.Local().Format(timeLayout)
			break
		}
	}
	return errors.New(text + "; the id must be given in full, and an event of a moment ago may take half a second to be in it")
}

// moment is a time of day, with the date unless it is today's.
func moment(t, now time.Time) string {
	t = t.Local()
	layout := "15:04:05.000"
	if y, d := t.Year(), t.YearDay(); y != now.Year() || d != now.YearDay() {
		layout = "2006-01-02 " + layout
	}
	return t.Format(layout)
}

func printTrace(w io.Writer, t *adminapi.Trace, now time.Time) error {
	style := terminal.StyleFor(w)
	var b bytes.Buffer
	for i := range t.Events {
		if i > 0 {
			fmt.Fprintln(&b)
		}
		printEventTrace(&b, style, &t.Events[i], now)
	}
	for _, g := range gapsOf(t) {
		fmt.Fprintf(&b, "\n%s\n", style.Hint(fmt.Sprintf("The journal has a gap from %s to %s: %s of %s were not kept, perhaps of this event.",
			moment(g.From, now), moment(g.Until, now), plural(int(g.Dropped), "record"), terminal.Safe(g.Process))))
	}
	for _, n := range t.Notes {
		fmt.Fprintf(&b, "\n%s\n", style.Hint(n))
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// gapsOf returns the gaps that may have swallowed a record of the events shown.
func gapsOf(t *adminapi.Trace) []adminapi.Gap {
	var first time.Time
	for _, e := range t.Events {
		for _, at := range timesOf(&e) {
			if first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	var gaps []adminapi.Gap
	for _, g := range t.Gaps {
		if !first.IsZero() && !g.Until.Before(first) && g.Of == "" {
			gaps = append(gaps, g)
		}
	}
	return gaps
}

func timesOf(e *adminapi.EventTrace) (times []time.Time) {
	for _, r := range e.Received {
		times = append(times, r.At)
	}
	if e.Stored != nil {
		times = append(times, e.Stored.At)
	}
	return times
}

func printEventTrace(b *bytes.Buffer, style terminal.Style, e *adminapi.EventTrace, now time.Time) {
	safe := terminal.Safe
	fmt.Fprintf(b, "%s  %s from %s\n", style.Bold("Event "+safe(e.ID)), safe(e.Type), safe(e.Source))
	line := func(name, format string, args ...any) {
		fmt.Fprintf(b, "  %-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("Broker", "%s", e.Broker)
	for _, r := range e.Received {
		from := ""
		if r.From != "" {
			from = " from " + safe(r.From)
		}
		if r.Refused != "" {
			line("Refused", "%s%s: %s", moment(r.At, now), from, style.Bad(safe(r.Refused)))
			continue
		}
		line("Received", "%s%s", moment(r.At, now), from)
	}
	for _, r := range e.ReplyTo {
		text := fmt.Sprintf("%s of the subscriber of %s to event %s from %s", moment(r.At, now), safe(r.Trigger), safe(r.ID), safe(r.Source))
		if r.Dropped {
			text += ": " + style.Bad("dropped, for it had passed too many hops")
		}
		line("Reply", "%s", text)
	}
	switch {
	case e.Stored != nil:
		line("Stored", "%s as message %d of stream %s", moment(e.Stored.At, now), e.Stored.Sequence, orDash(e.Stored.Stream))
		line("Matched", "%s %s", moment(e.Stored.Matched, now), matchCount(e))
	case e.Fate == "stored":
		line("Matched", "%s", style.Hint("not yet: it waits for a filter to read it; is one running?"))
	}
	if e.TraceID != "" {
		line("Trace", "%s", safe(e.TraceID))
	}
	if e.Missing != nil {
		line("Missing", "%s", style.Hint(describeMissing(e.Missing, now)))
	}
	for i := range e.Triggers {
		fmt.Fprintln(b)
		printTriggerTrace(b, style, &e.Triggers[i], now)
	}
}

func matchCount(e *adminapi.EventTrace) string {
	n := 0
	for _, t := range e.Triggers {
		if t.Matched {
			n++
		}
	}
	return fmt.Sprintf("%d of %s", n, plural(len(e.Triggers), "Trigger"))
}

func printTriggerTrace(b *bytes.Buffer, style terminal.Style, t *adminapi.TriggerTrace, now time.Time) {
	safe := terminal.Safe
	mark := style.Bad("✗")
	fate := "did not match"
	if t.Matched {
		mark, fate = style.Hint("…"), describeFate(t, now)
		switch t.Fate {
		case "delivered":
			mark = style.Good("✓")
		case "dead_lettered", "parked", "given_up", "expired":
			mark = style.Bad("!")
		case "unknown":
			mark = style.Bad("?")
		}
	}
	fmt.Fprintf(b, "%s %s  %s\n", mark, style.Bold(safe(t.Trigger)), fate)
	for _, f := range t.Failures {
		writeFailure(b, style, f)
	}
	if t.Note != "" {
		fmt.Fprintf(b, "    %s\n", style.Hint(terminal.Safe(t.Note)))
	}
	for _, a := range t.Attempts {
		answer := "no answer"
		if a.Status != 0 {
			answer = "answered " + strconv.Itoa(a.Status)
		}
		if a.Reason != "" && a.Status == 0 {
			answer += " (" + a.Reason + ")"
		}
		what := "attempt"
		if a.DeadLetter {
			what = "dead letter sink, attempt"
		}
		fmt.Fprintf(b, "    %s  %s %d: %s after %s", moment(a.At, now), what, a.Number, answer, shortDuration(a.Seconds))
		if a.Cause != "" {
			fmt.Fprintf(b, ": %s", strings.Join(strings.Fields(terminal.Safe(a.Cause)), " "))
		}
		fmt.Fprintln(b)
	}
	for _, r := range t.Replies {
		text := "replied with event " + safe(r.ID) + " from " + safe(r.Source)
		if r.Dropped {
			text += ", dropped, for it had passed too many hops"
		}
		fmt.Fprintf(b, "    %s  %s\n", moment(r.At, now), text)
	}
	if t.Missing != nil {
		fmt.Fprintf(b, "    %s\n", style.Hint(describeMissing(t.Missing, now)))
	}
}

// describeMissing says what the journal lacks.
func describeMissing(m *adminapi.Missing, now time.Time) string {
	if m.After == nil {
		return terminal.Safe(m.Why)
	}
	return "no record after " + moment(*m.After, now) + ": " + terminal.Safe(m.Why)
}

func shortDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}

// describeFate says where the event is for a Trigger that matched.
func describeFate(t *adminapi.TriggerTrace, now time.Time) string {
	at := ""
	if t.At != nil {
		at = " " + moment(*t.At, now)
	}
	switch t.Fate {
	case "delivered":
		return "delivered" + at
	case "dead_lettered":
		return "delivered to the dead letter sink" + at
	case "parked":
		return "given up and parked" + at + "; `millrace dlq ls --events --trigger " + t.Trigger + "` shows it"
	case "retrying":
		next := "soon"
		if t.Next != nil {
			next = "at " + moment(*t.Next, now)
			if left := t.Next.Sub(now); left > 0 {
				next += " (in " + shortDuration(left.Seconds()) + ")"
			}
		}
		return "waits in the retry stream for the next attempt, " + next
	case "waiting":
		return "waits in the backlog since" + at + " for the subscriber to take it"
	case "given_up":
		return "given up" + at + ", on its way to the dead letter sink or the parking stream"
	case "pending":
		return "under way"
	case "expired":
		return "given up" + at + " for it waited too long, on its way to the dead letter sink or the parking stream"
	case "unknown":
		return "settled, but it is not known how"
	default:
		return t.Fate + at
	}
}
