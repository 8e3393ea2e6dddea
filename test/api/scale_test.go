package api

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/internal/devserver"
	"millrace.dev/pkg/stream"
	"millrace.dev/test/harness"
)

// triggersPerBroker is the shape of the scale test: 5,000 Triggers in 200 Brokers.
const triggersPerBroker = 25

// TestScale reports how long many Triggers take to become Ready, how long a change of one takes then, and what memory that
// costs. It runs the programs as processes, and only when MILLRACE_SCALE says how many Triggers.
func TestScale(t *testing.T) {
	needsCluster(t)
	count, err := strconv.Atoi(os.Getenv("MILLRACE_SCALE"))
	if err != nil {
		t.Skip("set MILLRACE_SCALE to a number of Triggers")
	}
	store, err := devserver.Start(devserver.Options{Dir: filepath.Join(t.TempDir(), "store"), Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Stop)
	w := &world{nats: stream.ConnOptions{URL: store.ClientURL()}, namespace: kube.Namespace(t), system: kube.Namespace(t)}
	bin := harness.Build(t, "millrace.dev/cmd/broker-controller", "millrace.dev/cmd/broker-filter", "millrace.dev/cmd/broker-ingress")
	run := func(program string, args ...string) *harness.Process {
		t.Setenv("KUBECONFIG", writeKubeconfig(t, installRights(t, w.system, program)))
		admin := "127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
		p := harness.Start(t, filepath.Join(bin, program), append(args, "--nats-url", store.ClientURL(), "--admin", admin, "--default-max-bytes", "16Mi", "--log-level", "error")...)
		harness.WaitReady(t, "http://"+admin+"/healthz")
		return p
	}
	processes := map[string]*harness.Process{
		"controller": run("broker-controller", "--namespace", w.system),
		"filter":     run("broker-filter", "--kubernetes"),
		"ingress":    run("broker-ingress", "--kubernetes", "--listen", "127.0.0.1:"+strconv.Itoa(harness.FreePort(t))),
	}

	start := time.Now()
	w.createMany(t, count)
	created := time.Now()
	w.waitAllReady(t, count)
	t.Logf("%d Triggers in %d Brokers: created in %.1f s, all Ready %.1f s later", count, count/triggersPerBroker,
		created.Sub(start).Seconds(), time.Since(created).Seconds())
	for i := range 5 {
		changed := w.change(t, fmt.Sprint("t", i*count/5))
		t.Logf("a changed Trigger is Ready again after %d ms", changed.Milliseconds())
	}
	for name, p := range processes {
		t.Logf("%s: %d MiB resident, %.1f s of processor time", name, p.RSS(t)>>20, p.CPU(t).Seconds())
	}
}

// createMany creates count Triggers and their Brokers.
func (w *world) createMany(t *testing.T, count int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(16)
	for i := range count {
		g.Go(func() error {
			name := fmt.Sprint("b", i/triggersPerBroker)
			if i%triggersPerBroker == 0 {
				b := &eventingv1.Broker{ObjectMeta: metav1.ObjectMeta{
					Namespace: w.namespace, Name: name, Annotations: map[string]string{eventingv1.BrokerClassAnnotation: eventingv1.BrokerClass},
				}}
				if err := kube.Client.Create(t.Context(), b); err != nil {
					return err
				}
			}
			uri := "http://subscriber.example/" + strconv.Itoa(i)
			return kube.Client.Create(t.Context(), &eventingv1.Trigger{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: fmt.Sprint("t", i)},
				Spec: eventingv1.TriggerSpec{
					Broker:     name,
					Filters:    []eventingv1.Filter{{Exact: map[string]string{"type": "type" + strconv.Itoa(i)}}, {CEL: "data.value > " + strconv.Itoa(i)}},
					Subscriber: eventingv1.Destination{URI: &uri},
				},
			})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) waitAllReady(t *testing.T, count int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Minute)
	for {
		var list eventingv1.TriggerList
		if err := kube.Client.List(t.Context(), &list, client.InNamespace(w.namespace)); err != nil {
			t.Fatal(err)
		}
		n := 0
		for i := range list.Items {
			if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, ready) {
				n++
			}
		}
		if n == count {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d Triggers are Ready", n, count)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// change changes a Trigger's filter and returns how long it took until it was Ready with it.
func (w *world) change(t *testing.T, name string) time.Duration {
	t.Helper()
	start := time.Now()
	patch := []byte(`{"spec": {"filters": [{"exact": {"type": "changed` + strconv.FormatInt(start.UnixNano(), 10) + `"}}]}}`)
	tr := &eventingv1.Trigger{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	if err := kube.Client.Patch(t.Context(), tr, client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, name+" is Ready again", func() error {
		tr := w.trigger(t, name)
		c := meta.FindStatusCondition(tr.Status.Conditions, ready)
		if c.Status != metav1.ConditionTrue || c.ObservedGeneration != tr.Generation {
			return errors.New(c.Message)
		}
		return nil
	})
	return time.Since(start)
}

// writeKubeconfig writes a file with which programs reach the cluster as c does.
func writeKubeconfig(t *testing.T, c *rest.Config) string {
	t.Helper()
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	k.AuthInfos["u"] = &clientcmdapi.AuthInfo{
		ClientCertificateData: c.CertData, ClientKeyData: c.KeyData, Token: c.BearerToken,
		Impersonate: c.Impersonate.UserName, ImpersonateGroups: c.Impersonate.Groups,
	}
	k.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	k.CurrentContext = "x"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		t.Fatal(err)
	}
	return path
}
