package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/cli/display"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/pkg/event"
)

// stopTimeout bounds how long answers in the making may hold up the end of the program.
const stopTimeout = 5 * time.Second

type displayFlags struct {
	listen     string
	name       string
	output     string
	compact    bool
	status     int
	failStatus int
	failFirst  int
	failRate   float64
	delay      time.Duration
	reply      string
	count      int
}

func newDisplayCommand() *cobra.Command {
	var flags displayFlags
	cmd := &cobra.Command{
		Use:   "display",
		Short: "Receive events and print them",
		Long: "display is a subscriber that prints every event it gets, in any content mode of CloudEvents over HTTP.\n" +
			"It can also fail, be slow and reply, to try out what retries, dead letters and replies do.",
		Example: "  millrace display\n" +
			"  millrace display --listen 127.0.0.1:0 --fail-first 2\n" +
			"  millrace display -o json --count 10 | jq .type",
		Args: cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			if err := flags.validate(); err != nil {
				return err
			}
			return flags.run(cmd)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&flags.listen, "listen", "127.0.0.1:8082", "address to listen at; port 0 takes a free one")
	f.StringVar(&flags.name, "name", "", "a label shown with each event")
	f.StringVarP(&flags.output, "output", "o", "", "for programs: json prints an event a line, yaml a document an event, name its id")
	f.BoolVar(&flags.compact, "compact", false, "print one line an event")
	f.IntVar(&flags.status, "status", http.StatusOK, "status to answer events with")
	f.IntVar(&flags.failStatus, "fail-status", http.StatusInternalServerError, "status of the failures asked for by --fail-first and --fail-rate")
	f.IntVar(&flags.failFirst, "fail-first", 0, "let the first `N` deliveries of each event fail")
	f.Float64Var(&flags.failRate, "fail-rate", 0, "let this share of deliveries fail, from 0 to 1")
	f.DurationVar(&flags.delay, "delay", 0, "hold back each answer, for example 2s")
	f.StringVar(&flags.reply, "reply", "", "answer each event with one of this `type`, with the same data")
	f.IntVar(&flags.count, "count", 0, "exit after `N` events that were not failed on purpose; 0 means never")
	registerCompletions(cmd, map[string]completion{"output": cobra.FixedCompletions(scriptFormats(), cobra.ShellCompDirectiveNoFileComp)})
	return cmd
}

func (f *displayFlags) validate() error {
	switch {
	case f.output != "" && !slices.Contains(scriptFormats(), f.output):
		return usageErrorf("--output %q is not known; write %s, or leave it out", f.output, anyOf(scriptFormats()))
	case f.output != "" && f.compact:
		return usageErrorf("--compact and --output do not go together")
	case !isFinalStatus(f.status) || !isFinalStatus(f.failStatus):
		return usageErrorf("--status and --fail-status are HTTP status codes from 200 to 599")
	case f.failRate < 0 || f.failRate > 1:
		return usageErrorf("--fail-rate is a share from 0 to 1, such as 0.3")
	case f.failFirst < 0 || f.count < 0 || f.delay < 0:
		return usageErrorf("--fail-first, --count and --delay cannot be negative")
	case f.reply != "" && f.status != http.StatusOK:
		return usageErrorf("--reply answers with status 200; leave out --status")
	}
	return nil
}

// scriptFormats are those of --output of commands that print for people without it.
func scriptFormats() []string { return []string{"json", "yaml", "name"} }

func isFinalStatus(status int) bool { return status >= 200 && status <= 599 }

func (f *displayFlags) run(cmd *cobra.Command) error {
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	handler := display.New(f.options(cmd.OutOrStdout(), stop))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen for events: %w; choose another address with --listen", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Waiting for events at http://%s (Ctrl-C stops)\n", listener.Addr())
	if err := serve(ctx, listener, handler); err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), describe(handler.Counts()))
	return nil
}

// options translates the flags; stop is called when enough events have come.
func (f *displayFlags) options(out io.Writer, stop func()) display.Options {
	opts := display.Options{
		Out: display.Shared(out), Name: f.name, Style: terminal.StyleFor(out),
		Status: f.status, FailStatus: f.failStatus, FailFirst: f.failFirst, FailRate: f.failRate, Delay: f.delay,
	}
	switch {
	case f.output == "json":
		opts.Format = display.JSON
	case f.output == "yaml":
		opts.Format = display.YAML
	case f.output == "name":
		opts.Format = display.ID
	case f.compact:
		opts.Format = display.Compact
	}
	if f.reply != "" {
		opts.Reply = display.ReplyWith(f.reply)
	}
	if f.count > 0 {
		var seen atomic.Int64
		opts.OnEvent = func(*event.Event) {
			if seen.Add(1) == int64(f.count) {
				stop()
			}
		}
	}
	return opts
}

// serve serves HTTP until ctx ends, then lets requests finish.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving HTTP: %w", err)
	}
	return server.Close()
}

func describe(c display.Counts) string {
	text := plural(c.Events, "event")
	var notes []string
	if c.Failed > 0 {
		notes = append(notes, fmt.Sprintf("%d failed on purpose", c.Failed))
	}
	if c.Refused > 0 {
		notes = append(notes, plural(c.Refused, "request")+" refused")
	}
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	return text
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
