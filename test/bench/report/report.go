// Package report holds the figures of a benchmark beside their goals, and writes them as text for people and as JSON.
package report

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Report is what one run found.
type Report struct {
	// Date, Mode, Command and Machine say when, how and where.
	Date    time.Time `json:"date"`
	Mode    string    `json:"mode"`
	Command string    `json:"command"`
	Machine string    `json:"machine"`
	// Versions of what took part.
	Versions string `json:"versions"`
	// Took is how long the run lasted, in seconds.
	Took float64 `json:"took_seconds"`
	// Others is, for each slice, the part of the machine in percent that programs had which are no part of the benchmark.
	Others  []float64 `json:"others_percent"`
	Figures []Figure  `json:"figures"`
	// Accounts tell of each ledger what it counted.
	Accounts []string `json:"accounts"`
}

// Figure is one measured value.
type Figure struct {
	Scenario string `json:"scenario"`
	Name     string `json:"name"`
	Unit     string `json:"unit"`
	// Value is the median of the Samples.
	Value   float64   `json:"value"`
	Samples []float64 `json:"samples"`
	Goal    *Goal     `json:"goal,omitempty"`
	// Note says what else one should know.
	Note string `json:"note,omitempty"`
}

// Goal is a bound on a figure.
type Goal struct {
	AtMost bool    `json:"at_most"`
	Limit  float64 `json:"limit"`
}

// AtLeast is the goal of a figure that should be high.
func AtLeast(limit float64) *Goal { return &Goal{Limit: limit} }

// AtMost is the goal of a figure that should be low.
func AtMost(limit float64) *Goal { return &Goal{AtMost: true, Limit: limit} }

// Met says whether the value reaches the goal.
func (g Goal) Met(value float64) bool {
	if g.AtMost {
		return value <= g.Limit
	}
	return value >= g.Limit
}

func (g Goal) text(unit string) string {
	if g.AtMost {
		return "≤ " + format(g.Limit, unit)
	}
	return "≥ " + format(g.Limit, unit)
}

// Add adds figures. The value of each is the median of its samples.
func (r *Report) Add(figures ...Figure) {
	for _, f := range figures {
		f.Value = Median(f.Samples)
		r.Figures = append(r.Figures, f)
	}
}

// Median is the value in the middle, or the mean of the two in the middle; NaN of none.
func Median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if len(s) == 0 {
		return math.NaN()
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// JSON returns the report for programs.
func (r *Report) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return append(text, '\n'), nil
}

// Markdown returns the report for people.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\nWritten by `%s` on %s; do not edit.\n\n", r.Command, r.Date.UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(&b, "- Machine: %s\n- Versions: %s\n- Mode: %s, %.0f s\n", r.Machine, r.Versions, r.Mode, r.Took)
	if len(r.Others) > 0 {
		fmt.Fprintf(&b, "- Programs that are no part of the benchmark had %.0f %% of the machine in the median slice, at most %.0f %%\n",
			Median(r.Others), slices.Max(r.Others))
	}
	b.WriteString(conditions)
	b.WriteString("\n| scenario | figure | goal | measured | met | lowest – highest |\n|---|---|---|---|---|---|\n")
	for _, f := range r.Figures {
		goal, met := "", ""
		if f.Goal != nil {
			goal, met = f.Goal.text(f.Unit), map[bool]string{true: "yes", false: "**no**"}[f.Goal.Met(f.Value)]
		}
		name := f.Name
		if f.Note != "" {
			name += " (" + f.Note + ")"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.Scenario, name, goal, format(f.Value, f.Unit), met, f.spread())
	}
	b.WriteString("\n## What the ledgers counted\n\n")
	for _, a := range r.Accounts {
		fmt.Fprintf(&b, "- %s\n", a)
	}
	return b.String()
}

const conditions = `- All on the loopback interface of this machine: client, subscribers, baseline, Millrace and nats-server share its cores. NATS stores
  in files. Events carry 1 KiB of JSON over 64 connections of HTTP/1.1. A figure is the median of several slices; what is compared takes
  turns, or is loaded at the same time where it says so, and a ratio is the median of those of neighboring slices. Times of the machine vary; ratios
  vary less, and least those of what is loaded at the same time. "Chance" compares programs that are alike.
- Processor time is that of all broker processes, NATS included, divided by the events, or by the deliveries where it says so. The
  client's and the subscribers' is not in it.
- "bare" is a net/http handler in a process of its own that publishes the same message asynchronously to a stream of the same settings and
  answers 202 after its ack. It checks nothing. Goals in events a second and in µs were set where it stored 35,700 events a second at 28 µs
  each; where it is slower, what counts is the ratio to it, whose goal is that of the two figures.
- Latency counts from when an event was due to be sent until the subscriber has it, so that a stall counts for all that it holds up.
- The run fails if a ledger misses an event, or has one twice.
`

func (f Figure) spread() string {
	if len(f.Samples) < 2 {
		return ""
	}
	return format(slices.Min(f.Samples), f.Unit) + " – " + format(slices.Max(f.Samples), f.Unit)
}

// format writes a value with about three digits.
func format(v float64, unit string) string {
	digits := 0
	switch a := math.Abs(v); {
	case a >= 10_000:
		v = math.Round(v/10) * 10
	case a < 10:
		digits = 2
	case a < 100:
		digits = 1
	}
	whole, fraction, _ := strings.Cut(fmt.Sprintf("%.*f", digits, v), ".")
	text := whole
	if strings.Trim(fraction, "0") != "" {
		text += "." + fraction
	} else if n := len(whole); n > 3 {
		text = whole[:n-3] + "," + whole[n-3:]
	}
	return strings.TrimSpace(text + " " + unit)
}

// Count writes a number of things.
func Count(n int) string { return format(float64(n), "") }
