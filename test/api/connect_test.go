package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"millrace.dev/test/harness"
)

// TestWhereThePolicyLetsPortsLead has somebody with the Role millrace-connect, and an administrator, forward ports to pods of the
// installation.
func TestWhereThePolicyLetsPortsLead(t *testing.T) {
	w := newWorld(t)
	for _, o := range installed(t, w.system) {
		if o.GetName() != "millrace-connect" {
			continue
		}
		if group := o.GroupVersionKind().Group; strings.HasPrefix(group, "admissionregistration") { // of the whole cluster
			o.SetName("connect-" + w.system)
			if o.GetKind() == "ValidatingAdmissionPolicyBinding" {
				o.Object["spec"].(map[string]any)["policyName"] = "connect-" + w.system
			}
			t.Cleanup(func() { _ = kube.Client.Delete(context.Background(), o) })
		}
		if err := kube.TryApply(t.Context(), w.system, o); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"broker-filter-1", "nats-0"} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: name},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		}
		if err := kube.Client.Create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
	}
	token := w.account(t, "developer", nil)
	kube.Apply(t, w.system, "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: developer}, "+
		"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: millrace-connect}, "+
		"subjects: [{kind: ServiceAccount, name: developer, namespace: "+w.namespace+"}]}")
	developer := rest.AnonymousClientConfig(kube.Config)
	developer.BearerToken = token

	const refused = "ports are forwarded to the pods of broker-filter only"
	harness.Eventually(t, "the policy is in force", func() error {
		if answer := forward(t, developer, w.system, "nats-0"); !strings.Contains(answer, refused) {
			return fmt.Errorf("the answer is %s", answer)
		}
		return nil
	})
	for _, c := range []struct {
		as        *rest.Config
		pod, want string
	}{
		{developer, "broker-filter-1", "does not have a host assigned"}, // so it came as far as the pod
		{kube.Config, "nats-0", "does not have a host assigned"},
	} {
		if answer := forward(t, c.as, w.system, c.pod); !strings.Contains(answer, c.want) {
			t.Errorf("to %s: %s", c.pod, answer)
		}
	}
}

// forward returns how the API server answers to who wants to forward a port of a pod that is on no node.
func forward(t *testing.T, as *rest.Config, namespace, pod string) string {
	t.Helper()
	c, err := rest.HTTPClientFor(as)
	if err != nil {
		t.Fatal(err)
	}
	host, _, err := rest.DefaultServerUrlFor(as)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.NewRESTClient(host, "", rest.ClientContentConfig{}, nil, c)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := client.Verb(http.MethodPost).AbsPath("/api/v1/namespaces/" + namespace + "/pods/" + pod + "/portforward").DoRaw(t.Context())
	return errors.Join(err, errors.New(string(raw))).Error()
}
