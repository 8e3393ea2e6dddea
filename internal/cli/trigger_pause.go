package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/cluster"
)

// maxOthers bounds how many things an error says there are instead.
const maxOthers = 10

type triggerPauseFlags struct {
	adminFlags
	pause bool // or else resume
	wait  time.Duration
}

// triggerPause is what became of one Trigger, as printed for programs.
type triggerPause struct {
	adminapi.PauseState
	// Confirmed says that every filter is known to hold to it.
	Confirmed bool `json:"confirmed"`
}

func newTriggerPauseCommand(pause bool) *cobra.Command {
	f := &triggerPauseFlags{pause: pause}
	cmd := &cobra.Command{
		Use:   "pause NAME...",
		Short: "Keep deliveries to Triggers' subscribers from beginning; what matches waits",
		Long: `pause keeps deliveries to the subscribers of Triggers from beginning. Those under way finish, and events that match wait in the
Broker's store until ` + "`millrace trigger resume`" + `; none is lost. To pause what is paused already changes nothing.

In a cluster this sets the annotation ` + eventingv1.PausedAnnotation + ` with your own rights to the Trigger, and waits until every filter holds to it.
In millrace dev it holds until millrace dev ends, whatever the manifest says, and is kept nowhere: to keep it, write the
annotation into the file.`,
		Example: "  millrace trigger pause billing\n  millrace trigger pause billing audit -n shop --context prod",
		Args:    cobra.ArbitraryArgs, // for run to say what to write instead
	}
	if !pause {
		cmd.Use = "resume NAME..."
		cmd.Short = "Have deliveries to Triggers' subscribers begin again"
		cmd.Long = `resume has deliveries to the subscribers of paused Triggers begin again, with what has waited. To resume what is not paused changes
nothing.

In a cluster this removes the annotation ` + eventingv1.PausedAnnotation + ` with your own rights to the Trigger. In millrace dev it undoes a pause by
hand; where the manifest has the annotation, the Trigger is resumed against it until millrace dev ends or the annotation is gone.`
		cmd.Example = "  millrace trigger resume billing\n  millrace trigger resume billing audit -n shop --context prod"
	}
	cmd.RunE = runE(func(cmd *cobra.Command, args []string) error {
		err := f.run(cmd, args)
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted; `millrace trigger ls` shows which Triggers are paused")
		}
		return f.explain(err)
	})
	f.changes = true
	f.registerWay(cmd, "name")
	cmd.Flags().DurationVar(&f.wait, "wait", 30*time.Second, "in a cluster, wait so long for every filter to hold to it; 0 does not wait")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = f.completeNames
	return cmd
}

func (f *triggerPauseFlags) run(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageErrorf("say which Triggers: give their names, as NAME or NAMESPACE/NAME")
	case f.wait < 0:
		return usageErrorf("--wait cannot be negative")
	}
	for _, arg := range args {
		if parts := strings.Split(arg, "/"); len(parts) > 2 || slices.Contains(parts, "") {
			return usageErrorf("%q is no Trigger; write NAME or NAMESPACE/NAME", arg)
		}
	}
	in, err := f.way(cmd)
	if err != nil {
		return err
	}
	var done []triggerPause
	if in == nil {
		done, err = f.inDevMode(cmd.Context(), args)
	} else {
		done, err = f.inCluster(cmd.Context(), in, args)
	}
	return errors.Join(f.show(cmd.OutOrStdout(), done), err)
}

// name completes the name of a Trigger, which may look like a UID.
func (f *triggerPauseFlags) name(arg string) string {
	if strings.Contains(arg, "/") {
		return arg
	}
	return f.home + "/" + arg
}

func (f *triggerPauseFlags) inDevMode(ctx context.Context, args []string) (done []triggerPause, _ error) {
	c, err := f.ofURL()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, arg := range args {
		state, err := c.Pause(ctx, f.name(arg), f.pause)
		if err != nil {
			errs = append(errs, f.explain(err))
			continue
		}
		done = append(done, triggerPause{PauseState: state, Confirmed: true})
	}
	return done, errors.Join(errs...)
}

