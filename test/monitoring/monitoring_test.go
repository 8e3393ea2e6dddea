// Package monitoring_test holds what config/monitoring ships to what Millrace serves: alerts fire and resolve, and every query of
// alerts and dashboards finds data in a real Prometheus that scrapes a real Millrace. It needs the programs of Debian's package prometheus.
package monitoring_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"millrace.dev/test/harness"
)

const folder = "../../config/monitoring"

// program finds a program of the package, or skips the test; continuous integration has it.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("MILLRACE_REQUIRE_PROMETHEUS") != "":
		t.Fatalf("%v: install Debian's package prometheus", err)
	default:
		t.Skipf("%v: install Debian's package prometheus to run this test", err)
	}
	return ""
}

func TestAlertsFireAndResolve(t *testing.T) {
	promtool := program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = folder
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	tests, err := os.ReadFile(filepath.Join(folder, "alerts_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, rule := range alerts(t) {
		if !strings.Contains(string(tests), `alertname="`+name+`"`) {
			t.Errorf("%s has no test", name)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s does not say what to do", name)
		}
	}
}

// scenario has each of the things happen that metrics are about: a subscriber that takes events, one that is slow to, ones that
// refuse or cannot be reached, one that replies, filters that fail, a Broker that is full and a source without a Kafka.
const scenario = `
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: d}
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: full, namespace: d, annotations: {millrace.dev/max-messages: "1"}}
---
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: s, namespace: d}
spec:
  bootstrapServers: ["127.0.0.1:1"]
  topics: [orders]
  consumerGroup: g
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
`

const trigger = `
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: %[1]s, namespace: d}
spec:
  broker: %[2]s
  filters: [{exact: {type: %[1]s}}%[4]s]
  subscriber: {uri: "%[3]s"}
  delivery: {retry: 1, backoffPolicy: linear, backoffDelay: PT0.05S}
`

func TestQueriesFindData(t *testing.T) {
	prometheus := program(t, "prometheus")
	subscriber := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/poison":
			w.WriteHeader(http.StatusBadRequest)
		case "/failing":
			w.WriteHeader(http.StatusBadGateway)
		case "/loop":
			for _, name := range []string{"Ce-Id", "Ce-Source", "Ce-Type", "Ce-Specversion"} {
				w.Header().Set(name, r.Header.Get(name))
			}
		}
	}))
	defer subscriber.Close()
	manifest := scenario +
		fmt.Sprintf(trigger, "fine", "b", subscriber.URL, "") +
		fmt.Sprintf(trigger, "poison", "b", subscriber.URL+"/poison", "") +
		fmt.Sprintf(trigger, "failing", "b", subscriber.URL+"/failing", "") +
		fmt.Sprintf(trigger, "loop", "b", subscriber.URL+"/loop", "") +
		fmt.Sprintf(trigger, "broken", "b", subscriber.URL, ", {cel: data.missing > 1}") +
		fmt.Sprintf(trigger, "brimming", "full", "http://127.0.0.1:1/", "")
	file := filepath.Join(t.TempDir(), "all.yaml")
	harness.WriteFile(t, file, manifest)
	dev := harness.StartDev(t, t.TempDir(), file)
	base := startPrometheus(t, prometheus, strings.TrimPrefix(dev.Admin, "http://"))

	queries := queries(t)
	if len(queries) < 30 {
		t.Fatalf("only %d queries", len(queries))
	}
	round := 0
	harness.Eventually(t, "every query finds data", func() error {
		round++
		produce(t, dev.URL, round)
		var missing []string
		for _, q := range queries {
			n, err := results(t, base, q)
			if err != nil {
				return err
			}
			if n == 0 {
				missing = append(missing, q)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%d of %d find none:\n%s", len(missing), len(queries), strings.Join(missing, "\n"))
		}
		return nil
	})
}

// produce posts events of each type, and requests that are refused.
func produce(t *testing.T, base string, round int) {
	t.Helper()
	for i, to := range []string{"b fine", "b poison", "b failing", "b loop", "b broken", "b unwanted", "full brimming", "full brimming", "none fine"} {
		broker, eventType, _ := strings.Cut(to, " ")
		harness.Post(t, base+"/d/"+broker, "application/json", []byte(`{"a": 1}`), "Ce-Specversion: 1.0", "Ce-Source: /test",
			fmt.Sprintf("Ce-Id: %d-%d", round, i), "Ce-Type: "+eventType, "Ce-Knativebrokerttl: 3")
	}
}

func startPrometheus(t *testing.T, path, target string) (base string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	rules, err := filepath.Abs(filepath.Join(folder, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, config, fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
- job_name: millrace
  static_configs: [{targets: [%q]}]
`, rules, target))
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	harness.Start(t, path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(t.TempDir(), "data"), "--web.listen-address="+address,
		"--enable-feature=exemplar-storage")
	base = "http://" + address
	harness.WaitReady(t, base+"/-/ready")
	return base
}

// results asks Prometheus, and returns how many series the answer has.
func results(t *testing.T, base, query string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/query?query="+url.QueryEscape(query), http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("%w: %s", err, body)
	}
	if answer.Status != "success" {
		t.Fatalf("%s: %s", query, answer.Error)
	}
	return len(answer.Data.Result), nil
}

type rule struct {
	Alert       string
	Expr        string
	Annotations map[string]string
}

func alerts(t *testing.T) map[string]rule {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	all := map[string]rule{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r
		}
	}
	return all
}

// threshold is what an alert compares its value with: what it looks at is to be there below it, too.
var threshold = regexp.MustCompile(`\s*(>|==)\s*[\d.]+\s*$`)

// queries returns those of all alerts and dashboards.
func queries(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, r := range alerts(t) {
		all = append(all, threshold.ReplaceAllString(r.Expr, ""))
	}
	files, err := filepath.Glob(filepath.Join(folder, "dashboards", "*.json"))
	if err = errors.Join(err); err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$broker", ".*", "$trigger", ".*")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct{ Targets []struct{ Expr string } }
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, p := range dashboard.Panels {
			for _, target := range p.Targets {
				all = append(all, variables.Replace(target.Expr))
			}
		}
	}
	return all
}
