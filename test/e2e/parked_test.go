package e2e

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.dev/internal/adminapi"
	"millrace.dev/internal/cli"
	"millrace.dev/internal/devserver"
	"millrace.dev/internal/objects"
	"millrace.dev/pkg/event"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// moody is a subscriber that refuses every event until it is told to take them, and then records them.
type moody struct {
	*httptest.Server
	ledger *harness.Ledger
	takes  atomic.Bool
}

func newMoody(t *testing.T) *moody {
	m := &moody{ledger: harness.NewLedger(t)}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.takes.Load() {
			http.Error(w, "out of stock, order 12345", http.StatusConflict)
			return
		}
		m.ledger.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// millrace runs a command on an admin port and returns its exit code and output.
func millrace(t *testing.T, admin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	root := cli.NewRoot("millrace")
	root.SetArgs(append(args, "--admin-url", admin))
	root.SetOut(&out)
	root.SetErr(&out)
	exit := cli.Execute(t.Context(), root)
	return exit, out.String()
}

// mustMillrace runs a command that must succeed with an output that holds all of want, and returns that.
func mustMillrace(t *testing.T, admin, args string, want ...string) string {
	t.Helper()
	exit, out := millrace(t, admin, strings.Fields(args)...)
	if exit != cli.ExitOK {
		t.Fatalf("millrace %s: exit code %d:\n%s", args, exit, out)
	}
	for _, text := range want {
		if !strings.Contains(out, text) {
			t.Errorf("millrace %s prints no %q:\n%s", args, text, out)
		}
	}
	return out
}

func dlq(t *testing.T, admin string, args ...string) (int, string) {
	t.Helper()
	return millrace(t, admin, append([]string{"dlq"}, args...)...)
}

// mustDLQ runs a millrace dlq command that must succeed with an output that holds all of want.
func mustDLQ(t *testing.T, admin, args string, want ...string) {
	t.Helper()
	exit, out := dlq(t, admin, strings.Fields(args)...)
	for _, text := range want {
		if exit != cli.ExitOK || !strings.Contains(out, text) {
			t.Errorf("millrace dlq %s: exit code %d, want output with %q:\n%s", args, exit, text, out)
		}
	}
}

func parkingManifest(subscriber, trigger string) string {
	return fmt.Sprintf(`
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: %s}
spec:
  broker: b
  subscriber: {uri: %q}
  delivery: {retry: 1, backoffDelay: PT0.01S}
`, trigger, subscriber)
}

// An event that a subscriber refuses is parked; people see why, and give it back or remove it.
func TestDeadLettersInDevMode(t *testing.T) {
	subscriber := newMoody(t)
	file := filepath.Join(t.TempDir(), "b.yaml")
	harness.WriteFile(t, file, parkingManifest(subscriber.URL+"/s", "orders"))
	dev := harness.StartDev(t, t.TempDir(), file)
	const events = 10
	for i := range events {
		code, body := harness.Post(t, dev.URL+"/default/b", "application/json", []byte(`{"n":1}`),
			"ce-specversion: 1.0", fmt.Sprintf("ce-id: %d", i), "ce-source: /s", "ce-type: order")
		if code != http.StatusAccepted {
			t.Fatalf("status %d: %s", code, body)
		}
	}
	harness.Eventually(t, "all events are parked", func() error {
		if _, out := dlq(t, dev.Admin, "ls"); !strings.Contains(out, "default/b: 10 events parked") {
			return fmt.Errorf("ls says:\n%s", out)
		}
		return nil
	})
	mustDLQ(t, dev.Admin, "ls", "default/orders", "409", "out of stock, order *")
	mustDLQ(t, dev.Admin, "ls --events --limit 1", "order 12345")
	mustDLQ(t, dev.Admin, "show 1", "default/orders", "Last answer: 409", "Tried:       2 attempts", `"n": 1`)
	mustDLQ(t, dev.Admin, "redrive --all --dry-run", "10 of 10 events would be redriven")
	mustDLQ(t, dev.Admin, "purge --seq 10", "1 of 1 event purged")
	if n := subscriber.ledger.Total(); n != 0 {
		t.Fatalf("%d events were delivered before the redrive", n)
	}

	subscriber.takes.Store(true)
	mustDLQ(t, dev.Admin, "redrive --code 409 --limit 5", "5 of 5 events redriven")
	mustDLQ(t, dev.Admin, "redrive default/b --trigger orders", "4 of 4 events redriven")
	subscriber.ledger.WaitQuiet(t, events-1, 300*time.Millisecond)
	for id, n := range subscriber.ledger.Path("/s") {
		if n != 1 {
			t.Errorf("event %s was delivered %d times", id, n)
		}
	}
	if n := subscriber.ledger.Total(); n != events-1 {
		t.Errorf("%d deliveries, want %d", n, events-1)
	}
	mustDLQ(t, dev.Admin, "ls", "default/b: 0 events parked")
}

// Events of a deleted Trigger cannot be redriven, and are kept.
func TestDeadLettersOfDeletedTrigger(t *testing.T) {
	subscriber := newMoody(t)
	file := filepath.Join(t.TempDir(), "b.yaml")
	harness.WriteFile(t, file, parkingManifest(subscriber.URL+"/s", "orders"))
	dev := harness.StartDev(t, t.TempDir(), file)
	if code, body := harness.Post(t, dev.URL+"/default/b", "", nil,
		"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: order"); code != http.StatusAccepted {
		t.Fatalf("status %d: %s", code, body)
	}
	harness.Eventually(t, "the event is parked", func() error {
		if _, out := dlq(t, dev.Admin, "ls"); !strings.Contains(out, "default/b: 1 event parked") {
			return fmt.Errorf("ls says:\n%s", out)
		}
		return nil
	})
	harness.WriteFile(t, file, parkingManifest(subscriber.URL+"/s", "others"))
	harness.Eventually(t, "the Trigger is gone", func() error {
		if _, out := dlq(t, dev.Admin, "ls"); !strings.Contains(out, "(deleted)") {
			return fmt.Errorf("ls says:\n%s", out)
		}
		return nil
	})
	exit, out := dlq(t, dev.Admin, "redrive", "--all")
	uid := regexp.MustCompile(`[0-9a-f-]{36}`).FindString(out)
	if exit != cli.ExitFailure || !strings.Contains(out, "Trigger deleted") || uid == "" {
		t.Errorf("exit code %d:\n%s", exit, out)
	}
	mustDLQ(t, dev.Admin, "ls", "1 event parked")
	mustDLQ(t, dev.Admin, "purge --trigger "+uid, "1 of 1 event purged")
}

// A filter that is killed in the middle of a redrive, twice, loses nothing. Deliveries that were under way at a kill may come
// again; how many did is logged.
func TestRedriveSurvivesKill(t *testing.T) {
	const events = 3000
	ledger := harness.NewLedger(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "b.yaml")
	harness.WriteFile(t, file, parkingManifest(ledger.URL+"/s", "orders"))
	server, err := devserver.Start(devserver.Options{Dir: filepath.Join(dir, "nats"), Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	bin := harness.Build(t, "millrace.dev/cmd/broker-filter")
	admin := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	start := func() *harness.Process {
		p := harness.Start(t, filepath.Join(bin, "broker-filter"), "-f", file, "--nats-url", server.ClientURL(),
			"--admin", admin, "--allow-loopback")
		harness.WaitReady(t, "http://"+admin+"/readyz")
		return p
	}
	filter := start()
	conn, names := parkMany(t, server, file, events)
	client := &adminapi.Client{URL: "http://" + admin}
	req := adminapi.RedriveRequest{Selection: adminapi.Selection{All: true}, Rate: 3000}
	for range 2 {
		_, err := client.Redrive(t.Context(), "default/b", req, func(l adminapi.Line[adminapi.RedriveResult]) {
			if l.State == adminapi.Running && l.Result != nil && l.Result.Redriven > 0 {
				filter.Kill()
			}
		})
		if err == nil {
			t.Fatal("the redrive ended before the filter was killed")
		}
		filter = start()
	}
	state, err := conn.ParkedState(t.Context(), names)
	if err != nil || state.Messages == 0 || state.Messages == events {
		t.Fatalf("%d parked of %d after two kills, %v", state.Messages, events, err)
	}
	t.Logf("%d of %d still parked after two kills", state.Messages, events)
	result, err := client.Redrive(t.Context(), "default/b", req, func(adminapi.Line[adminapi.RedriveResult]) {})
	if err != nil || result.Redriven != state.Messages || result.Selected != result.Redriven {
		t.Fatalf("%+v, %v", result, err)
	}
	ledger.WaitQuiet(t, events, time.Second)
	again := 0
	got := ledger.Path("/s")
	for _, n := range got {
		again += n - 1
	}
	if len(got) != events {
		t.Errorf("%d of %d events were delivered", len(got), events)
	}
	t.Logf("%d deliveries came again", again)
	if state, err = conn.ParkedState(t.Context(), names); err != nil || state.Messages != 0 {
		t.Errorf("%d still parked, %v", state.Messages, err)
	}
	filter.Stop(t)
}

// parkMany parks events for the one Trigger of the manifest.
func parkMany(t *testing.T, server *devserver.Server, manifest string, events int) (*stream.Conn, *stream.Names) {
	t.Helper()
	conn, err := stream.Dial(stream.ConnOptions{InProcess: server, Name: t.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	set, err := objects.Load([]string{manifest})
	if err != nil || len(set.Brokers) != 1 || len(set.Triggers) != 1 {
		t.Fatalf("%+v, %v", set, err)
	}
	names := stream.NewNames("default", "b", string(set.Brokers[0].UID))
	trigger := string(set.Triggers[0].UID)
	p := stream.NewPublisher(conn, 0)
	for i := range events {
		e := &event.Event{Data: []byte("x")}
		for name, value := range map[string]string{event.SpecVersion: "1.0", event.ID: fmt.Sprint(i), event.Source: "/s", event.Type: "order"} {
			e.Set(name, value, event.String)
		}
		if _, err := p.Park(t.Context(), names, trigger, stream.Message{Event: e}, stream.Progress{Attempt: 2, Code: 409}); err != nil {
			t.Fatal(err)
		}
	}
	return conn, names
}
