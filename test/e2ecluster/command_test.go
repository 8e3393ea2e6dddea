package e2ecluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// commandEnv names the folder of the program kubectl-millrace, as hack/e2e.sh sets it.
const commandEnv = "MILLRACE_E2E_COMMAND"

// TestKubectlMillrace has somebody with no more rights than docs/cli.md asks for ask what became of an event, as kubectl millrace: by way
// of the API server and the kubelet to a filter. Somebody who may not view the namespace learns which right lacks.
func TestKubectlMillrace(t *testing.T) {
	install(t)
	ns := namespace(t)
	p := startProbe(t, ns)
	kube.Apply(t, ns, brokerOf("shop"))
	kube.Apply(t, ns, triggerOf("bought", "shop", `filter: {attributes: {type: order.created}}`, "/in/bought"))
	kube.Apply(t, ns, triggerOf("abroad", "shop", `filters: [{cel: 'ce.region == "us"'}]`, "/in/abroad"))
	ready(t, ns)
	p.post(t, address(t, ns, "shop"), created)
	p.arrives(t, "bought", "created")

	developer, stranger := login(t, ns, "developer", "view"), login(t, ns, "stranger", "")
	var answer struct {
		Events []struct {
			Broker   string
			Triggers []struct{ Trigger, Fate string }
		}
	}
	eventually(t, "the journal has the event", func(ctx context.Context) error {
		out, err := kubectlAs(ctx, developer, "millrace", "why", "created", "-o", "json")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &answer); err != nil {
			return err
		}
		if len(answer.Events) != 1 || answer.Events[0].Broker != ns+"/shop" {
			return fmt.Errorf("the answer is %s", out)
		}
		fates := map[string]string{}
		for _, x := range answer.Events[0].Triggers {
			fates[x.Trigger] = x.Fate
		}
		if fates[ns+"/bought"] != "delivered" {
			return fmt.Errorf("the answer is %s", out)
		}
		return nil
	})
	out, err := kubectlAs(t.Context(), developer, "millrace", "why", "created")
	for _, want := range []string{"bought", "delivered", "abroad", `ce.region == "us"`} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("why does not tell of %s: %v %s", want, err, out)
		}
	}
	out, err = kubectlAs(t.Context(), stranger, "millrace", "why", "created")
	if err == nil || !strings.Contains(err.Error(), "millrace.dev") || strings.Contains(string(out), "bought") {
		t.Errorf("the stranger is told %s, %v", out, err)
	}
}

// login makes a ServiceAccount that may forward ports to filters and has the ClusterRole, if any, in the namespace, and returns a
// kubeconfig with a token of it.
func login(t *testing.T, namespace, name, role string) (kubeconfig string) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := kube.Client.Create(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	bind := func(in, kind, role string) {
		kube.Apply(t, in, fmt.Sprintf("{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: %[1]s-%[2]s}, "+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[3]s, name: %[4]s}, "+
			"subjects: [{kind: ServiceAccount, name: %[2]s, namespace: %[1]s}]}", namespace, name, kind, role))
	}
	bind(systemNamespace, "Role", "millrace-connect")
	t.Cleanup(func() {
		_, err := kubectlAs(context.Background(), os.Getenv("KUBECONFIG"), "delete", "rolebinding", "--namespace", systemNamespace, namespace+"-"+name)
		if err != nil {
			t.Error(err)
		}
	})
	if role != "" {
		bind(namespace, "ClusterRole", role)
	}
	request := &authenticationv1.TokenRequest{}
	if err := kube.Client.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	config := api.NewConfig()
	config.Clusters["c"] = &api.Cluster{Server: kube.Config.Host, CertificateAuthorityData: kube.Config.CAData, CertificateAuthority: kube.Config.CAFile}
	config.AuthInfos["u"] = &api.AuthInfo{Token: request.Status.Token}
	config.Contexts["x"] = &api.Context{Cluster: "c", AuthInfo: "u", Namespace: namespace}
	config.CurrentContext = "x"
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// kubectlAs runs kubectl with the kubeconfig and our program as its plugin. What it says on standard error is the error's.
func kubectlAs(ctx context.Context, kubeconfig string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+os.Getenv(commandEnv)+":"+os.Getenv("PATH"))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out, err
}
