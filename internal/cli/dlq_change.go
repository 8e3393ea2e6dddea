package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
)

type dlqRedriveFlags struct {
	adminFlags
	selectFlags
	rate   string
	dryRun bool
}

func newDLQRedriveCommand() *cobra.Command {
	f := &dlqRedriveFlags{}
	cmd := &cobra.Command{
		Use:   "redrive [NAMESPACE/BROKER] (--all | filter...)",
		Short: "Give parked events back to their Triggers",
		Long: `redrive gives parked events back to the Triggers they were meant for, as if they had just come, with all attempts before
them. An event is removed from the parked ones when it is safely stored for delivery, so an interruption loses nothing;
at worst an event is delivered twice. Events whose Trigger was deleted stay parked, and the exit code is 1.`,
		Example: "  millrace dlq redrive --trigger default/big-spender --rate 50/s\n" +
			"  millrace dlq redrive default/live --code 503 --older-than 1h --dry-run\n" +
			"  millrace dlq redrive --seq 42",
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.adminFlags.register(cmd)
	f.changes = true
	f.registerMutating(cmd, "redrive")
	cmd.Flags().StringVar(&f.rate, "rate", "", "redrive at most so many `events` a second, such as 50/s; also 30/m (default no limit)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "count what would be done and do nothing")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(brokerWords))
	return cmd
}

func (f *dlqRedriveFlags) run(cmd *cobra.Command, args []string) error {
	var req adminapi.RedriveRequest
	var err error
	if req.Selection, err = f.mutating(cmd, "redrive"); err != nil {
		return err
	}
	req.DryRun = f.dryRun
	if f.rate != "" {
		if req.Rate, err = parseRate(f.rate); err != nil {
			return err
		}
	}
	c, broker, err := f.target(cmd, args)
	if err != nil {
		return err
	}
	req.Trigger = f.qualify(req.Trigger)
	p := newProgressLine(cmd.ErrOrStderr())
	result, err := c.Redrive(cmd.Context(), broker, req, func(l adminapi.Line[adminapi.RedriveResult]) {
		if l.Result != nil {
			p.show("%d of %d events looked at, %d redriven", l.Examined, l.Total, l.Result.Redriven)
		}
	})
	p.clear()
	if result == nil {
		return err
	}
	err = errors.Join(f.print(cmd.OutOrStdout(), outcomeOf(result, err), func(w io.Writer) error {
		printRedrive(w, result)
		return nil
	}), err)
	if err != nil {
		return err
	}
	if result.NoTrigger+result.Unreadable+result.TooLarge+result.Failed > 0 || len(f.sequences) > 0 && result.Gone > 0 {
		return silently(ExitFailure)
	}
	return nil
}

// target returns the client and the Broker that the arguments name.
func (f *adminFlags) target(cmd *cobra.Command, args []string) (*adminapi.Client, string, error) {
	given, err := brokerArg(args)
	if err != nil {
		return nil, "", err
	}
	c, err := f.client(cmd)
	if err != nil {
		return nil, "", err
	}
	broker, err := oneBroker(cmd.Context(), c, f.qualify(given))
	return c, broker, err
}

// changeOutcome is the result of a redrive or purge as printed for programs.
type changeOutcome[T any] struct {
	Result *T     `json:"result"`
	Error  string `json:"error,omitempty"`
}

func outcomeOf[T any](result *T, err error) changeOutcome[T] {
	o := changeOutcome[T]{Result: result}
	if err != nil {
		o.Error = err.Error()
	}
	return o
}

func printRedrive(w io.Writer, r *adminapi.RedriveResult) {
	verb := "redriven"
	if r.DryRun {
		fmt.Fprintln(w, "Dry run: nothing was changed.")
		verb = "would be redriven"
	}
	fmt.Fprintf(w, "%d of %s %s\n", r.Redriven, plural(int(r.Selected), "event"), verb)
	note := func(n uint64, format string, args ...any) {
		if n > 0 {
			fmt.Fprintf(w, "%d %s\n", n, fmt.Sprintf(format, args...))
		}
	}
	note(r.Waiting, "of them waiting until the Trigger is ready")
	note(r.NoTrigger, "kept: Trigger deleted; `millrace dlq purge --trigger UID` removes what is for %s", strings.Join(r.Missing, ", "))
	note(r.Unreadable, "kept: what is stored is no CloudEvent")
	note(r.TooLarge, "kept: larger than the Broker stores now")
	note(r.Failed, "not done, or not known to be done: the store failed")
	note(r.Gone, "not there any more: redriven, purged or too old")
}

type dlqPurgeFlags struct {
	adminFlags
	selectFlags
	dryRun bool
}

func newDLQPurgeCommand() *cobra.Command {
	f := &dlqPurgeFlags{}
	cmd := &cobra.Command{
		Use:   "purge [NAMESPACE/BROKER] (--all | filter...)",
		Short: "Remove parked events for good",
		Long:  "purge removes parked events. There is no way to get them back: try it with --dry-run first.",
		Example: "  millrace dlq purge --older-than 3d --dry-run\n" +
			"  millrace dlq purge default/live --trigger default/big-spender --code 400",
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.adminFlags.register(cmd)
	f.changes = true
	f.registerMutating(cmd, "purge")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "count what would be done and do nothing")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(brokerWords))
	return cmd
}

func (f *dlqPurgeFlags) run(cmd *cobra.Command, args []string) error {
	var req adminapi.PurgeRequest
	var err error
	if req.Selection, err = f.mutating(cmd, "purge"); err != nil {
		return err
	}
	req.DryRun = f.dryRun
	c, broker, err := f.target(cmd, args)
	if err != nil {
		return err
	}
	req.Trigger = f.qualify(req.Trigger)
	p := newProgressLine(cmd.ErrOrStderr())
	result, err := c.Purge(cmd.Context(), broker, req, func(l adminapi.Line[adminapi.PurgeResult]) {
		if l.Result != nil {
			p.show("%d of %d events looked at, %d purged", l.Examined, l.Total, l.Result.Purged)
		}
	})
	p.clear()
	if result == nil {
		return err
	}
	err = errors.Join(f.print(cmd.OutOrStdout(), outcomeOf(result, err), func(w io.Writer) error {
		printPurge(w, result)
		return nil
	}), err)
	if err == nil && (result.Failed > 0 || len(f.sequences) > 0 && result.Gone > 0) {
		return silently(ExitFailure)
	}
	return err
}

func printPurge(w io.Writer, r *adminapi.PurgeResult) {
	verb := "purged"
	if r.DryRun {
		fmt.Fprintln(w, "Dry run: nothing was changed.")
		verb = "would be purged"
	}
	fmt.Fprintf(w, "%d of %s %s\n", r.Purged, plural(int(r.Selected), "event"), verb)
	if r.Failed > 0 {
		fmt.Fprintf(w, "%d not done, or not known to be done: the store failed\n", r.Failed)
	}
	if r.Gone > 0 {
		fmt.Fprintf(w, "%d not there any more: redriven, purged or too old\n", r.Gone)
	}
}
