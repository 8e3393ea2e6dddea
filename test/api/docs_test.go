package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.dev/test/chart"
	"millrace.dev/test/cluster"
	"millrace.dev/test/manifests"
)

// TestExamplesApply applies every manifest of the documentation and the examples, strictly, each in a namespace of its own.
func TestExamplesApply(t *testing.T) {
	needsCluster(t)
	examples, err := manifests.Find(cluster.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		t.Run(e.String(), func(t *testing.T) {
			text, err := e.Whole(cluster.Root())
			if err != nil {
				t.Fatal(err)
			}
			namespace := kube.Namespace(t)
			for _, o := range cluster.Decode(t, text) {
				if strings.HasPrefix(o.GetAPIVersion(), "kustomize.config.k8s.io/") {
					applyDry(t, kustomized(t, text))
					continue
				}
				switch err := applyExample(t, namespace, o); {
				case e.Refused == "" && err != nil:
					t.Errorf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
				case e.Refused != "" && err == nil:
					t.Logf("the API server takes this mistake; dev mode is to refuse it")
				case e.Refused != "" && !strings.Contains(err.Error(), e.Refused):
					t.Errorf("it is said to be refused with %q, but the API server says %v", e.Refused, err)
				}
			}
		})
	}
}

// applyExample applies an object in the namespace, whichever it names. What has none is only checked.
func applyExample(t *testing.T, namespace string, o *unstructured.Unstructured) error {
	t.Helper()
	options := []client.ApplyOption{client.FieldOwner("test"), client.ForceOwnership}
	namespaced, err := kube.Client.IsObjectNamespaced(o)
	if err != nil {
		return err
	}
	if namespaced {
		o.SetNamespace(namespace)
	} else {
		options = append(options, client.DryRunAll)
	}
	return client.WithFieldValidation(kube.Client, metav1.FieldValidationStrict).Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), options...)
}

// kustomized builds a kustomization whose paths are those of the checkout.
func kustomized(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	folder, err := os.MkdirTemp(cluster.Root(), ".docs-test-") //nolint:usetesting // kustomize reads nothing outside its root
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	text = strings.ReplaceAll(text, "- config/", "- ../config/")
	if err := os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	namespace := kube.Namespace(t)
	objects := chart.Kustomize(t, folder)
	for _, o := range objects { // the namespace they name is not there
		if o.GetNamespace() != "" {
			o.SetNamespace(namespace)
		}
	}
	return objects
}
