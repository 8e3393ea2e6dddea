package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/cli/eventfile"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/trigger"
)

func newTriggerCommand() *cobra.Command {
	cmd := newGroup(&cobra.Command{
		Use:   "trigger",
		Short: "Work with Triggers",
	})
	cmd.AddCommand(newTriggerListCommand(), newTriggerPauseCommand(true), newTriggerPauseCommand(false), newTriggerTestCommand())
	return cmd
}

// What --expect takes.
const (
	expectMatch   = "match"
	expectNoMatch = "no-match"
	expectAny     = "any"
)

type triggerTestFlags struct {
	manifests []string
	events    []string
	triggers  []string
	expect    string
	output    string
	quiet     bool
}

func newTriggerTestCommand() *cobra.Command {
	var flags triggerTestFlags
	cmd := &cobra.Command{
		Use:   "test -f MANIFEST --event EVENT",
		Short: "Tell whether Triggers match events, and if not, why",
		Long: "test evaluates the filters of the Triggers in the manifests for every event, with the code that routes events\n" +
			"in a cluster, and shows which part of a filter an event failed and the values it had.\n\n" +
			"Event files hold events in the CloudEvents JSON format: one, an array, or one a line.\n" +
			"Exit codes: 0 every outcome is as expected, 3 some is not, 1 a manifest or an event has mistakes, 2 wrong usage.",
		Example: "  millrace trigger test -f triggers.yaml --event event.json\n" +
			"  millrace trigger test -f config/ --event events.ndjson --trigger default/gifts --expect any\n" +
			"  kubectl get triggers -A -o json | millrace trigger test -f - --event event.json -o json",
		Args: cobra.ArbitraryArgs, // for RunE to say what to write instead
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("manifests are named with -f and events with --event: write -f %s or --event %s", args[0], args[0])
			}
			if err := flags.validate(); err != nil {
				return err
			}
			return flags.run(cmd)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVarP(&flags.manifests, "filename", "f", nil, "file or folder of manifests; - is standard input; may be repeated")
	f.StringArrayVar(&flags.events, "event", nil, "file of events; - is standard input; may be repeated")
	f.StringArrayVar(&flags.triggers, "trigger", nil, "test only the Trigger `namespace/name`; may be repeated")
	f.StringVar(&flags.expect, "expect", expectMatch, "outcome that makes the exit code 0: match, no-match or any")
	f.StringVarP(&flags.output, "output", "o", "", "for programs: json or yaml prints a document, name the Triggers that match an event")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "print only the outcomes, not the reasons")
	registerCompletions(cmd, map[string]completion{
		"output":  cobra.FixedCompletions(scriptFormats(), cobra.ShellCompDirectiveNoFileComp),
		"expect":  cobra.FixedCompletions([]string{expectMatch, expectNoMatch, expectAny}, cobra.ShellCompDirectiveNoFileComp),
		"trigger": flags.completeTriggers,
	})
	return cmd
}

func (f *triggerTestFlags) validate() error {
	switch {
	case len(f.manifests) == 0:
		return usageErrorf("name the manifests with -f, such as -f triggers.yaml")
	case len(f.events) == 0:
		return usageErrorf("name a file of events with --event, such as --event event.json")
	case slices.Contains(f.manifests, "-") && slices.Contains(f.events, eventfile.Stdin):
		return usageErrorf("manifests and events cannot both come from standard input")
	case !slices.Contains([]string{expectMatch, expectNoMatch, expectAny}, f.expect):
		return usageErrorf("--expect is match, no-match or any, not %q", f.expect)
	case f.output != "" && !slices.Contains(scriptFormats(), f.output):
		return usageErrorf("--output %q is not known; write %s, or leave it out", f.output, anyOf(scriptFormats()))
	}
	return nil
}

func (f *triggerTestFlags) run(cmd *cobra.Command) error {
	report, err := f.test(cmd.InOrStdin())
	if err != nil {
		return err
	}
	if err := f.print(cmd, report); err != nil {
		return err
	}
	switch {
	case len(report.Problems) > 0:
		return silently(ExitFailure)
	case !report.expected(f.expect):
		return silently(ExitMismatch)
	}
	return nil
}

func (f *triggerTestFlags) print(cmd *cobra.Command, report *testReport) error {
	switch f.output {
	case "json":
		return printJSON(cmd.OutOrStdout(), report)
	case "yaml":
		return printYAML(cmd.OutOrStdout(), report)
	}
	style := terminal.StyleFor(cmd.ErrOrStderr())
	for _, p := range report.Problems {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", style.Bad("Error:"), terminal.Safe(p))
	}
	if f.output == "name" {
		return printNames(cmd.OutOrStdout(), report.matching())
	}
	return report.writeText(cmd.OutOrStdout(), terminal.StyleFor(cmd.OutOrStdout()), f.quiet)
}

