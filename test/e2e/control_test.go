package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli"
	"millrace.dev/test/harness"
)

// shopManifest is a Broker that keeps what it accepts, with a Trigger for each name.
func shopManifest(subscriber string, triggers ...string) string {
	text := "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: shop, annotations: {millrace.dev/archive: PT1H}}\n"
	for _, name := range triggers {
		text += fmt.Sprintf("---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: %s}\nspec: {broker: shop, subscriber: {uri: %q}}\n", name, subscriber+"/"+name)
	}
	return text
}

// postOrders posts n events to the shop, whose ids count from first.
func postOrders(t *testing.T, url string, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		code, body := harness.Post(t, url+"/default/shop", "application/json", []byte(`{"n":1}`),
			"ce-specversion: 1.0", fmt.Sprintf("ce-id: %d", i), "ce-source: /s", "ce-type: order")
		if code != http.StatusAccepted {
			t.Fatalf("status %d: %s", code, body)
		}
	}
}

// listed is what `millrace trigger ls` says of a Trigger.
type listed struct {
	Trigger string
	Ready   bool
	Paused  bool
	Backlog int
	Oldest  *time.Time
}

func list(t *testing.T, admin, trigger string) (found listed, ok bool) {
	t.Helper()
	var all []listed
	if err := json.Unmarshal([]byte(mustMillrace(t, admin, "trigger ls -o json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Trigger == trigger {
			return one, true
		}
	}
	return found, false
}

// waitBacklog waits until so many deliveries wait for a Trigger.
func waitBacklog(t *testing.T, admin, trigger string, want int) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d deliveries wait for %s", want, trigger), func() error {
		if found, _ := list(t, admin, trigger); found.Backlog != want {
			return fmt.Errorf("the backlog is %d", found.Backlog)
		}
		return nil
	})
}

func checkEachOnce(t *testing.T, ledger *harness.Ledger, path string, want int) {
	t.Helper()
	got := ledger.Path(path)
	if len(got) != want {
		t.Errorf("%d events came to %s, want %d", len(got), path, want)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("event %s came to %s %d times", id, path, n)
		}
	}
}

// TestPauseByHand pauses one of two Triggers by command, without a word in the manifests.
func TestPauseByHand(t *testing.T) {
	ledger := harness.NewLedger(t)
	file, data := filepath.Join(t.TempDir(), "shop.yaml"), t.TempDir()
	harness.WriteFile(t, file, shopManifest(ledger.URL, "held", "free"))
	dev := harness.StartDev(t, data, file)
	const events = 200

	mustMillrace(t, dev.Admin, "trigger pause held", "Trigger default/held is paused", "until millrace dev ends")
	mustMillrace(t, dev.Admin, "trigger pause default/held", "Trigger default/held was paused already")
	postOrders(t, dev.URL, 0, events)
	waitBacklog(t, dev.Admin, "default/held", events)
	harness.Reach(t, "the other Trigger has all events", events, func() int { return len(ledger.Path("/free")) })
	if got := ledger.Path("/held"); len(got) != 0 {
		t.Fatalf("%d events were delivered during the pause", len(got))
	}
	if found, _ := list(t, dev.Admin, "default/held"); !found.Paused || !found.Ready || found.Oldest == nil {
		t.Errorf("ls says %+v", found)
	}
	if found, _ := list(t, dev.Admin, "default/free"); found.Paused || found.Backlog != 0 {
		t.Errorf("ls says %+v", found)
	}
	if text := mustMillrace(t, dev.Admin, "top --interval 200ms"); !regexp.MustCompile(`default/held .* paused\n`).MatchString(text) {
		t.Errorf("top says:\n%s", text)
	}
	harness.Eventually(t, "the console says so", func() error {
		if !regexp.MustCompile(`Trigger default/held +Paused `).MatchString(dev.Out.String()) {
			return fmt.Errorf("it says:\n%s", dev.Out)
		}
		return nil
	})

	// A change of the manifests is none of the pause.
	harness.WriteFile(t, file, shopManifest(ledger.URL, "held", "free", "later"))
	harness.Eventually(t, "the change is served", func() error {
		if found, ok := list(t, dev.Admin, "default/later"); !ok || !found.Ready {
			return fmt.Errorf("ls says %+v", found)
		}
		return nil
	})
	if found, _ := list(t, dev.Admin, "default/held"); !found.Paused {
		t.Errorf("after a change ls says %+v", found)
	}

	mustMillrace(t, dev.Admin, "trigger resume held", "Trigger default/held is resumed")
	harness.Reach(t, "all events are delivered", events, func() int { return len(ledger.Path("/held")) })
	mustMillrace(t, dev.Admin, "trigger resume held", "Trigger default/held was not paused")

	// The pause ends with the process; what waits does not.
	mustMillrace(t, dev.Admin, "trigger pause held")
	postOrders(t, dev.URL, events, 10)
	waitBacklog(t, dev.Admin, "default/held", 10)
	dev.Stop(t)
	if got := ledger.Path("/held"); len(got) != events {
		t.Errorf("%d events were delivered when dev mode stopped, want %d", len(got), events)
	}
	harness.StartDev(t, data, file)
	ledger.WaitQuiet(t, 2*events+30, 300*time.Millisecond)
	for path, want := range map[string]int{"/held": events + 10, "/free": events + 10, "/later": 10} {
		checkEachOnce(t, ledger, path, want)
	}
}

