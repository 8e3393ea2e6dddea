// Package e2e tests whole processes from the outside.
package e2e

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/test/harness"
)

// webhook is a GitHub webhook payload as a structured CloudEvent, read without any code of the product.
type webhook struct {
	ID, Source, Type string
	Data             struct {
		Action     string
		Sender     struct{ Login string }
		Repository *struct {
			Private         bool
			OpenIssuesCount int `json:"open_issues_count"`
			Size            int
		}
		Issue *struct {
			Labels []struct{ Name string }
		}
		Installation *struct{ ID int }
	}
	line []byte
}

func (w webhook) openIssues() int {
	if w.Data.Repository == nil {
		return 0
	}
	return w.Data.Repository.OpenIssuesCount
}

func (w webhook) isBug() bool {
	return w.Data.Issue != nil && slices.ContainsFunc(w.Data.Issue.Labels, func(l struct{ Name string }) bool { return l.Name == "bug" })
}

func readWebhooks(t testing.TB) []webhook {
	t.Helper()
	f, err := os.Open("../testdata/github-events.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := harness.Lines(z)
	if err != nil {
		t.Fatal(err)
	}
	hooks := make([]webhook, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal(line, &hooks[i]); err != nil {
			t.Fatal(err)
		}
		hooks[i].line = line
	}
	return hooks
}

const (
	codertocat = "https://github.com/Codertocat/Hello-World"
	prefix     = "com.github."
)

// rule is a Trigger: its filter as a user writes it, and what it means in Go, written by hand without the filter engine.
type rule struct {
	name, annotations, filter string
	want                      func(webhook) bool
}

var rules = []rule{
	{"everything", ``, ``, func(webhook) bool { return true }},
	{"attributes", ``, `filter: {attributes: {type: com.github.push, datacontenttype: ""}}`, func(w webhook) bool { return w.Type == prefix+"push" }},
	{"source-and-type", ``, `filter: {sourceAndType: {source: "` + codertocat + `", type: com.github.issues.opened}}`, func(w webhook) bool {
		return w.Source == codertocat && w.Type == prefix+"issues.opened"
	}},
	{"source-any-type", ``, `filter: {sourceAndType: {source: "https://github.com/octo-org/octo-repo", type: ""}}`, func(w webhook) bool {
		return w.Source == "https://github.com/octo-org/octo-repo"
	}},
	{"exact", ``, `filters: [{exact: {type: com.github.issue_comment.created}}]`, func(w webhook) bool { return w.Type == prefix+"issue_comment.created" }},
	{"prefix", ``, `filters: [{prefix: {type: com.github.pull_request.}}]`, func(w webhook) bool { return strings.HasPrefix(w.Type, prefix+"pull_request.") }},
	{"suffix", ``, `filters: [{suffix: {type: .created}}]`, func(w webhook) bool { return strings.HasSuffix(w.Type, ".created") }},
	{"all", ``, `filters: [{all: [{prefix: {type: com.github.check}}, {suffix: {type: .completed}}]}]`, func(w webhook) bool {
		return strings.HasPrefix(w.Type, prefix+"check") && strings.HasSuffix(w.Type, ".completed")
	}},
	{"any", ``, `filters: [{any: [{exact: {type: com.github.create}}, {exact: {type: com.github.delete}}]}]`, func(w webhook) bool {
		return w.Type == prefix+"create" || w.Type == prefix+"delete"
	}},
	{"not", ``, `filters: [{not: {exact: {source: "` + codertocat + `"}}}]`, func(w webhook) bool { return w.Source != codertocat }},
	{"cesql", ``, `filters: [{cesql: "type LIKE 'com.github.issue%' AND NOT (source LIKE '%Octocoders%')"}]`, func(w webhook) bool {
		return strings.HasPrefix(w.Type, prefix+"issue") && !strings.Contains(w.Source, "Octocoders")
	}},
	{"cel-attributes", ``, `filters: [{cel: 'ce.type.endsWith(".deleted") && ce.source.startsWith("https://github.com/Codertocat/")'}]`, func(w webhook) bool {
		return strings.HasSuffix(w.Type, ".deleted") && strings.HasPrefix(w.Source, "https://github.com/Codertocat/")
	}},
	{"cel-data-bool", ``, `filters: [{cel: has(data.repository) && data.repository.private}]`, func(w webhook) bool {
		return w.Data.Repository != nil && w.Data.Repository.Private
	}},
	{"cel-data-number", ``, `filters: [{cel: data.repository.open_issues_count > 10.5}]`, func(w webhook) bool { return w.openIssues() > 10 }},
	{"cel-data-list", ``, `filters: [{cel: 'has(data.issue) && data.issue.labels.exists(l, l.name == "bug")'}]`, webhook.isBug},
	{"cel-equality-and-data", ``, `filters: [{cel: 'ce.type == "com.github.issues.opened" && data.sender.login == "Codertocat"'}]`, func(w webhook) bool {
		return w.Type == prefix+"issues.opened" && w.Data.Sender.Login == "Codertocat"
	}},
	{"cel-optional", ``, `filters: [{cel: 'data.?installation.?id.orValue(0) > 0'}]`, func(w webhook) bool { return w.Data.Installation != nil && w.Data.Installation.ID > 0 }},
	{"filter-cel", ``, `filter: {attributes: {type: com.github.issues.opened}, cel: 'data.action == "opened"'}`, func(w webhook) bool {
		return w.Type == prefix+"issues.opened" && w.Data.Action == "opened"
	}},
	{"annotation", `millrace.dev/cel-filter: 'data.sender.login != "Codertocat"'`, `filters: [{suffix: {type: .created}}]`, func(w webhook) bool {
		return strings.HasSuffix(w.Type, ".created") && w.Data.Sender.Login != "Codertocat"
	}},
	{"nested", ``, `filters: [{all: [{any: [{prefix: {type: com.github.issue}}, {cesql: "type LIKE '%label%'"}]}, {not: {cel: 'data.action == "opened"'}}, {not: {attributes: {type: com.github.issues.labeled}}}]}]`, func(w webhook) bool {
		return (strings.HasPrefix(w.Type, prefix+"issue") || strings.Contains(w.Type, "label")) && w.Data.Action != "opened" && w.Type != prefix+"issues.labeled"
	}},
	{"nothing", ``, `filters: [{cel: 'data.no.such.field == 1'}]`, func(webhook) bool { return false }},
}

// manifest is the Broker github and one Trigger a rule, whose subscriber is the rule's name below base.
func manifest(base string) string {
	var b strings.Builder
	b.WriteString("apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: github}\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: %s\n", r.name)
		if r.annotations != "" {
			fmt.Fprintf(&b, "  annotations:\n    %s\n", r.annotations)
		}
		fmt.Fprintf(&b, "spec:\n  broker: github\n  subscriber: {uri: %q}\n", base+"/"+r.name)
		if r.filter != "" {
			fmt.Fprintf(&b, "  %s\n", r.filter)
		}
	}
	return b.String()
}

