package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/display"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// listPage is how many events `dlq ls --events` asks for at a time.
const listPage = 500

type dlqListFlags struct {
	adminFlags
	selectFlags
	events bool
}

func newDLQListCommand() *cobra.Command {
	f := &dlqListFlags{}
	cmd := &cobra.Command{
		Use:   "ls [NAMESPACE/BROKER]",
		Short: "Count parked events by Trigger and cause, or list them",
		Long: `ls counts the parked events of a Broker, or of all Brokers, by Trigger, status code and cause. Words with four digits or
more, such as ids and addresses, count as equal in a cause and are printed as *. With --events it prints a line for each
event instead; with -o json that is one JSON object a line. With -o name it prints the Brokers, or the sequences of the events.`,
		Example: "  millrace dlq ls\n  millrace dlq ls default/live --trigger default/big-spender --events",
		Args:    cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.adminFlags.register(cmd, "name")
	f.selectFlags.register(cmd, "print at most `N` groups or events of a Broker; 0 is no limit")
	cmd.Flags().BoolVar(&f.events, "events", false, "print each event instead of counts")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(brokerWords))
	return cmd
}

func (f *dlqListFlags) run(cmd *cobra.Command, args []string) error {
	given, err := brokerArg(args)
	if err != nil {
		return err
	}
	s, err := f.selection(cmd)
	if err != nil {
		return err
	}
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	s.Trigger = f.qualify(s.Trigger)
	names, err := brokers(cmd.Context(), c, f.qualify(given))
	if err != nil {
		return err
	}
	switch {
	case f.events:
		return f.listEvents(cmd, c, names, s)
	case f.output == "name":
		return printNames(cmd.OutOrStdout(), names)
	default:
		return f.listGroups(cmd, c, names, s)
	}
}

// brokerGroups are the groups of one Broker, as printed for programs.
type brokerGroups struct {
	Broker string `json:"broker"`
	*adminapi.Groups
}

func (f *dlqListFlags) listGroups(cmd *cobra.Command, c *adminapi.Client, names []string, s adminapi.Selection) error {
	limit := s.Limit
	s.Limit = 0
	all := make([]brokerGroups, 0, len(names))
	for _, name := range names {
		p := newProgressLine(cmd.ErrOrStderr())
		groups, err := c.Groups(cmd.Context(), name, s, func(l adminapi.Line[adminapi.Groups]) {
			p.show("%s: %d of %d events looked at", name, l.Examined, l.Total)
		})
		p.clear()
		if err != nil {
			return err
		}
		if limit > 0 && len(groups.Groups) > limit {
			groups.Groups = groups.Groups[:limit]
		}
		all = append(all, brokerGroups{Broker: name, Groups: groups})
	}
	return f.print(cmd.OutOrStdout(), map[string]any{"brokers": all}, func(w io.Writer) error { return printGroups(w, all) })
}

// brokerItem is a parked event with its Broker, as printed for programs.
type brokerItem struct {
	Broker string `json:"broker"`
	adminapi.Item
}

func (f *dlqListFlags) listEvents(cmd *cobra.Command, c *adminapi.Client, names []string, s adminapi.Selection) error {
	out := newItemPrinter(cmd.OutOrStdout(), f.output)
	for _, name := range names {
		if err := eachEvent(cmd.Context(), c, name, s, func(item adminapi.Item) error { return out.print(name, item) }); err != nil {
			return err
		}
	}
	return out.end()
}

// eachEvent calls show for the selected events of a Broker, at most s.Limit.
func eachEvent(ctx context.Context, c *adminapi.Client, broker string, s adminapi.Selection, show func(adminapi.Item) error) error {
	limit, printed := s.Limit, 0
	for after := uint64(0); ; {
		s.Limit = listPage
		if limit > 0 {
			s.Limit = min(listPage, limit-printed)
		}
		page, err := c.Events(ctx, broker, s, after)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := show(item); err != nil {
				return err
			}
		}
		printed += len(page.Items)
		if after = page.Next; after == 0 || limit > 0 && printed >= limit {
			return nil
		}
	}
}