// TestReplayCommands runs the commands for replays.
func TestReplayCommands(t *testing.T) {
	ledger := harness.NewLedger(t)
	file := filepath.Join(t.TempDir(), "shop.yaml")
	harness.WriteFile(t, file, shopManifest(ledger.URL, "billing", "audit"))
	dev := harness.StartDev(t, t.TempDir(), file)
	if brokers, err := (&adminapi.Client{URL: dev.Admin}).Brokers(t.Context()); err != nil || len(brokers) != 1 || brokers[0].URL != dev.URL+"/default/shop" {
		t.Errorf("Brokers are %+v, %v", brokers, err)
	}
	const events = 5
	postOrders(t, dev.URL, 0, events)
	ledger.WaitQuiet(t, 2*events, 0)
	count := fmt.Sprintf("Of %d events in the archive since then %d would be given to Trigger default/billing.", events, events)
	harness.Eventually(t, "the archive has all events", func() error {
		if out := mustMillrace(t, dev.Admin, "replay --trigger billing --since 1h --dry-run", "Nothing was done."); !strings.Contains(out, count) {
			return fmt.Errorf("it says %s", out)
		}
		return nil
	})
	mustMillrace(t, dev.Admin, "replay default/shop --trigger billing --since 1h", count, "Add --yes to begin.")
	mustMillrace(t, dev.Admin, "replay --trigger billing --since 1h --type other --dry-run", "0 would be given")
	if got := mustMillrace(t, dev.Admin, "replay ls -o name"); got != "" {
		t.Errorf("there are replays: %s", got)
	}

	// One an hour: it does not end by itself.
	out := mustMillrace(t, dev.Admin, "replay --trigger billing --since 1h --rate 1/h --yes", "gives 5 events to Trigger default/billing")
	id := regexp.MustCompile(`^Replay (\S+) `).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no id in %s", out)
	}
	mustMillrace(t, dev.Admin, "replay ls", id[1], "default/billing", "running")
	if got := strings.TrimSpace(mustMillrace(t, dev.Admin, "replay ls -o name")); got != id[1] {
		t.Errorf("replays are %q, want %s", got, id[1])
	}
	mustMillrace(t, dev.Admin, "replay cancel "+id[1], "Replay "+id[1]+" is canceled")
	mustMillrace(t, dev.Admin, "replay ls", "canceled")
	if exit, out := millrace(t, dev.Admin, "replay", "cancel", "nothing"); exit != cli.ExitFailure || !strings.Contains(out, "there is no replay") {
		t.Errorf("exit code %d: %s", exit, out)
	}

	before := ledger.Total()
	mustMillrace(t, dev.Admin, "replay --trigger billing --since 1h --yes")
	ledger.WaitQuiet(t, before+events, 300*time.Millisecond)
	harness.Eventually(t, "the replay is done", func() error {
		if out := mustMillrace(t, dev.Admin, "replay ls"); !strings.Contains(out, "done") {
			return fmt.Errorf("ls says:\n%s", out)
		}
		return nil
	})
	for id, n := range ledger.Path("/audit") {
		if n != 1 {
			t.Errorf("event %s came %d times to the Trigger that is to get none again", id, n)
		}
	}
	for id, n := range ledger.Path("/billing") {
		if n < 2 {
			t.Errorf("event %s came %d times to the Trigger that is to get it again", id, n)
		}
	}
}
