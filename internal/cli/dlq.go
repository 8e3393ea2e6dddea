package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cmdline"
)

// adminURLFlag has an environment variable; other flags of dlq have none: a forgotten one would change what is purged.
const adminURLFlag = "admin-url"

func newDLQCommand() *cobra.Command {
	cmd := newGroup(&cobra.Command{
		Use:   "dlq",
		Short: "Look at events that were given up, redrive and purge them",
		Long: `An event that a subscriber does not take, in spite of all retries, goes to the dead letter sink. If neither Trigger nor
Broker has one, Millrace parks it. These commands work with parked events, through the admin port of millrace dev or of a
filter: --` + adminURLFlag + `, or the environment variable ` + cmdline.EnvName(adminURLFlag) + `.`,
	})
	cmd.AddCommand(newDLQListCommand(), newDLQShowCommand(), newDLQRedriveCommand(), newDLQPurgeCommand())
	return cmd
}

// dlqFlags are those that every dlq command has.
type dlqFlags struct {
	adminURL string
	output   string
	formats  []string // that output may be
}

func (f *dlqFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.adminURL, adminURLFlag, "http://127.0.0.1:8081", "URL of the admin port of millrace dev or of a filter")
	cmd.Flags().StringVarP(&f.output, "output", "o", "table", "table or json")
	f.formats = []string{"table", "json"}
}

// client returns the client of the admin API that the flags, or the environment, name.
func (f *dlqFlags) client(cmd *cobra.Command) (*adminapi.Client, error) {
	if !slices.Contains(f.formats, f.output) {
		return nil, usageErrorf("--output %q is not known; write %s", f.output, strings.Join(f.formats, " or "))
	}
	if value, ok := os.LookupEnv(cmdline.EnvName(adminURLFlag)); ok && !cmd.Flags().Changed(adminURLFlag) {
		f.adminURL = value
	}
	if err := validateURL(f.adminURL); err != nil {
		return nil, fmt.Errorf("--%s: %w", adminURLFlag, err)
	}
	return &adminapi.Client{URL: f.adminURL, HTTP: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (f *dlqFlags) json() bool { return f.output == "json" }

// explain says what to do about an error of the client.
func (f *dlqFlags) explain(err error) error {
	var problem *adminapi.Problem
	var own *exitError
	switch {
	case err == nil, errors.As(err, &problem), errors.As(err, &own):
		return err
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; what was not done yet is still parked")
	case errors.Is(err, adminapi.ErrCutOff):
		return err
	default:
		return fmt.Errorf("%w; is millrace dev running? If it is, or for a filter, give its admin port with --%s or %s",
			err, adminURLFlag, cmdline.EnvName(adminURLFlag))
	}
}

// selectFlags say which events are meant.
type selectFlags struct {
	trigger   string
	code      int
	cause     string
	olderThan string
	sequences []uint
	all       bool
	limit     int
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
	cmd.Flags().BoolVar(&f.all, "all", false, verb+" all parked events of the Broker")
}

// selection checks the flags and translates them.
func (f *selectFlags) selection(cmd *cobra.Command) (adminapi.Selection, error) {
	s := adminapi.Selection{Cause: f.cause, OlderThan: f.olderThan, All: f.all, Limit: f.limit, Trigger: triggerName(f.trigger)}
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

// triggerName completes a name without a namespace. UIDs are left as they are.
func triggerName(name string) string {
	if _, err := uuid.Parse(name); name == "" || err == nil || strings.Contains(name, "/") {
		return name
	}
	return "default/" + name
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

// brokerArg returns the Broker of the arguments as namespace/name, or "" if none is given.
func brokerArg(args []string) (string, error) {
	switch {
	case len(args) == 0:
		return "", nil
	case len(args) > 1:
		return "", usageErrorf("give one Broker, as NAMESPACE/BROKER")
	case strings.Count(args[0], "/") > 1 || args[0] == "":
		return "", usageErrorf("%q is no Broker; write NAMESPACE/BROKER", args[0])
	case !strings.Contains(args[0], "/"):
		return "default/" + args[0], nil
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
		return nil, errors.New("there is no Broker; check the manifests that millrace dev or the filter reads")
	}
	names := make([]string, len(infos))
	for i, b := range infos {
		names[i] = b.Namespace + "/" + b.Name
	}
	return names, nil
}
