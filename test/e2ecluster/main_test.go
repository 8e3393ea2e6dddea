// Package e2ecluster tests Millrace as it is installed: config/install.yaml in a cluster that runs pods. Everything runs
// under the shipped service accounts, and events are posted from a pod. Run it with make e2e.
package e2ecluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.dev/test/cluster"
)

const (
	// systemNamespace is the namespace in install.yaml.
	systemNamespace = "millrace-system"
	// installEnv and probeEnv name the install.yaml and the image of the probe, as hack/e2e.sh sets them.
	installEnv, probeEnv = "MILLRACE_E2E_INSTALL", "MILLRACE_E2E_PROBE"
	// patience bounds every wait. It is long because pods are pulled, started and probed on a busy machine.
	patience = 3 * time.Minute
)

// kube is the cluster of all tests of this package.
var kube *cluster.Cluster

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv("MILLRACE_E2E") == "" {
		return m.Run()
	}
	c, err := cluster.Start()
	kube = c
	code := 1
	if err == nil {
		code = m.Run()
	}
	for _, err := range []error{err, c.Stop()} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// install applies install.yaml, skips the test where there is no cluster, and returns when all that it runs is ready.
func install(t *testing.T) {
	t.Helper()
	if kube == nil {
		t.Skip("no cluster that runs pods: run make e2e")
	}
	text, err := os.ReadFile(os.Getenv(installEnv))
	if err != nil {
		t.Fatal(err)
	}
	objects := cluster.Decode(t, string(text))
	for _, o := range objects {
		if err := kube.TryApply(t.Context(), "", o); err != nil {
			t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	for _, o := range objects {
		if kind := o.GetKind(); kind == "Deployment" || kind == "StatefulSet" {
			rolledOut(t, o)
		}
	}
}

// rolledOut waits until every replica of a Deployment or StatefulSet is ready as it is written now, and no other is left.
func rolledOut(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	eventually(t, o.GetKind()+" "+o.GetName(), func(ctx context.Context) error {
		if err := kube.Client.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		want, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		status, _, _ := unstructured.NestedMap(o.Object, "status")
		if seen, _ := status["observedGeneration"].(int64); seen < o.GetGeneration() {
			return fmt.Errorf("generation %d is not observed", o.GetGeneration())
		}
		for _, field := range []string{"replicas", "updatedReplicas", "readyReplicas"} {
			if have, _ := status[field].(int64); have != want {
				return fmt.Errorf("%s is %d of %d", field, have, want)
			}
		}
		return nil
	})
}

// workload names a Deployment or StatefulSet of the installation.
func workload(kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: kind})
	o.SetNamespace(systemNamespace)
	o.SetName(name)
	return o
}

// eventually repeats a check until it succeeds.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s, after %v: %v", what, patience, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// namespace makes a namespace for the test, and deletes it after the test.
func namespace(t *testing.T) string {
	t.Helper()
	name := kube.Namespace(t)
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetName(name)
	t.Cleanup(func() {
		if err := kube.Client.Delete(context.Background(), ns); err != nil {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	})
	return name
}

// get returns an object of our API group.
func get(ctx context.Context, kind, namespace, name string) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("eventing.knative.dev/v1")
	o.SetKind(kind)
	return o, kube.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o)
}

// gone waits until an object of our API group does not exist.
func gone(t *testing.T, kind, namespace, name string) {
	t.Helper()
	eventually(t, kind+" "+name+" is gone", func(ctx context.Context) error {
		_, err := get(ctx, kind, namespace, name)
		if err == nil {
			return fmt.Errorf("it still exists")
		}
		return client.IgnoreNotFound(err)
	})
}

// ready waits until all Brokers and Triggers are Ready, with kubectl as users do.
func ready(t *testing.T, namespace string) {
	t.Helper()
	for _, kind := range []string{"broker", "trigger"} {
		kubectl(t, "wait", "--for=condition=Ready", "--timeout="+patience.String(), "--namespace", namespace, kind, "--all")
	}
}

// kubectl runs the program of the cluster's version.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "kubectl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// address returns the URL to which events for a Broker are posted.
func address(t *testing.T, namespace, broker string) string {
	t.Helper()
	o, err := get(t.Context(), "Broker", namespace, broker)
	if err != nil {
		t.Fatal(err)
	}
	url, found, err := unstructured.NestedString(o.Object, "status", "address", "url")
	if err != nil || !found {
		t.Fatalf("Broker %s has no address: %v %v", broker, o.Object["status"], err)
	}
	return url
}
