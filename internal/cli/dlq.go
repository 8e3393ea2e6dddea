package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
)

func newDLQCommand() *cobra.Command {
	cmd := newGroup(&cobra.Command{
		Use:   "dlq",
		Short: "Look at events that were given up, redrive and purge them",
		Long: `An event that a subscriber does not take, in spite of all retries, goes to the dead letter sink. If neither Trigger nor
Broker has one, Millrace parks it. These commands work with parked events, of millrace dev or of a cluster.`,
	})
	cmd.AddCommand(newDLQListCommand(), newDLQShowCommand(), newDLQRedriveCommand(), newDLQPurgeCommand())
	return cmd
}

// selectFlags say which events are meant.
type selectFlags struct {
	trigger    string
	code       int
	cause      string
	olderThan  string
	sequences  []uint
	everything bool
	limit      int
}

func (f *selectFlags) register(cmd *cobra.Command, limit string) {
	flags := cmd.Flags()
	flags.StringVar(&f.trigger, "trigger", "", "only events for this Trigger, `namespace/name`, or the UID of one that was deleted")
	flags.IntVar(&f.code, "code", 0, "only events whose last attempt was answered with this status; 0 is no answer")
	flags.StringVar(&f.cause, "cause", "", "only events with this `text` in the cause of their failure; a * as ls prints it is understood")
	flags.StringVar(&f.olderThan, "older-than", "", "only events parked longer ago than this, such as 90m, 36h or 7d")
	flags.IntVar(&f.limit, "limit", 0, limit)
}

// registerMutating adds the flags of the commands that change something.
func (f *selectFlags) registerMutating(cmd *cobra.Command, verb string) {
	f.register(cmd, verb+" at most `N` events, the oldest first; 0 is no limit")
	cmd.Flags().UintSliceVar(&f.sequences, "seq", nil, "only the events of these `sequences`, separated by commas")
	cmd.Flags().BoolVar(&f.everything, "all", false, verb+" all parked events of the Broker")
}

// selection checks the flags and translates them.
func (f *selectFlags) selection(cmd *cobra.Command) (adminapi.Selection, error) {
	s := adminapi.Selection{Cause: f.cause, OlderThan: f.olderThan, All: f.everything, Limit: f.limit, Trigger: f.trigger}
	if cmd.Flags().Changed("code") {
		if f.code != 0 && (f.code < 100 || f.code > 599) {
			return s, usageErrorf("--code is an HTTP status such as 503, or 0 for no answer")
		}
		s.Code = &f.code
	}
	if f.olderThan != "" {
		if _, err := adminapi.ParseAge(f.olderThan); err != nil {
			return s, usageErrorf("--older-than: %w", err)
		}
	}
	if f.limit < 0 {
		return s, usageErrorf("--limit cannot be negative")
	}
	for _, n := range f.sequences {
		s.Sequences = append(s.Sequences, uint64(n))
	}
	return s, nil
}

// mutating is the selection of a command that changes something.
func (f *selectFlags) mutating(cmd *cobra.Command, verb string) (adminapi.Selection, error) {
	s, err := f.selection(cmd)
	filtered := s.Trigger != "" || s.Code != nil || s.Cause != "" || s.OlderThan != "" || len(s.Sequences) > 0
	switch {
	case err != nil:
		return s, err
	case s.All && filtered:
		return s, usageErrorf("--all does not go with a filter; leave out one of them")
	case !s.All && !filtered:
		return s, usageErrorf("say which events to %s: --trigger, --code, --cause, --older-than, --seq, or --all", verb)
	}
	return s, nil
}

// parseRate reads a number of events a second, or one with its unit of time: 50, 50/s, 30/m.
func parseRate(text string) (float64, error) {
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(number, 64)
	per, ok := map[string]time.Duration{"": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if err != nil || !ok || !(n > 0 && n < 1e9) {
		return 0, usageErrorf("--rate %q: write a number of events, such as 50/s or 30/m", text)
	}
	return n / per.Seconds(), nil
}

// brokerArg returns the Broker of the arguments, or "" if none is given.
func brokerArg(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", nil
	case len(args) > 1:
		return "", usageErrorf("give one Broker, as NAMESPACE/BROKER")
	case strings.Count(args[0], "/") > 1 || args[0] == "":
		return "", usageErrorf("%q is no Broker; write NAMESPACE/BROKER", args[0])
	default:
		return args[0], nil
	}
}

// oneBroker returns the given Broker, or the only one there is.
func oneBroker(ctx context.Context, c *adminapi.Client, given string) (string, error) {
	if given != "" {
		return given, nil
	}
	all, err := brokers(ctx, c, "")
	if err != nil {
		return "", err
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return "", usageErrorf("say which Broker; there are %s", strings.Join(all, ", "))
}

// brokers returns the given Broker, or all there are.
func brokers(ctx context.Context, c *adminapi.Client, given string) ([]string, error) {
	if given != "" {
		return []string{given}, nil
	}
	infos, err := c.Brokers(ctx)
	if err != nil {
		return nil, err
	}
	if len(infos) == 0 {
		if c.Namespace != "" {
			return nil, fmt.Errorf("there is no Broker in namespace %s; name another with --%s, or all with --%s", c.Namespace, namespaceFlag, allNamespacesFlag)
		}
		return nil, errors.New("there is no Broker; check the manifests that millrace dev or the filter reads")
	}
	names := make([]string, len(infos))
	for i, b := range infos {
		names[i] = b.Namespace + "/" + b.Name
	}
	return names, nil
}
