package chaos

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// report is what a run found.
type report struct {
	Config  config
	Rerun   string
	Took    time.Duration
	Settled time.Duration // after the last fault, until every event had met its fate
	Verdict *verdict
}

// write prints the report and, if asked to, writes it to files.
func (r *report) write(t testing.TB) {
	t.Helper()
	text := r.markdown()
	t.Log("\n" + text)
	if r.Config.Report == "" {
		return
	}
	doc, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"report.md": []byte(text), "report.json": doc} {
		if err := os.WriteFile(filepath.Join(r.Config.Report, name), content, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	v := r.Verdict
	fmt.Fprintf(&b, "# Chaos: %d lost, %d repeated, %d mistakes\n\n", v.Lost, v.Duplicates, len(v.Mistakes))
	fmt.Fprintf(&b, "`%s` took %s; every event had met its fate %s after the last fault.\n\n", r.Rerun, r.Took.Round(time.Second), r.Settled.Round(100*time.Millisecond))
	fmt.Fprintf(&b, "Events: %d posted, %d accepted, %d not confirmed, of which %d were stored all the same.\n", v.Posted, v.Accepted, v.Unknown, v.UnknownStored)
	fmt.Fprintf(&b, "Longest time without a 202: %s; without a delivery: %s.\n\n", v.LongestAckGap.Round(time.Millisecond), v.LongestDeliveryGap.Round(time.Millisecond))
	b.WriteString("| trigger | matched | delivered | dead-lettered | parked | lost | requests | repeated | dead letters repeated | parked repeated |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, a := range v.Accounts {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d |\n", a.Role, a.Matched, a.Delivered, a.DeadLettered,
			a.Parked, a.Lost, a.Requests, a.Repeated, a.DeadLettersRepeated, a.ParkedRepeated)
	}
	b.WriteString("\n| fault | times | repeated |\n|---|---|---|\n")
	kinds := maps.Clone(v.Faults)
	for kind := range v.DuplicatesBy {
		kinds[kind] += 0
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", kind, v.Faults[kind], v.DuplicatesBy[kind])
	}
	b.WriteString("\n| answer to a producer | requests |\n|---|---|\n")
	for _, status := range slices.Sorted(maps.Keys(v.Answers)) {
		fmt.Fprintf(&b, "| %d | %d |\n", status, v.Answers[status])
	}
	for i, m := range v.Mistakes {
		if i == 0 {
			b.WriteString("\nMistakes:\n\n")
		}
		if i == 30 {
			fmt.Fprintf(&b, "- and %d more\n", len(v.Mistakes)-i)
			break
		}
		fmt.Fprintf(&b, "- %s\n", m)
	}
	return b.String()
}
