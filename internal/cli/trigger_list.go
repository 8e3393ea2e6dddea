package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
)

func newTriggerListCommand() *cobra.Command {
	f := &adminFlags{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List Triggers, which are paused, and what waits for them",
		Long: `ls lists the Triggers that a filter serves, or keeps out of effect: whether they are ready and paused, how many deliveries wait in the
backlog, for how long the oldest of them has, and the rate limit.`,
		Example: "  millrace trigger ls\n  millrace trigger ls -n shop --context prod -o json",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, _ []string) error { return f.explain(f.listTriggers(cmd)) })
	f.register(cmd, "name")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// triggerItem is a Trigger as a list shows it.
type triggerItem struct {
	Trigger string `json:"trigger"`
	Broker  string `json:"broker"`
	Ready   bool   `json:"ready"`
	// Reason says why it is not ready.
	Reason string `json:"reason,omitempty"`
	Paused bool   `json:"paused"`
	// Backlog is how many deliveries wait, Oldest since when.
	Backlog uint64     `json:"backlog"`
	Oldest  *time.Time `json:"oldest,omitempty"`
	// RateLimit is in requests a second; 0 is none.
	RateLimit int `json:"rateLimit,omitempty"`
}

func (f *adminFlags) listTriggers(cmd *cobra.Command) error {
	c, err := f.client(cmd)
	if err != nil {
		return err
	}
	stats, err := c.Stats(cmd.Context())
	if err != nil {
		return err
	}
	items := make([]triggerItem, len(stats.Triggers))
	names := make([]string, len(stats.Triggers))
	for i := range stats.Triggers {
		items[i] = newTriggerItem(&stats.Triggers[i])
		names[i] = items[i].Trigger
	}
	if f.output == "name" {
		return printNames(cmd.OutOrStdout(), names)
	}
	return f.print(cmd.OutOrStdout(), items, func(w io.Writer) error { return printTriggers(w, items, stats.At) })
}

func newTriggerItem(t *adminapi.TriggerCounts) triggerItem {
	return triggerItem{
		Trigger: t.Trigger, Broker: t.Broker, Ready: t.Ready, Reason: t.Reason, Paused: t.Paused,
		Backlog: t.Waiting, Oldest: t.Oldest, RateLimit: t.RateLimit,
	}
}

func printTriggers(w io.Writer, items []triggerItem, now time.Time) error {
	t := newTable(w)
	row(t, "TRIGGER", "BROKER", "READY", "PAUSED", "BACKLOG", "OLDEST", "RATE LIMIT")
	for i := range items {
		x := &items[i]
		ready, paused, oldest, limit := "yes", "no", "-", "-"
		if !x.Ready {
			ready = "no: " + orDash(x.Reason)
		}
		if x.Paused {
			paused = "yes"
		}
		if x.Oldest != nil {
			oldest = age(now.Sub(*x.Oldest))
		}
		if x.RateLimit > 0 {
			limit = fmt.Sprintf("%d/s", x.RateLimit)
		}
		row(t, x.Trigger, x.Broker, ready, paused, count(x.Backlog), oldest, limit)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print table: %w", err)
	}
	return nil
}
