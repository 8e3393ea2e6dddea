package report_test

import (
	"encoding/json"
	"strings"
	"testing"

	"millrace.dev/test/bench/report"
)

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{3: {3}, 2: {9, 1, 2}, 2.5: {4, 1, 2, 3}} {
		if got := report.Median(values); got != want {
			t.Errorf("Median(%v) = %v, want %v", values, got, want)
		}
	}
}

func TestMarkdownSaysWhichGoalsAreMet(t *testing.T) {
	r := &report.Report{Others: []float64{2, 40, 3}}
	r.Add(report.Figure{Scenario: "s", Name: "fast enough", Unit: "/s", Samples: []float64{11_004, 12_996}, Goal: report.AtLeast(12_000)})
	r.Add(report.Figure{Scenario: "s", Name: "too slow", Unit: "ms", Samples: []float64{1.5}, Goal: report.AtMost(1)})
	r.Add(report.Figure{Scenario: "s", Name: "of interest", Samples: []float64{0.25}, Note: "why"})
	got := r.Markdown()
	for _, want := range []string{
		"had 3 % of the machine in the median slice, at most 40 %",
		"| s | fast enough | ≥ 12,000 /s | 12,000 /s | yes | 11,000 /s – 13,000 /s |\n",
		"| s | too slow | ≤ 1 ms | 1.50 ms | **no** |  |\n",
		"| s | of interest (why) |  | 0.25 |  |  |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
}

func TestJSONHoldsEverySample(t *testing.T) {
	r := &report.Report{}
	r.Add(report.Figure{Scenario: "s", Samples: []float64{1, 3}})
	text, err := r.JSON()
	var back report.Report
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil || len(back.Figures) != 1 || back.Figures[0].Value != 2 || len(back.Figures[0].Samples) != 2 {
		t.Errorf("%v: %s", err, text)
	}
}
