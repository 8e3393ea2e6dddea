package api

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/cli"
	"millrace.dev/test/harness"
)

// millrace runs a command as the user of a kubeconfig, in the test's namespace.
func (w *world) millrace(t *testing.T, kubeconfig, group, command string, args ...string) (exit int, out string) {
	t.Helper()
	return millrace(t, append([]string{group, command, "--kubeconfig", kubeconfig, "-n", w.namespace}, args...)...)
}

func millrace(t *testing.T, args ...string) (exit int, out string) {
	t.Helper()
	var b bytes.Buffer
	root := cli.NewRoot("millrace")
	root.SetArgs(args)
	root.SetOut(&b)
	root.SetErr(&b)
	exit = cli.Execute(t.Context(), root)
	return exit, b.String()
}

// TestPauseByCommand pauses and resumes a Trigger with the rights of the roles that are installed.
func TestPauseByCommand(t *testing.T) {
	w := startWorld(t)
	ingress, _ := w.startIngress(t)
	ledger := harness.NewLedger(t)
	kube.Apply(t, w.namespace, brokerYAML("shop", "{}")+
		triggerYAML("held", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/held'}}")+
		triggerYAML("free", "{broker: shop, subscriber: {uri: '"+ledger.URL+"/free'}}"))
	w.waitTrigger(t, "held", ready, "True")
	w.waitTrigger(t, "free", ready, "True")
	config := func(token string) string {
		c := rest.AnonymousClientConfig(kube.Config)
		c.BearerToken = token
		return writeKubeconfig(t, c)
	}
	viewToken := w.account(t, "viewer", []string{"millrace-view"})
	viewer, stranger := config(viewToken), config(w.account(t, "stranger", nil))
	editor := config(w.account(t, "editor", []string{"millrace-view", "millrace-edit"}))

	for _, c := range []struct {
		name, as, command, trigger string
		exit                       int
		want                       string
	}{
		{"who may see nothing", stranger, "pause", "held", cli.ExitFailure, "the right to get triggers.eventing.knative.dev in namespace " + w.namespace},
		{"who may only view", viewer, "pause", "held", cli.ExitFailure, "the right to patch triggers.eventing.knative.dev in namespace " + w.namespace},
		{"a Trigger that is not there", editor, "pause", "hold", cli.ExitFailure, "there is no Trigger " + w.namespace + "/hold; there are free, held"},
		{"one that is not paused", editor, "resume", "held", cli.ExitOK, "Trigger " + w.namespace + "/held was not paused."},
		{"a pause", editor, "pause", "held", cli.ExitOK, "Trigger " + w.namespace + "/held is paused: no delivery begins"},
		{"a pause once more", editor, "pause", "held", cli.ExitOK, "Trigger " + w.namespace + "/held was paused already."},
	} {
		if exit, out := w.millrace(t, c.as, "trigger", c.command, c.trigger); exit != c.exit || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", c.name, exit, c.exit, c.want, out)
		}
	}
	if _, out := millrace(t, "__complete", "trigger", "resume", "--kubeconfig", editor, "-n", w.namespace, "h"); !strings.Contains(out, "held\tof shop") {
		t.Errorf("to complete h there is\n%s", out)
	}
	held := w.trigger(t, "held")
	if err := conditionIs(&held.Status.Status, eventingv1.ConditionPaused, []string{"True"}); err != nil || held.Annotations[eventingv1.PausedAnnotation] != "true" {
		t.Fatalf("after the command the Trigger is %v with annotations %v", err, held.Annotations)
	}

	const events = 20
	for i := range events {
		w.post(t, ingress, "shop", strconv.Itoa(i), "sent")
	}
	harness.Reach(t, "the other Trigger has all events", events, func() int { return len(ledger.Path("/free")) })
	watch := w.as(viewToken)
	harness.Eventually(t, "all events wait for the paused Trigger", func() error {
		stats, err := watch.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stats.Triggers {
			if s.Trigger == w.namespace+"/held" && s.Waiting == events && s.Paused {
				return nil
			}
		}
		return fmt.Errorf("the filter says %+v", stats.Triggers)
	})
	if got := ledger.Path("/held"); len(got) != 0 {
		t.Errorf("%d events were delivered during the pause", len(got))
	}

	if exit, out := w.millrace(t, editor, "trigger", "resume", "held"); exit != cli.ExitOK || !strings.Contains(out, "held is resumed") {
		t.Fatalf("exit code %d: %s", exit, out)
	}
	harness.Reach(t, "all events are delivered", events, func() int { return len(ledger.Path("/held")) })
	if _, ok := w.trigger(t, "held").Annotations[eventingv1.PausedAnnotation]; ok {
		t.Error("the annotation is still there")
	}
}

// TestPauseThatNobodyHoldsTo annotates a Trigger that no filter is there for.
func TestPauseThatNobodyHoldsTo(t *testing.T) {
	w := newWorld(t)
	kube.Apply(t, w.namespace, triggerYAML("held", "{broker: none, subscriber: {uri: 'http://held.example/'}}"))
	editor := writeKubeconfig(t, kube.Config)
	exit, out := w.millrace(t, editor, "trigger", "pause", "held", "--wait", "1s")
	for _, want := range []string{"Trigger " + w.namespace + "/held is paused: filters follow", "after 1s filters are not known to hold to it", "does broker-controller run?"} {
		if exit != cli.ExitFailure || !strings.Contains(out, want) {
			t.Errorf("exit code %d, want 1 and %q:\n%s", exit, want, out)
		}
	}
	if exit, out := w.millrace(t, editor, "trigger", "pause", "held", "--wait", "0"); exit != cli.ExitOK || !strings.Contains(out, "was paused already") {
		t.Errorf("exit code %d:\n%s", exit, out)
	}
}
