package api

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.dev/test/cluster"
)

// systemNamespace is the namespace in install.yaml.
const systemNamespace = "millrace-system"

// installed returns the objects of install.yaml, put into another namespace: a cluster may have Millrace already.
func installed(t *testing.T, namespace string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "config", "install.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Decode(t, strings.ReplaceAll(string(text), systemNamespace, namespace))
}

// installRights grants the rights of install.yaml to the service accounts in the namespace, and returns the configuration
// of one of them.
func installRights(t *testing.T, namespace, account string) *rest.Config {
	t.Helper()
	for _, o := range installed(t, namespace) {
		switch o.GetKind() {
		case "ClusterRoleBinding":
			o.SetName(o.GetName() + "-" + namespace)
			if !kube.Bare() { // ours goes as a whole; until then programs that stop later still need their rights
				t.Cleanup(func() { _ = kube.Client.Delete(context.Background(), o) })
			}
		case "ClusterRole", "Role", "RoleBinding", "ServiceAccount":
		default:
			continue
		}
		if err := kube.TryApply(t.Context(), namespace, o); err != nil {
			t.Fatalf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	c := rest.CopyConfig(kube.Config)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	return c
}

// aggregate fills the role of the controller that is made of others, which a cluster's controller manager does. Ours
// runs none.
func aggregate(t *testing.T) {
	t.Helper()
	if !kube.Bare() {
		return
	}
	var resolver rbacv1.ClusterRole
	var parts rbacv1.ClusterRoleList
	if err := kube.Client.Get(t.Context(), client.ObjectKey{Name: "millrace-addressable-resolver"}, &resolver); err != nil {
		t.Fatal(err)
	}
	if err := kube.Client.List(t.Context(), &parts, client.MatchingLabels(resolver.AggregationRule.ClusterRoleSelectors[0].MatchLabels)); err != nil {
		t.Fatal(err)
	}
	for _, part := range parts.Items {
		resolver.Rules = append(resolver.Rules, part.Rules...)
	}
	if err := kube.Client.Update(t.Context(), &resolver); err != nil {
		t.Fatal(err)
	}
}

// TestInstallYAML applies all of install.yaml, strictly: the API server knows every field of it.
func TestInstallYAML(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	objects := installed(t, namespace)
	kinds := map[string]int{}
	for _, o := range objects {
		kinds[o.GetKind()]++
		if o.GetKind() == "Namespace" {
			o.SetName(namespace)
		}
	}
	applyDry(t, objects)
	for kind, want := range map[string]int{
		"CustomResourceDefinition": 4, "Deployment": 3, "StatefulSet": 2, "PodDisruptionBudget": 4, "Service": 2, "NetworkPolicy": 3,
	} {
		if kinds[kind] != want {
			t.Errorf("install.yaml holds %d of kind %s, want %d", kinds[kind], kind, want)
		}
	}
}

// TestPodsAreRestricted makes the pods of install.yaml in a namespace that enforces the restricted pod security standard.
func TestPodsAreRestricted(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	tried := 0
	for _, o := range installed(t, namespace) {
		if o.GetKind() == "Namespace" {
			o.SetName(namespace)
		}
		if kind := o.GetKind(); kind == "Namespace" || kind == "ServiceAccount" {
			if err := kube.TryApply(t.Context(), namespace, o); err != nil {
				t.Fatal(err)
			}
		}
		template, found, _ := unstructured.NestedMap(o.Object, "spec", "template")
		if !found {
			continue
		}
		tried++
		pod := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, pod); err != nil {
			t.Fatal(err)
		}
		pod.Namespace, pod.Name = namespace, o.GetName()
		for _, claim := range claims(t, o) {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}})
		}
		if err := kube.Client.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
			t.Errorf("pod of %s: %v", o.GetName(), err)
		}
		for _, c := range pod.Spec.Containers {
			if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s may write to its root file system", o.GetName())
			}
			if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s lacks a probe or a limit of memory", o.GetName())
			}
		}
		privileged := true // and the namespace does refuse what is not restricted
		pod.Spec.Containers[0].SecurityContext.Privileged = &privileged
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = &privileged
		if err := kube.Client.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) {
			t.Errorf("a privileged pod: %v, want it refused", err)
		}
	}
	if tried != 5 {
		t.Errorf("found %d pod templates, want 5", tried)
	}
}

// claims returns the names of a StatefulSet's volume claims.
func claims(t *testing.T, o *unstructured.Unstructured) []string {
	t.Helper()
	templates, _, err := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, template := range templates {
		name, _, _ := unstructured.NestedString(template.(map[string]any), "metadata", "name")
		names = append(names, name)
	}
	return names
}
