package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/cluster"
	"millrace.dev/internal/cli/terminal"
	"millrace.dev/internal/cmdline"
)

// A completion must not hold up a shell: it has completeTimeout, and offers completeEvents events at most.
const (
	completeTimeout = 3 * time.Second
	completeEvents  = 100
)

// completion is what a shell offers, as cobra wants it.
type completion = func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective)

// complete makes a completion of what the admin API has, which is asked with the flags of the command line so far. Nothing is
// offered where it cannot be asked.
func (f *adminFlags) complete(list func(ctx context.Context, c *adminapi.Client, args []string) ([]cobra.Completion, error)) completion {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return f.offer(cmd, toComplete, func(ctx context.Context) ([]cobra.Completion, error) {
			c, err := f.client(cmd)
			if err != nil {
				return nil, err
			}
			return list(ctx, c, args)
		})
	}
}

// offer completes a word with what list returns, whose time is bounded.
func (f *adminFlags) offer(cmd *cobra.Command, toComplete string,
	list func(context.Context) ([]cobra.Completion, error),
) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	cmd.SetContext(ctx)
	f.output, f.changes = f.formats[0], false // a word not yet written must not keep others from being offered
	found, err := list(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found = slices.DeleteFunc(found, func(word string) bool {
		word, about, _ := strings.Cut(word, "\t")
		return !strings.HasPrefix(word, toComplete) || terminal.Safe(word) != word || terminal.Safe(about) != about
	})
	return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// registerCompletions adds completions to flags of these names; of those that the command does not have none.
func registerCompletions(cmd *cobra.Command, by map[string]completion) {
	for name, c := range by {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, c) // fails for a flag that is not there
		}
	}
}

// completeFlags has a shell offer Brokers, Triggers, sequences and formats as values of flags.
func (f *adminFlags) completeFlags(cmd *cobra.Command) {
	registerCompletions(cmd, map[string]completion{
		"broker":  f.complete(brokerWords),
		"trigger": f.complete(triggerWords),
		"seq":     f.complete(sequenceWords),
		contextFlag: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return cluster.Contexts(f.kube), cobra.ShellCompDirectiveNoFileComp
		},
		"output": cobra.FixedCompletions(f.formats, cobra.ShellCompDirectiveNoFileComp),
	})
}

// brokerWords are the Brokers, with what is parked for each.
func brokerWords(ctx context.Context, c *adminapi.Client, _ []string) ([]cobra.Completion, error) {
	infos, err := c.Brokers(ctx)
	words := make([]cobra.Completion, len(infos))
	for i, b := range infos {
		words[i] = cobra.CompletionWithDesc(b.Namespace+"/"+b.Name, fmt.Sprintf("%d parked", b.Parked))
	}
	return words, err
}

// triggerWords are the Triggers, with the Broker of each.
func triggerWords(ctx context.Context, c *adminapi.Client, _ []string) ([]cobra.Completion, error) {
	stats, err := c.Stats(ctx)
	words := make([]cobra.Completion, len(stats.Triggers))
	for i, t := range stats.Triggers {
		words[i] = cobra.CompletionWithDesc(t.Trigger, "of "+t.Broker)
	}
	return words, err
}

// sequenceWords are the sequences of the newest parked events of the Broker among the arguments, or of the only one.
func sequenceWords(ctx context.Context, c *adminapi.Client, args []string) ([]cobra.Completion, error) {
	return parkedWords(ctx, c, args, func(i *adminapi.Item) cobra.Completion {
		return cobra.CompletionWithDesc(strconv.FormatUint(i.Sequence, 10), orDash(i.ID)+" of "+triggerLabel(i.Trigger, i.TriggerUID))
	})
}

// idWords are the ids of parked events: those that people ask about most.
func idWords(ctx context.Context, c *adminapi.Client, args []string) ([]cobra.Completion, error) {
	words, err := parkedWords(ctx, c, args, func(i *adminapi.Item) cobra.Completion {
		return cobra.CompletionWithDesc(i.ID, "parked for "+triggerLabel(i.Trigger, i.TriggerUID))
	})
	return slices.DeleteFunc(words, func(word string) bool { return strings.HasPrefix(word, "\t") }), err // of no event
}

func parkedWords(ctx context.Context, c *adminapi.Client, args []string, word func(*adminapi.Item) cobra.Completion) ([]cobra.Completion, error) {
	names, err := brokers(ctx, c, "")
	if err != nil {
		return nil, err
	}
	for _, arg := range args {
		if slices.Contains(names, arg) {
			names = []string{arg}
		}
	}
	var words []cobra.Completion
	for _, name := range names {
		page, err := c.Events(ctx, name, adminapi.Selection{Limit: completeEvents}, 0)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			words = append(words, word(&page.Items[i]))
		}
		if len(words) >= completeEvents {
			break
		}
	}
	return words, nil
}

// completeURLs offers the addresses of the Brokers of millrace dev. Those of a cluster lead nowhere from here.
func completeURLs(cmd *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	f := &adminFlags{adminURL: cmp.Or(os.Getenv(cmdline.EnvName(adminURLFlag)), devURL), formats: []string{""}}
	return f.offer(cmd, toComplete, func(ctx context.Context) (words []cobra.Completion, _ error) {
		c, err := f.ofURL()
		if err != nil {
			return nil, err
		}
		infos, err := c.Brokers(ctx)
		for _, b := range infos {
			if b.URL != "" {
				words = append(words, cobra.CompletionWithDesc(b.URL, "Broker "+b.Namespace+"/"+b.Name))
			}
		}
		return words, err
	})
}

// upTo offers words for the first n arguments only.
func upTo(n int, c completion) completion {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c(cmd, args, toComplete)
	}
}
