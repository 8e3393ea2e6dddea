package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli/terminal"
)

// The control sequences of ECMA-48 that redraw a page without flicker.
const (
	clearScreen = "\x1b[2J"
	cursorHome  = "\x1b[H"
	clearRest   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// minInterval keeps a command from being a load.
const minInterval = 200 * time.Millisecond

type topFlags struct {
	watchFlags
	interval time.Duration
	count    int
}

func newTopCommand() *cobra.Command {
	f := &topFlags{}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show rates, backlogs and errors of Brokers and Triggers",
		Long: `top shows what each Broker and Trigger does a second, what waits and what fails, the busiest Trigger first, and refreshes it until
it is stopped. Where the output is no terminal it prints once, after one interval; --count prints more often. The figures of
Brokers and backlogs hold for all processes, the rates of Triggers for the process that is asked; in a cluster all ready filters are
asked, and their rates are added up.`,
		Example: "  millrace top\n  millrace top --interval 5s --count 3 -o json",
		Args:    cobra.NoArgs,
	}
	cmd.RunE = runE(func(cmd *cobra.Command, _ []string) error { return f.explain(f.run(cmd)) })
	f.register(cmd, "name")
	cmd.Flags().DurationVar(&f.interval, "interval", 2*time.Second, "time between two looks, over which rates are taken")
	cmd.Flags().IntVar(&f.count, "count", 0, "end after `N` looks; 0 is one, or no end on a terminal")
	f.completeFlags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (f *topFlags) run(cmd *cobra.Command) error {
	if f.interval < minInterval {
		return usageErrorf("--interval must be at least %s", minInterval)
	}
	if f.count < 0 {
		return usageErrorf("--count cannot be negative")
	}
	clients, filters, err := f.clients(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	live := terminal.Interactive(out) && f.output == "table"
	if f.count == 0 && !live {
		f.count = 1
	}
	before, err := look(cmd.Context(), clients)
	if err != nil {
		return err
	}
	if live {
		fmt.Fprint(out, clearScreen)
	}
	for n := 0; f.count == 0 || n < f.count; n++ {
		if err := pause(cmd.Context(), f.interval); err != nil {
			return err
		}
		now, err := look(cmd.Context(), clients)
		if err != nil {
			return err
		}
		r := newTopReport(before, now)
		r.Silent = filters - r.Filters
		before = now
		if f.output == "name" {
			return printNames(out, r.names())
		}
		if err := f.print(out, r, func(w io.Writer) error { return r.write(w, terminal.StyleFor(out), live) }); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// look asks all at once. What one of them does not answer is nil; that none does is an error.
func look(ctx context.Context, clients []*adminapi.Client) ([]*adminapi.Stats, error) {
	all, errs := make([]*adminapi.Stats, len(clients)), make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			stats, err := c.Stats(ctx)
			if errs[i] = err; err == nil {
				all[i] = &stats
			}
		})
	}
	wg.Wait()
	if slices.Contains(errs, nil) {
		return all, nil
	}
	return nil, errs[0]
}

// topReport is what happened between two looks.
type topReport struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	// Filters is how many processes were asked and answered, Silent how many others there are.
	Filters  int          `json:"filters"`
	Silent   int          `json:"silent,omitempty"`
	Brokers  []topBroker  `json:"brokers"`
	Triggers []topTrigger `json:"triggers"`
}

type topBroker struct {
	adminapi.BrokerCounts
	// StoredRate is how many events were accepted a second.
	StoredRate float64 `json:"storedRate"`
}

type topTrigger struct {
	adminapi.TriggerCounts
	// The rates are those a second.
	MatchedRate   float64 `json:"matchedRate"`
	DeliveredRate float64 `json:"deliveredRate"`
	FailedRate    float64 `json:"failedRate"`
}

// newTopReport adds up what each process did between two looks. Of one that is nil in either nothing is known.
func newTopReport(before, now []*adminapi.Stats) topReport {
	r := topReport{Brokers: []topBroker{}, Triggers: []topTrigger{}}
	triggers := map[[2]string]int{} // where it is in r
	for i, n := range now {
		if n == nil {
			continue
		}
		was := before[i]
		if was == nil {
			was = n
		}
		p := newProcessReport(was, n)
		if r.Filters++; r.Filters == 1 || r.Seconds == 0 { // Brokers are the same for all who have looked twice
			r.At, r.Seconds, r.Brokers = p.At, p.Seconds, p.Brokers
		}
		for k := range p.Triggers {
			t := &p.Triggers[k]
			key := [2]string{t.Broker, t.Trigger}
			at, known := triggers[key]
			if !known {
				triggers[key] = len(r.Triggers)
				r.Triggers = append(r.Triggers, *t)
				continue
			}
			r.Triggers[at].add(t)
		}
	}
	slices.SortStableFunc(r.Triggers, func(x, y topTrigger) int { return cmp.Compare(y.MatchedRate, x.MatchedRate) })
	return r
}

