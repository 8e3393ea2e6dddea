package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/terminal"
)

type tailFlags struct {
	watchFlags
	filter adminapi.TailFilter
	limit  int
}

func newTailCommand() *cobra.Command {
	f := &tailFlags{}
	cmd := &cobra.Command{
		Use:   "tail [NAMESPACE/BROKER]",
		Short: "Show what happens to events, as it happens",
		Long: `tail prints a line for each event that is received, matched, delivered, tried again or given up, by any of the processes, about
half a second later, until it is stopped. With -o json it is one JSON object a line, with -o name the
event's id. --type and --source take a * at the end.`,
		Example: "  millrace tail\n  millrace tail default/live --type 'com.example.*' --failures\n" +
			"  millrace tail --cel 'ce.subject.startsWith(\"room-\")' -o json",
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.register(cmd, "name")
	flags := cmd.Flags()
	flags.StringVar(&f.filter.Type, "type", "", "only events of this `type`")
	flags.StringVar(&f.filter.Source, "source", "", "only events from this `source`")
	flags.StringVar(&f.filter.Trigger, "trigger", "", "only what concerns this Trigger, `namespace/name`")
	flags.StringVar(&f.filter.CEL, "cel", "", "only events for which this CEL `expression` over their attributes is true")
	flags.BoolVar(&f.filter.Failures, "failures", false, "only failed attempts, refused events, and what follows from these")
	flags.IntVar(&f.limit, "limit", 0, "end after `N` lines; 0 is no limit")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(brokerWords))
	return cmd
}

func (f *tailFlags) run(cmd *cobra.Command, args []string) error {
	var err error
	if f.filter.Broker, err = brokerArg(args); err != nil {
		return err
	}
	if f.limit < 0 {
		return usageErrorf("--limit cannot be negative")
	}
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	f.filter.Broker, f.filter.Trigger = f.qualify(f.filter.Broker), f.qualify(f.filter.Trigger)
	out, lines := cmd.OutOrStdout(), 0
	style := terminal.StyleFor(out)
	begun := func() {
		if terminal.Interactive(out) && f.output == "table" {
			fmt.Fprintln(cmd.ErrOrStderr(), style.Dim("Following the journal; stop with Ctrl-C."))
		}
	}
	err = c.Tail(cmd.Context(), f.filter, begun, func(l adminapi.JournalLine) error {
		if err := f.write(out, style, &l); err != nil {
			return err
		}
		if lines++; lines == f.limit {
			return errEnough
		}
		return nil
	})
	if err == errEnough { //nolint:errorlint // it is never wrapped
		return nil
	}
	return err
}

var errEnough = fmt.Errorf("enough")

func (f *tailFlags) write(w io.Writer, style terminal.Style, l *adminapi.JournalLine) error {
	var text []byte
	var err error
	switch f.output {
	case "json":
		if text, err = json.Marshal(l); err == nil {
			text = append(text, '\n')
		}
	case "yaml":
		if text, err = yaml.Marshal(l); err == nil {
			text = append([]byte("---\n"), text...)
		}
	case "name":
		if l.ID != "" {
			text = []byte(terminal.Safe(l.ID) + "\n")
		}
	default:
		text = []byte(tailLine(style, l) + "\n")
	}
	if err == nil {
		_, err = w.Write(text)
	}
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// tailLine is a record in a line.
func tailLine(style terminal.Style, l *adminapi.JournalLine) string {
	at := style.Dim(l.At.Local().Format("15:04:05.000"))
	if l.Kind == "gap" {
		return at + " " + style.Hint(fmt.Sprintf("gap: %s of %s were not kept", plural(int(l.Dropped), "record"), terminal.Safe(l.Process)))
	}
	what, paint := describeLine(l), style.Dim
	switch {
	case l.Fate == "delivered":
		paint = style.Good
	case l.Kind == "refused", l.Kind == "attempted" && l.Fate != "dead_lettered", l.Fate == "parked", l.Fate == "dead_lettered":
		paint = style.Bad
	case l.Fate == "retrying", l.Fate == "waiting":
		paint = style.Hint
	}
	who := terminal.Safe(l.ID) + " " + style.Dim(terminal.Safe(l.Type))
	return at + " " + style.Label(l.Broker) + " " + who + "  " + paint(strings.Join(strings.Fields(terminal.Safe(what)), " "))
}

func describeLine(l *adminapi.JournalLine) string {
	answer := "no answer"
	if l.Status != 0 {
		answer = strconv.Itoa(l.Status)
	}
	if l.Cause != "" {
		answer += ", " + l.Cause
	} else if l.Status == 0 && l.Reason != "" {
		answer += ", " + l.Reason
	}
	sink := ""
	if l.DeadLetter {
		sink = " dead letter sink"
	}
	switch l.Kind {
	case "received":
		return "received from " + orDash(l.From)
	case "refused":
		return "refused, " + l.Reason + ", from " + orDash(l.From)
	case "matched":
		if len(l.Triggers) == 0 {
			return "matched no Trigger"
		}
		const most = 3
		if n := len(l.Triggers); n > most {
			return fmt.Sprintf("matched %s and %d more", strings.Join(l.Triggers[:most], ", "), n-most)
		}
		return "matched " + strings.Join(l.Triggers, ", ")
	case "attempted":
		return fmt.Sprintf("-> %s%s  attempt %d: %s in %s", l.Trigger, sink, l.Attempt, answer, shortDuration(l.Seconds))
	case "settled":
		text := l.Fate + " for " + l.Trigger
		if l.Next != nil {
			text += ", next attempt at " + l.Next.Local().Format("15:04:05.000")
		}
		return text
	case "answered":
		return l.Trigger + " replied with " + l.Reply.ID + fateOfReply(l.Reply)
	case "replied":
		return "reply of " + l.Trigger + " to " + l.ReplyTo.ID + fateOfReply(l.ReplyTo)
	default:
		return l.Kind + " " + l.Fate + " " + l.Trigger
	}
}

func fateOfReply(r *adminapi.Reference) string {
	if r.Dropped {
		return ", dropped, for it had passed too many hops"
	}
	return ""
}
