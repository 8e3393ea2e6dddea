package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/replay"
)

type replayFlags struct {
	adminFlags
	request      adminapi.ReplayRequest
	since, until string
	rate         string
	dryRun, yes  bool
}

func newReplayCommand() *cobra.Command {
	f := &replayFlags{}
	cmd := &cobra.Command{
		Use:   "replay [NAMESPACE/BROKER] --trigger NAME --since TIME",
		Short: "Give archived events to one Trigger once more",
		Long: `replay gives events that a Broker accepted before to one of its Triggers once more, and to no other. The Broker must have had an archive
when it accepted them: annotation millrace.dev/archive. Of the events that are selected the Trigger gets those that match its filter as it is now,
marked by the extension attribute ` + replay.Attribute + `, with the retries and the dead letter sink of the Trigger. Without --yes they are only counted.

The replay goes on when this command has ended, and survives restarts: millrace replay ls shows how far it is, and cancel ends it.
--since and --until are times such as 2026-01-31T12:00:00Z, or how long ago: 90m, 36h, 7d.`,
		Example: "  millrace replay --trigger analytics --since 6h\n" +
			"  millrace replay shop/orders --trigger shop/billing --since 36h --until 24h --type 'order.*' --filter 'data.total > 100' --rate 50/s --yes\n" +
			"  millrace replay ls\n  millrace replay cancel xbm3qk6ywz5c",
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.run(cmd, args)) })
	f.changes = true // counting alone asks for the right to replay, too
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.request.Trigger, "trigger", "", "the Trigger that is to get the events, `namespace/name`")
	flags.StringVar(&f.since, "since", "", "only events accepted after this `time`, or no longer ago than this")
	flags.StringVar(&f.until, "until", "", "only events accepted until this `time`, or at least so long ago; default: now")
	flags.StringVar(&f.request.Type, "type", "", "only events of this `type`; a * in it stands for anything")
	flags.StringVar(&f.request.CEL, "filter", "", "only events for which this `CEL` expression over ce and data is true")
	flags.StringVar(&f.rate, "rate", "", "give the Trigger at most so many events, such as 50/s or 30/m")
	flags.BoolVar(&f.dryRun, "dry-run", false, "count the events and do nothing")
	flags.BoolVar(&f.yes, "yes", false, "begin the replay")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(brokerWords))
	cmd.AddCommand(newReplayListCommand(), newReplayCancelCommand())
	return cmd
}

func (f *replayFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.read(time.Now()); err != nil {
		return err
	}
	c, broker, err := f.target(cmd, args)
	if err != nil {
		return err
	}
	f.request.Trigger = f.qualify(f.request.Trigger)
	f.request.DryRun = true
	counts, err := c.Replay(cmd.Context(), broker, f.request)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if f.dryRun || !f.yes {
		return f.print(out, counts, func(w io.Writer) error {
			fmt.Fprintf(w, "Nothing was done. Of %s in the archive since then %d would be given to Trigger %s.\n",
				plural(int(counts.Examined), "event"), counts.Selected, f.request.Trigger)
			if !f.dryRun {
				fmt.Fprintln(w, "Add --yes to begin.")
			}
			return nil
		})
	}
	f.request.DryRun = false
	answer, err := c.Replay(cmd.Context(), broker, f.request)
	if err != nil {
		return err
	}
	answer.Examined, answer.Selected = counts.Examined, counts.Selected
	return f.print(out, answer, func(w io.Writer) error {
		fmt.Fprintf(w, "Replay %s gives %s to Trigger %s. See `millrace replay ls`; `millrace replay cancel %s` ends it.\n",
			answer.Replay.ID, plural(int(counts.Selected), "event"), f.request.Trigger, answer.Replay.ID)
		return nil
	})
}

// read checks the flags and translates them.
func (f *replayFlags) read(now time.Time) (err error) {
	switch {
	case f.request.Trigger == "":
		return usageErrorf("say which Trigger is to get the events: --trigger NAMESPACE/NAME")
	case f.since == "":
		return usageErrorf("say from when on: --since 6h, or --since 2026-01-31T12:00:00Z")
	case f.dryRun && f.yes:
		return usageErrorf("--dry-run does not go with --yes; leave out one of them")
	}
	if f.request.Since, err = parseMoment("since", f.since, now); err != nil {
		return err
	}
	f.request.Until = now
	if f.until != "" {
		if f.request.Until, err = parseMoment("until", f.until, now); err != nil {
			return err
		}
	}
	if !f.request.Until.After(f.request.Since) {
		return usageErrorf("--until is not after --since")
	}
	if f.rate != "" {
		f.request.Rate, err = parseRate(f.rate)
	}
	return err
}

// parseMoment reads a time, or how long ago it was.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := adminapi.ParseAge(text)
	if err != nil {
		return time.Time{}, usageErrorf("--%s %q: write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 90m, 36h or 7d", flag, text)
	}
	return now.Add(-ago), nil
}

func newReplayListCommand() *cobra.Command {
	f := &adminFlags{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List replays, the newest first",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		c, err := f.client(cmd)
		if err != nil {
			return f.explain(err)
		}
		all, err := c.Replays(cmd.Context(), c.Namespace)
		if err != nil {
			return f.explain(err)
		}
		if f.output == "name" {
			names := make([]string, len(all))
			for i := range all {
				names[i] = all[i].ID
			}
			return printNames(cmd.OutOrStdout(), names)
		}
		return f.print(cmd.OutOrStdout(), all, func(w io.Writer) error { return printReplays(w, all) })
	})
	f.register(cmd, "name")
	f.completeFlags(cmd)
	return cmd
}

func printReplays(w io.Writer, all []replay.Replay) error {
	t := newTable(w)
	row(t, "ID", "TRIGGER", "BROKER", "STATE", "EXAMINED", "REPLAYED", "CREATED")
	for _, r := range all {
		state := r.State
		if r.Problem != "" {
			state += ": " + r.Problem
		}
		row(t, r.ID, r.Trigger, r.Broker, state, count(r.Examined), count(r.Replayed), r.Created.Local().Format(timeLayout))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func newReplayCancelCommand() *cobra.Command {
	f := &adminFlags{changes: true}
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a replay; what was given to the Trigger already is delivered",
		Args:  cobra.ArbitraryArgs, // for RunE to say what to write instead
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error { return f.explain(f.cancelReplay(cmd, args)) })
	f.register(cmd)
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = upTo(1, f.complete(replayWords))
	return cmd
}

// replayWords are the replays, with the Trigger of each.
func replayWords(ctx context.Context, c *adminapi.Client, _ []string) ([]cobra.Completion, error) {
	all, err := c.Replays(ctx, c.Namespace)
	words := make([]cobra.Completion, len(all))
	for i := range all {
		words[i] = cobra.CompletionWithDesc(all[i].ID, all[i].State+", to "+all[i].Trigger)
	}
	return words, err
}

func (f *adminFlags) cancelReplay(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageErrorf("say which replay: give the id that `millrace replay ls` prints")
	}
	id := args[0]
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	all, err := c.Replays(cmd.Context(), c.Namespace)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.ID != id {
			continue
		}
		ended, err := c.CancelReplay(cmd.Context(), r.Broker, id)
		if err != nil {
			return err
		}
		return f.print(cmd.OutOrStdout(), ended, func(w io.Writer) error {
			fmt.Fprintf(w, "Replay %s is %s; it gave %s to Trigger %s.\n", id, ended.State, plural(int(ended.Replayed), "event"), ended.Trigger)
			return nil
		})
	}
	return fmt.Errorf("there is no replay %q; millrace replay ls shows them", id)
}
