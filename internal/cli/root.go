// Package cli is the command line of the millrace program: its commands, flags and exit codes.
//
// Commands write results to standard output and everything else, errors included, to standard error. The exit code is
// [ExitOK], [ExitFailure], [ExitUsage] or [ExitMismatch].
package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"millrace.dev/internal/cli/terminal"
	"millrace.dev/internal/version"
)

// The exit codes.
const (
	// ExitOK says that the command did what was asked.
	ExitOK = 0
	// ExitFailure says that it could not, or not all of it: a manifest has mistakes, an event was refused.
	ExitFailure = 1
	// ExitUsage says that the command line makes no sense; nothing was done.
	ExitUsage = 2
	// ExitMismatch says that `trigger test` did its work and a Trigger and an event came out otherwise than expected.
	ExitMismatch = 3
)

// NewRoot returns the millrace command with all its subcommands. Run it with [Execute]. program is the path of the program: as
// kubectl-millrace it is a command of kubectl.
func NewRoot(program string) *cobra.Command {
	root := newGroup(&cobra.Command{
		Use: "millrace",
		// What people write, in usages and errors.
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: programName(program)},
		Short:       "Route CloudEvents from Brokers to subscribers",
		Long: "millrace is the command line of Millrace, a Broker and Trigger event router on NATS JetStream.\n\n" +
			"Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a Trigger and an event did not come out as expected.",
		Version:       version.String(),
		SilenceErrors: true, // Execute prints them
		SilenceUsage:  true,
	})
	root.AddCommand(newDevCommand(), newDLQCommand(), newDisplayCommand(), newReplayCommand(), newSendCommand(),
		newTailCommand(), newTopCommand(), newTriggerCommand(), newWhyCommand())
	return root
}

// Execute runs the command, prints its error if there is one, and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command) int {
	ctx, cancel := context.WithCancel(ctx) // ends forwarded ports
	defer cancel()
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	code, failure := ExitUsage, (*exitError)(nil)
	if errors.As(err, &failure) {
		code = failure.code
	}
	if failure == nil || failure.err != nil {
		style := terminal.StyleFor(root.ErrOrStderr())
		fmt.Fprintf(root.ErrOrStderr(), "%s %v\n", style.Bad("Error:"), err)
	}
	if code == ExitUsage {
		fmt.Fprintf(root.ErrOrStderr(), "Run '%s --help' for usage.\n", ran.CommandPath())
	}
	return code
}

// exitError is the error of a command that was understood. All others come from cobra and are errors of usage.
type exitError struct {
	code int
	err  error // nil if all there is to say has been printed
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf returns an error for a command line that makes no sense.
func usageErrorf(format string, args ...any) error {
	return &exitError{code: ExitUsage, err: fmt.Errorf(format, args...)}
}

// silently ends the command with the exit code and without another word.
func silently(code int) error { return &exitError{code: code} }

// runE makes errors of a command that are not about its usage end it with [ExitFailure]. Every command with a RunE
// wants it.
func runE(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if own := (*exitError)(nil); err == nil || errors.As(err, &own) {
			return err
		}
		return &exitError{code: ExitFailure, err: err}
	}
}

// newGroup makes cmd one that only has subcommands: it prints its help, and names of subcommands that do not exist are
// errors.
func newGroup(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs // for cobra to leave them to RunE
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
		if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
			err = fmt.Errorf("%w; did you mean %q?", err, similar[0])
		}
		return usageErrorf("%w", err)
	})
	return cmd
}