func newDLQShowCommand() *cobra.Command {
	f := &adminFlags{}
	cmd := &cobra.Command{
		Use:     "show SEQ [NAMESPACE/BROKER]",
		Short:   "Print a parked event and why it was given up",
		Long:    "show prints the event of a sequence that ls prints, with its data, and what is known about the failure of its delivery.",
		Example: "  millrace dlq show 42\n  millrace dlq show 42 default/live -o json | jq .event",
		Args:    cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.show(cmd, args)) })
	f.register(cmd)
	f.completeFlags(cmd)
	sequences, names := f.complete(sequenceWords), f.complete(brokerWords)
	cmd.ValidArgsFunction = upTo(2, func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return sequences(cmd, args, toComplete)
		}
		return names(cmd, args, toComplete)
	})
	return cmd
}

func (f *adminFlags) show(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageErrorf("say which event: give the sequence that `millrace dlq ls` prints")
	}
	if len(args) == 2 && strings.Contains(args[0], "/") { // either order is fine
		args = []string{args[1], args[0]}
	}
	sequence, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || sequence == 0 {
		return usageErrorf("%q is no sequence; give the number that `millrace dlq ls` prints", args[0])
	}
	given, err := brokerArg(args[1:])
	if err != nil {
		return err
	}
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	name, err := oneBroker(cmd.Context(), c, f.qualify(given))
	if err != nil {
		return err
	}
	d, err := c.Event(cmd.Context(), name, sequence)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), d, func(w io.Writer) error { return printDetail(w, name, &d) })
}

// print writes a value as the flag --output wants it, or calls table.
func (f *adminFlags) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch f.output {
	case "json":
		return printJSON(w, v)
	case "yaml":
		return printYAML(w, v)
	default:
		return table(w)
	}
}

// printNames writes a name a line.
func printNames(w io.Writer, names []string) error {
	for _, name := range names {
		if _, err := fmt.Fprintln(w, terminal.Safe(name)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

func printYAML(w io.Writer, v any) error {
	text, err := yaml.Marshal(v)
	if err == nil {
		_, err = w.Write(text)
	}
	if err != nil {
		return fmt.Errorf("print YAML: %w", err)
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// printDetail prints an event for people, below why it was given up.
func printDetail(w io.Writer, broker string, d *adminapi.Detail) error {
	style := terminal.StyleFor(w)
	fmt.Fprintf(w, "%s\n", style.Bold(fmt.Sprintf("Parked event %d of %s", d.Sequence, broker)))
	field := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s%s\n", name+":", terminal.Safe(fmt.Sprintf(format, args...)))
	}
	field("Trigger", "%s", triggerLabel(d.Trigger, d.TriggerUID))
	field("Parked", "%s", d.Parked.Local().Format(timeLayout))
	if d.FirstAttempt != nil {
		field("First tried", "%s", d.FirstAttempt.Local().Format(timeLayout))
	}
	what := "attempt"
	if d.DeadLetter {
		what = "attempt at the dead letter sink"
	}
	field("Tried", "%s", plural(d.Attempts, what))
	if d.Destination != "" {
		field("Last tried at", "%s", d.Destination)
	}
	answer := "none"
	if d.Code != 0 {
		answer = strconv.Itoa(d.Code)
	}
	field("Last answer", "%s", answer)
	field("Cause", "%s", strings.ReplaceAll(orDash(d.Cause), "\n", "\n               "))
	fmt.Fprintln(w)
	if d.Unreadable != "" {
		fmt.Fprintf(w, "%s\n", style.Bad("It cannot be redriven: "+terminal.Safe(d.Unreadable)))
		return nil
	}
	e, err := event.DecodeJSON(d.Event)
	if err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	if _, err := w.Write(display.Render(e, style)); err != nil {
		return fmt.Errorf("print the event: %w", err)
	}
	return nil
}