func (f *triggerPauseFlags) inCluster(ctx context.Context, in *cluster.Cluster, args []string) (done []triggerPause, _ error) {
	triggers, err := in.Triggers()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, arg := range args {
		name := f.name(arg)
		namespace, short, _ := strings.Cut(name, "/")
		changed, err := triggers.Pause(ctx, namespace, short, f.pause)
		if err != nil {
			errs = append(errs, explainNoTrigger(err))
			continue
		}
		done = append(done, triggerPause{PauseState: adminapi.PauseState{Trigger: name, Paused: f.pause, Changed: changed}})
	}
	if f.wait == 0 || ctx.Err() != nil {
		return done, errors.Join(errs...)
	}
	waiting, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	for i := range done {
		namespace, short, _ := strings.Cut(done[i].Trigger, "/")
		if err := triggers.Wait(waiting, namespace, short, f.pause); err != nil {
			errs = append(errs, fmt.Errorf("the annotation of Trigger %s is as asked, but after %s filters are not known to hold to it: %w", done[i].Trigger, f.wait, explainNoTrigger(err)))
			continue
		}
		done[i].Confirmed = true
	}
	return done, errors.Join(append(errs, ctx.Err())...)
}

// explainNoTrigger says which Triggers there are instead.
func explainNoTrigger(err error) error {
	var missing *cluster.NoTriggerError
	if !errors.As(err, &missing) {
		return err
	}
	others := missing.Others
	switch {
	case len(others) == 0:
		return fmt.Errorf("%w, nor any other in that namespace; name another with --%s", err, namespaceFlag)
	case len(others) > maxOthers:
		others = append(others[:maxOthers:maxOthers], "others")
	}
	return fmt.Errorf("%w; there are %s", err, strings.Join(others, ", "))
}

func (f *triggerPauseFlags) show(w io.Writer, done []triggerPause) error {
	switch {
	case len(done) == 0:
		return nil
	case f.output == "name":
		names := make([]string, len(done))
		for i := range done {
			names[i] = done[i].Trigger
		}
		return printNames(w, names)
	}
	return f.print(w, done, func(w io.Writer) error {
		for i := range done {
			if _, err := fmt.Fprintln(w, done[i].sentence()); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		return nil
	})
}

// sentence says it for people.
func (p *triggerPause) sentence() string {
	what, when := "resumed", "deliveries begin again."
	if p.Paused {
		what, when = "paused", "no delivery begins, and what matches waits."
	}
	if !p.Confirmed {
		when = "filters follow as soon as they see the annotation."
	}
	text := fmt.Sprintf("Trigger %s is %s: %s", p.Trigger, what, when)
	if !p.Changed {
		text = fmt.Sprintf("Trigger %s was %s already.", p.Trigger, what)
		if !p.Paused {
			text = fmt.Sprintf("Trigger %s was not paused.", p.Trigger)
		}
	}
	switch {
	case p.Override && p.Paused:
		text += fmt.Sprintf("\nThis holds until millrace dev ends. To keep it, write the annotation %s: \"true\" into the file.", eventingv1.PausedAnnotation)
	case p.Override:
		text += fmt.Sprintf("\nThis holds until millrace dev ends, against the file. To keep it, remove the annotation %s from the file.", eventingv1.PausedAnnotation)
	}
	return text
}

// completeNames offers the Triggers that are not as they are to be.
func (f *triggerPauseFlags) completeNames(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return f.offer(cmd, toComplete, func(ctx context.Context) (words []cobra.Completion, _ error) {
		add := func(name, broker string, paused bool) {
			if paused != f.pause && !slices.Contains(args, name) {
				words = append(words, cobra.CompletionWithDesc(name, "of "+broker))
			}
		}
		in, err := f.way(cmd)
		if err != nil {
			return nil, err
		}
		if in == nil {
			c, err := f.ofURL()
			if err != nil {
				return nil, err
			}
			stats, err := c.Stats(ctx)
			for _, t := range stats.Triggers {
				add(t.Trigger, t.Broker, t.Paused)
			}
			return words, err
		}
		triggers, err := in.Triggers()
		if err != nil {
			return nil, err
		}
		all, err := triggers.List(ctx, in.Namespace)
		for _, t := range all {
			add(t.Name, t.Spec.Broker, t.Paused())
		}
		return words, err
	})
}