// add adds what another process did for the same Trigger.
func (t *topTrigger) add(o *topTrigger) {
	if t.Ready && !o.Ready {
		t.Ready, t.Reason = false, o.Reason
	}
	t.Matched, t.Attempts, t.Failed = t.Matched+o.Matched, t.Attempts+o.Attempts, t.Failed+o.Failed
	t.Delivered, t.DeadLettered, t.Parked = t.Delivered+o.Delivered, t.DeadLettered+o.DeadLettered, t.Parked+o.Parked
	t.Active, t.Queued, t.Width = t.Active+o.Active, t.Queued+o.Queued, t.Width+o.Width
	t.MatchedRate, t.DeliveredRate, t.FailedRate = t.MatchedRate+o.MatchedRate, t.DeliveredRate+o.DeliveredRate, t.FailedRate+o.FailedRate
	t.Down, t.Paused = t.Down || o.Down, t.Paused || o.Paused
	t.Waiting = max(t.Waiting, o.Waiting) // of all processes, as each has seen it last
	if o.Oldest != nil && (t.Oldest == nil || o.Oldest.Before(*t.Oldest)) {
		t.Oldest = o.Oldest
	}
}

// newProcessReport is what one process did between two looks.
func newProcessReport(before, now *adminapi.Stats) topReport {
	r := topReport{At: now.At, Seconds: now.At.Sub(before.At).Seconds(), Brokers: []topBroker{}, Triggers: []topTrigger{}}
	// A count that fell is one of a process that began anew.
	rate := func(from, to uint64) float64 {
		if to < from {
			from = 0
		}
		return float64(to-from) / max(r.Seconds, 0.001)
	}
	brokers := map[string]adminapi.BrokerCounts{}
	for _, b := range before.Brokers {
		brokers[b.Broker] = b
	}
	for _, b := range now.Brokers {
		was, known := brokers[b.Broker]
		if !known {
			was = b
		}
		r.Brokers = append(r.Brokers, topBroker{BrokerCounts: b, StoredRate: rate(was.Stored, b.Stored)})
	}
	triggers := map[[2]string]adminapi.TriggerCounts{}
	for _, t := range before.Triggers {
		triggers[[2]string{t.Broker, t.Trigger}] = t
	}
	for _, t := range now.Triggers {
		was, known := triggers[[2]string{t.Broker, t.Trigger}]
		if !known {
			was = t
		}
		r.Triggers = append(r.Triggers, topTrigger{
			TriggerCounts: t, MatchedRate: rate(was.Matched, t.Matched), DeliveredRate: rate(was.Delivered, t.Delivered),
			FailedRate: rate(was.Failed, t.Failed),
		})
	}
	return r
}

// names are those of the Triggers.
func (r *topReport) names() []string {
	names := make([]string, len(r.Triggers))
	for i := range r.Triggers {
		names[i] = r.Triggers[i].Trigger
	}
	return names
}

func (r *topReport) write(w io.Writer, style terminal.Style, live bool) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, over %.1f s", r.At.Local().Format(timeLayout), r.Seconds)
	switch {
	case r.Silent > 0:
		fmt.Fprintf(&b, ", %d of %d filters: the others were not asked or do not answer", r.Filters, r.Filters+r.Silent)
	case r.Filters > 1:
		fmt.Fprintf(&b, ", %d filters", r.Filters)
	}
	b.WriteString("\n\n")
	t := newTable(&b)
	row(t, "BROKER", "IN/S", "UNSETTLED", "OLDEST", "RETRYING", "PARKED")
	for _, x := range r.Brokers {
		oldest := "-"
		if x.Oldest != nil {
			oldest = age(r.At.Sub(*x.Oldest))
		}
		row(t, x.Broker, perSecond(x.StoredRate), count(x.Unsettled), oldest, count(x.Retrying), count(x.Parked))
	}
	_ = t.Flush() // it goes to memory
	fmt.Fprintln(&b)
	t = newTable(&b)
	row(t, "TRIGGER", "BROKER", "MATCHED/S", "OK/S", "FAILED/S", "BACKLOG", "ACTIVE", "EVER PARKED", "STATE")
	for _, x := range r.Triggers {
		row(t, x.Trigger, x.Broker, perSecond(x.MatchedRate), perSecond(x.DeliveredRate), perSecond(x.FailedRate), count(x.Waiting),
			fmt.Sprintf("%d of %d", x.Active, x.Width), count(x.Parked), x.state())
	}
	_ = t.Flush()
	text := paintStates(b.String(), style)
	if live {
		text = cursorHome + strings.ReplaceAll(text, "\n", clearRest+"\n") + clearBelow
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// paintStates paints the last column, once its place is known, which colors must not count for.
func paintStates(text string, style terminal.Style) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		for state, paint := range map[string]func(string) string{"down": style.Bad, "failing": style.Bad, "behind": style.Hint, "paused": style.Hint} {
			if rest, ok := strings.CutSuffix(line, "  "+state); ok {
				lines[i] = rest + "  " + paint(state)
			}
		}
	}
	return strings.Join(lines, "\n")
}

// state says in a word how a Trigger is.
func (t *topTrigger) state() string {
	switch {
	case !t.Ready:
		return "not ready: " + orDash(t.Reason)
	case t.Paused:
		return "paused"
	case t.Down:
		return "down"
	case t.FailedRate > t.DeliveredRate:
		return "failing"
	case t.Waiting > 0:
		return "behind"
	default:
		return "ok"
	}
}

func perSecond(rate float64) string {
	if rate > 0 && rate < 10 {
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return strconv.FormatFloat(rate, 'f', 0, 64)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }
