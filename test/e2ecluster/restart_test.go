package e2ecluster

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// eventsPerSecond is the load during restarts.
	eventsPerSecond = "500"
	// around is how many events are accepted before a restart and after it, at least.
	around = 500
)

// ledger is what the probe knows about the load.
type ledger struct {
	Posted, Accepted int
	Missing          []string
	Repeats          int
	Others           map[string]int
}

// TestRollingRestart restarts every component under load. Nothing accepted is lost, and while NATS is there nothing is
// refused.
func TestRollingRestart(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	kube.Apply(t, ns, brokerOf("shop"))
	kube.Apply(t, ns, triggerOf("load", "shop", `filter: {attributes: {type: load}}`, "/load/in"))
	ready(t, ns)
	to := address(t, ns, "shop")

	for _, c := range []struct {
		kind, name string
		// interrupts says that events may be refused meanwhile: a single nats-server has no other to step in.
		interrupts bool
	}{
		{"Deployment", "broker-ingress", false},
		{"Deployment", "broker-filter", false},
		{"Deployment", "broker-controller", false},
		{"StatefulSet", "nats", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.mustCall(t, http.MethodPost, "/load", url.Values{"to": {to}, "rate": {eventsPerSecond}}, nil)
			accepts(t, p, around)
			start := time.Now()
			restart(t, workload(c.kind, c.name))
			took := time.Since(start)
			accepts(t, p, around)
			p.mustCall(t, http.MethodPost, "/load/stop", nil, nil)
			l := settled(t, p)
			t.Logf("restarted in %v: %d posted, %d accepted, %d repeated, other answers %v", took.Round(time.Second), l.Posted, l.Accepted, l.Repeats, l.Others)
			if len(l.Others) > 0 && !c.interrupts {
				t.Errorf("not accepted: %v", l.Others)
			}
		})
	}
}

// accepts waits until that many more events are accepted.
func accepts(t *testing.T, p *probe, more int) {
	t.Helper()
	var before, now ledger
	p.mustCall(t, http.MethodGet, "/load", nil, &before)
	eventually(t, "events are accepted", func(ctx context.Context) error {
		if err := p.call(ctx, http.MethodGet, "/load", nil, &now); err != nil {
			return err
		}
		if now.Accepted < before.Accepted+more {
			return fmt.Errorf("%d after %d, other answers %v", now.Accepted, before.Accepted, now.Others)
		}
		return nil
	})
}

// restart does what `kubectl rollout restart` does, and waits until it is done.
func restart(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	if err := kube.Client.Patch(t.Context(), o, client.RawPatch(types.StrategicMergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, o)
	// Ready ones are counted as soon as they are, which is before those that they replace have ended.
	eventually(t, "the old pods of "+o.GetName()+" have ended", func(ctx context.Context) error {
		pods := &unstructured.UnstructuredList{}
		pods.SetAPIVersion("v1")
		pods.SetKind("PodList")
		if err := kube.Client.List(ctx, pods, client.InNamespace(systemNamespace), client.MatchingLabels{"app.kubernetes.io/name": o.GetName()}); err != nil {
			return err
		}
		want, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		if int64(len(pods.Items)) != want {
			return fmt.Errorf("there are %d pods", len(pods.Items))
		}
		return nil
	})
}

// settled waits until all that was accepted has arrived.
func settled(t *testing.T, p *probe) ledger {
	t.Helper()
	var l ledger
	eventually(t, "every accepted event arrives", func(ctx context.Context) error {
		l = ledger{}
		if err := p.call(ctx, http.MethodGet, "/load", nil, &l); err != nil {
			return err
		}
		if n := len(l.Missing); n > 0 {
			return fmt.Errorf("%d of %d accepted are missing: %s", n, l.Accepted, strings.Join(l.Missing[:min(n, 5)], " "))
		}
		return nil
	})
	return l
}

// TestDeletionWithoutComponents deletes Broker and Trigger while nothing of Millrace runs.
func TestDeletionWithoutComponents(t *testing.T) {
	install(t)
	ns := namespace(t)
	startProbe(t, ns)
	kube.Apply(t, ns, brokerOf("shop"))
	kube.Apply(t, ns, triggerOf("all", "shop", "", "/in/all"))
	ready(t, ns)

	for _, name := range []string{"broker-controller", "broker-ingress", "broker-filter"} {
		scale(t, workload("Deployment", name), 0)
	}
	kubectl(t, "delete", "--namespace", ns, "--timeout=30s", "broker/shop", "trigger/all")
	gone(t, "Broker", ns, "shop")
	gone(t, "Trigger", ns, "all")
}

// scale sets the number of replicas until the next install.
func scale(t *testing.T, o *unstructured.Unstructured, replicas int) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
	if err := kube.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
	rolledOut(t, o)
}
