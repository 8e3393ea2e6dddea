package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"millrace.dev/test/harness"
)

// The Kafka example, as make run-kafka runs it: every record reaches the subscribers that the README names, and no other.
func TestKafkaExample(t *testing.T) {
	bin := harness.Build(t, "millrace.dev/cmd/millrace", "millrace.dev/examples/live-stream-kafka/viewers")
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	kafka, subscribers := address(), address()
	text, err := os.ReadFile("../../examples/live-stream-kafka/manifests.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manifests := filepath.Join(t.TempDir(), "manifests.yaml")
	harness.WriteFile(t, manifests, strings.NewReplacer("127.0.0.1:9092", kafka, "127.0.0.1:8090", subscribers).Replace(string(text)))
	const records = 200
	p := harness.Start(t, filepath.Join(bin, "viewers"), "--listen", kafka, "--rate", "500", "--records", fmt.Sprint(records),
		filepath.Join(bin, "millrace"), "dev", "-f", manifests, "--data", t.TempDir(), "--demo", "--demo-listen", subscribers,
		"--listen", address(), "--admin", address())

	line := regexp.MustCompile(`(?m)^(\S+) +dev\.knative\.kafka\.event  (\S+)  \S+  (\{.*\})$`)
	var want, got map[string]map[string]bool // by subscriber and id
	harness.Eventually(t, "everything is delivered", func() error {
		got = map[string]map[string]bool{"analytics": {}, "gift-animation": {}, "big-spender": {}, "moderation": {}}
		want = map[string]map[string]bool{"analytics": {}, "gift-animation": {}, "big-spender": {}}
		for _, m := range line.FindAllStringSubmatch(p.Out.String(), -1) {
			name, id := m[1], m[2]
			got[name][id] = true
			var did struct {
				Kind   string
				Amount int
			}
			if err := json.Unmarshal([]byte(m[3]), &did); err != nil {
				t.Fatal(err)
			}
			want["analytics"][id] = true
			if did.Kind == "gift" {
				want["gift-animation"][id] = true
			}
			if did.Kind == "gift" && did.Amount >= 100 {
				want["big-spender"][id] = true
			}
		}
		if len(got["analytics"]) < records {
			return fmt.Errorf("analytics has %d of %d records; printed so far:\n%s", len(got["analytics"]), records, p.Out)
		}
		for name, ids := range want {
			if len(got[name]) != len(ids) || len(ids) == 0 {
				return fmt.Errorf("%s has %d events, want %d", name, len(got[name]), len(ids))
			}
		}
		if n := len(got["moderation"]); n == 0 || n == records {
			return fmt.Errorf("moderation has %d events, want some", n)
		}
		return nil
	})
	p.Stop(t)
}