// checkWebhooks posts all webhooks and compares what each Trigger's subscriber got with what the rule says.
func checkWebhooks(t *testing.T, brokerURL string, ledger *harness.Ledger) {
	t.Helper()
	hooks := readWebhooks(t)
	if len(hooks) != 329 {
		t.Fatalf("%d webhooks, want 329", len(hooks))
	}
	want := map[string]map[string]int{}
	total := 0
	for _, r := range rules {
		want[r.name] = map[string]int{}
		for _, w := range hooks {
			if r.want(w) {
				want[r.name][w.ID] = 1
				total++
			}
		}
	}
	for _, w := range hooks {
		if code, body := harness.Post(t, brokerURL, "application/cloudevents+json", w.line); code != 202 {
			t.Fatalf("%s: status %d: %s", w.ID, code, body)
		}
	}
	ledger.WaitQuiet(t, total, time.Second)
	for _, r := range rules {
		if diff := cmp.Diff(want[r.name], ledger.Path("/"+r.name)); diff != "" {
			t.Errorf("trigger %s (-want +got):\n%s", r.name, diff)
		}
		if n := len(want[r.name]); r.name != "everything" && r.name != "nothing" && (n == 0 || n == len(hooks)) {
			t.Errorf("the rule of %s says nothing: %d of %d match", r.name, n, len(hooks))
		}
	}
	t.Logf("%d events, %d triggers, %d deliveries", len(hooks), len(rules), total)
}

func TestWebhooksInOneProcess(t *testing.T) {
	ledger := harness.NewLedger(t)
	file := filepath.Join(t.TempDir(), "github.yaml")
	harness.WriteFile(t, file, manifest(ledger.URL))
	dev := harness.StartDev(t, t.TempDir(), file)
	checkWebhooks(t, dev.URL+"/default/github", ledger)
}

func TestWebhooksThroughSeparateProcesses(t *testing.T) {
	ledger := harness.NewLedger(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "github.yaml")
	harness.WriteFile(t, file, manifest(ledger.URL))
	bin := harness.Build(t, "millrace.dev/cmd/broker-ingress", "millrace.dev/cmd/broker-filter", "github.com/nats-io/nats-server/v2")
	port := func() string { return strconv.Itoa(harness.FreePort(t)) }

	natsPort, listen, ingressAdmin, filterAdmin := port(), port(), port(), port()
	harness.Start(t, filepath.Join(bin, "nats-server"), "-js", "-a", "127.0.0.1", "-p", natsPort, "-sd", filepath.Join(dir, "nats"))
	natsURL := "nats://127.0.0.1:" + natsPort
	ingress := harness.Start(t, filepath.Join(bin, "broker-ingress"), "-f", file, "--nats-url", natsURL,
		"--listen", "127.0.0.1:"+listen, "--admin", "127.0.0.1:"+ingressAdmin)
	filter := harness.Start(t, filepath.Join(bin, "broker-filter"), "-f", file, "--nats-url", natsURL,
		"--admin", "127.0.0.1:"+filterAdmin, "--allow-loopback")
	harness.WaitReady(t, "http://127.0.0.1:"+ingressAdmin+"/readyz")
	harness.WaitReady(t, "http://127.0.0.1:"+filterAdmin+"/readyz")

	checkWebhooks(t, "http://"+net.JoinHostPort("127.0.0.1", listen)+"/default/github", ledger)
	checkMetrics(t, "http://127.0.0.1:"+ingressAdmin,
		`millrace_ingress_events_total{messaging_destination_name="default/github"} 329`,
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="202",messaging_destination_name="default/github"} 329`)
	checkMetrics(t, "http://127.0.0.1:"+filterAdmin,
		`millrace_trigger_matched_total{messaging_destination_name="default/github",messaging_destination_subscription_name="default/everything"} 329`,
		`kn_eventing_dispatch_duration_seconds_count{http_response_status_code="200",messaging_destination_name="default/github",messaging_destination_subscription_name="default/everything"} 329`)
	ingress.Stop(t)
	filter.Stop(t)
}

func checkMetrics(t *testing.T, admin string, want ...string) {
	t.Helper()
	body := get(t, admin+"/metrics")
	for _, line := range want {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("metrics have no line %q; of millrace there are:\n%s", line, millraceLines(body))
		}
	}
}

func millraceLines(body string) string {
	return strings.Join(slices.Collect(func(yield func(string) bool) {
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "millrace_") && !yield(strings.TrimSpace(line)) {
				return
			}
		}
	}), "\n")
}
