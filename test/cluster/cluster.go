// Package cluster gives tests a real Kubernetes API: that of KUBECONFIG if it is set, or else a kube-apiserver and an
// etcd on loopback, which need neither root nor a node. No pod runs there.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
)

const (
	// BinariesEnv names the folder with kube-apiserver and etcd, as hack/kube-binaries.sh prints it.
	BinariesEnv = "MILLRACE_KUBE_BINARIES"
	// startTimeout bounds the start of each program. It is long because machines are busy.
	startTimeout = 2 * time.Minute
)

// Cluster is a Kubernetes API with the CRDs installed.
type Cluster struct {
	// Config is that of an administrator, Client one that uses it, without a cache.
	Config *rest.Config
	Client client.Client
	// Kubeconfig is a file for kubectl, Binaries the folder where it may be; empty if the cluster is not ours.
	Kubeconfig, Binaries string
	// AuditLog holds who asked our API server for what, a JSON object a line; empty if the cluster is not ours.
	AuditLog string

	env      *envtest.Environment
	auditDir string
}

// Available says whether there is a cluster for tests, or the programs to start one.
func Available() bool { return os.Getenv("KUBECONFIG") != "" || os.Getenv(BinariesEnv) != "" }

// Start connects to the cluster or starts one, and installs the CRDs. The caller calls Stop, also after an error.
func Start() (*Cluster, error) {
	existing := os.Getenv("KUBECONFIG") != ""
	c := &Cluster{Binaries: os.Getenv(BinariesEnv)}
	c.env = &envtest.Environment{
		UseExistingCluster:       &existing,
		BinaryAssetsDirectory:    c.Binaries,
		CRDDirectoryPaths:        []string{filepath.Join(Root(), "config", "crds")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startTimeout,
		ControlPlaneStopTimeout:  startTimeout,
	}
	if err := c.audit(); err != nil {
		return c, err
	}
	var err error
	if c.Config, err = c.env.Start(); err != nil {
		return c, fmt.Errorf("start kube-apiserver and etcd of %s (KUBEBUILDER_ATTACH_CONTROL_PLANE_OUTPUT=true shows what they print): %w", c.Binaries, err)
	}
	if c.Client, err = client.New(c.Config, client.Options{Scheme: Scheme()}); err != nil {
		return c, fmt.Errorf("make a client: %w", err)
	}
	return c, c.writeKubeconfig()
}

// audit has our API server write down who asks for what.
func (c *Cluster) audit() error {
	if !c.Bare() {
		return nil
	}
	var err error
	if c.auditDir, err = os.MkdirTemp("", "millrace-audit-"); err != nil {
		return fmt.Errorf("make a folder for the audit log: %w", err)
	}
	policy := filepath.Join(c.auditDir, "policy.yaml")
	const text = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the audit policy: %w", err)
	}
	c.AuditLog = filepath.Join(c.auditDir, "audit.log")
	c.env.ControlPlane.GetAPIServer().Configure().Append("audit-policy-file", policy).Append("audit-log-path", c.AuditLog)
	return nil
}

// Bare says whether the cluster is an API server alone, without the controllers that every other has.
func (c *Cluster) Bare() bool { return os.Getenv("KUBECONFIG") == "" }

func (c *Cluster) writeKubeconfig() error {
	f, err := os.CreateTemp("", "millrace-kubeconfig-")
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	c.Kubeconfig = f.Name()
	_, err = f.Write(c.env.KubeConfig)
	return errors.Join(err, f.Close())
}

// Stop stops what Start started.
func (c *Cluster) Stop() error {
	if c.Kubeconfig != "" {
		_ = os.Remove(c.Kubeconfig)
	}
	err := c.env.Stop()
	if c.auditDir != "" {
		_ = os.RemoveAll(c.auditDir)
	}
	return err
}

// Scheme knows our types and those of Kubernetes.
func Scheme() *k8sruntime.Scheme {
	s := k8sruntime.NewScheme()
	for _, add := range []func(*k8sruntime.Scheme) error{
		clientgoscheme.AddToScheme, eventingv1.AddToScheme, sourcesv1.AddToScheme, sourcesv1alpha1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err) // a defect of the types
		}
	}
	return s
}

// Root is the folder of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Namespace makes a namespace for the test. It is not deleted: without a node nothing would complete the deletion.
func (c *Cluster) Namespace(t testing.TB) string {
	t.Helper()
	ns := &unstructured.Unstructured{}
	ns.SetAPIVersion("v1")
	ns.SetKind("Namespace")
	ns.SetGenerateName("test-")
	if err := c.Client.Create(t.Context(), ns); err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	return ns.GetName()
}

// Decode reads the objects of a YAML text of one or more documents.
func Decode(t testing.TB, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := DecodeAll(text)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// DecodeAll is Decode outside a test.
func DecodeAll(text string) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", text, err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// Apply creates or changes the objects of a YAML text as `kubectl apply --server-side` does. Those without a namespace
// get the one given.
func (c *Cluster) Apply(t testing.TB, namespace, text string) {
	t.Helper()
	for _, o := range Decode(t, text) {
		if err := c.TryApply(t.Context(), namespace, o); err != nil {
			t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// TryApply applies one object and returns what the API server says.
func (c *Cluster) TryApply(ctx context.Context, namespace string, o *unstructured.Unstructured) error {
	if namespaced, err := c.Client.IsObjectNamespaced(o); err == nil && namespaced && o.GetNamespace() == "" {
		o.SetNamespace(namespace)
	}
	return c.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership)
}