// test evaluates every Trigger for every event.
func (f *triggerTestFlags) test(stdin io.Reader) (*testReport, error) {
	set, err := objects.Load(f.manifests)
	if err != nil {
		return nil, err
	}
	report := &testReport{Results: []testResult{}}
	for _, p := range set.Problems {
		report.Problems = append(report.Problems, p.String())
	}
	filters, err := f.compile(set, report)
	if err != nil {
		return nil, err
	}
	for _, name := range f.events {
		for item := range eventfile.Open(name, stdin) {
			err := item.Err
			if err == nil {
				err = admit(item)
			}
			if err != nil {
				report.Problems = append(report.Problems, err.Error())
				continue
			}
			report.add(filters, item.Event)
		}
	}
	return report, nil
}

// admit gives the event the attributes that filters see because a Broker adds them.
func admit(item eventfile.Item) error {
	if err := event.Admit(item.Event, time.Now()); err != nil {
		return &eventfile.Error{File: item.File, Line: item.Line, Err: err}
	}
	return nil
}

// namedFilter is the filter of one Trigger.
type namedFilter struct {
	name   string // namespace/name
	filter *trigger.Filter
}

// compile returns the filters of the chosen Triggers. Mistakes in filters go to the report.
func (f *triggerTestFlags) compile(set *objects.Set, report *testReport) ([]namedFilter, error) {
	chosen, err := f.choose(set.Triggers, report)
	if err != nil {
		return nil, err
	}
	compiler, err := trigger.NewCompiler()
	if err != nil {
		return nil, err
	}
	var filters []namedFilter
	for _, t := range chosen {
		filter, errs := compiler.Compile(t)
		key := objects.Key{Kind: "Trigger", Namespace: t.Namespace, Name: t.Name}
		for _, p := range set.Explain(key, errs) {
			report.Problems = append(report.Problems, p.String())
		}
		if len(errs) == 0 {
			filters = append(filters, namedFilter{name: t.Namespace + "/" + t.Name, filter: filter})
		}
	}
	return filters, nil
}

// choose returns the Triggers that --trigger names, or all of them.
func (f *triggerTestFlags) choose(all []*eventingv1.Trigger, report *testReport) ([]*eventingv1.Trigger, error) {
	var names []string
	for _, t := range all {
		names = append(names, t.Namespace+"/"+t.Name)
	}
	if len(f.triggers) == 0 {
		if len(all) == 0 && len(report.Problems) == 0 {
			return nil, fmt.Errorf("there is no Trigger in %s", strings.Join(f.manifests, ", "))
		}
		return all, nil
	}
	var chosen []*eventingv1.Trigger
	for _, name := range f.triggers {
		if !strings.Contains(name, "/") {
			name = "default/" + name
		}
		i := slices.Index(names, name)
		if i < 0 {
			report.Problems = append(report.Problems, unknownTrigger(name, names))
			continue
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// completeTriggers offers the Triggers of the manifests named so far. Standard input is left to the command.
func (f *triggerTestFlags) completeTriggers(_ *cobra.Command, _ []string, toComplete string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
	if slices.Contains(f.manifests, "-") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	set, err := objects.Load(f.manifests)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, t := range set.Triggers {
		if name := t.Namespace + "/" + t.Name; strings.HasPrefix(name, toComplete) {
			words = append(words, cobra.CompletionWithDesc(name, "of "+t.Spec.Broker))
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func unknownTrigger(name string, names []string) string {
	if len(names) == 0 {
		return fmt.Sprintf("there is no Trigger %s, nor any other that is sound", name)
	}
	return fmt.Sprintf("there is no Trigger %s; there are %s", name, strings.Join(names, ", "))
}

// testReport is the outcome of a test, and the JSON document that the command prints.
type testReport struct {
	// Results are in the order of events, then of Triggers.
	Results []testResult `json:"results"`
	// Problems are the mistakes in manifests and events; what has one is not tested.
	Problems []string `json:"problems,omitempty"`
}

type testResult struct {
	Trigger string    `json:"trigger"`
	Event   testEvent `json:"event"`
	Matched bool      `json:"matched"`
	// Failures are the parts of the filter to blame, Explanation is all of it.
	Failures    []trigger.Explanation `json:"failures,omitempty"`
	Explanation trigger.Explanation   `json:"explanation"`
}

type testEvent struct {
	ID     string `json:"id"`
	Source string `json:"source"`
	Type   string `json:"type"`
}

func (r *testReport) add(filters []namedFilter, e *event.Event) {
	in := trigger.NewInput(e)
	for _, f := range filters {
		in.Reset(e) // The time that CEL may take is an event's; a test has no reason to let filters compete for it.
		x := f.filter.Explain(in)
		r.Results = append(r.Results, testResult{
			Trigger:     f.name,
			Event:       testEvent{ID: e.Value(event.ID), Source: e.Value(event.Source), Type: e.Value(event.Type)},
			Matched:     x.Matched,
			Failures:    x.Failures(),
			Explanation: x,
		})
	}
}

// matching are the Triggers that match one of the events at least, in order.
func (r *testReport) matching() []string {
	var names []string
	for _, result := range r.Results {
		if result.Matched && !slices.Contains(names, result.Trigger) {
			names = append(names, result.Trigger)
		}
	}
	return names
}

// expected says whether all results are as the flag --expect wants them.
func (r *testReport) expected(expect string) bool {
	for _, result := range r.Results {
		if expect == expectMatch && !result.Matched || expect == expectNoMatch && result.Matched {
			return false
		}
	}
	return true
}
