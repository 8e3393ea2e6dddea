package api

import (
	"fmt"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/test/chart"
	"millrace.dev/test/cluster"
	"millrace.dev/test/harness"
)

// TestChartApplies applies the chart with several sets of values, strictly: the API server knows every field of it.
func TestChartApplies(t *testing.T) {
	needsCluster(t)
	namespace := kube.Namespace(t)
	for name, values := range map[string]string{
		"by default":  "",
		"autoscaling": "ingress: {autoscaling: {enabled: true}}",
		"policies":    "admission: {defaults: true, defaultClass: true}",
		"three NATS":  "{nats: {replicas: 3}, settings: {stream-replicas: 3}}",
		"own NATS": `{nats: {install: false, url: "tls://nats-0.nats:4222", credentialsSecret: user, tls: {secret: tls, clientCertificate: true}},
			settings: {stream-replicas: 3}}`,
		"scheduling": `
images: {pullPolicy: Always, pullSecrets: [pull]}
nats: {storageClass: fast, nodeSelector: {disk: ssd}, priorityClassName: high, podAnnotations: {example.com/a: b}}
filter:
  tolerations: [{key: dedicated, operator: Exists}]
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app.kubernetes.io/name: broker-filter}}}
networkPolicies: {adminFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			applyDry(t, chart.Template(t, values, "--namespace", namespace))
		})
	}
}

// applyDry has the API server check objects as if they were applied, and refuse fields that it does not know.
func applyDry(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	strict := client.WithFieldValidation(kube.Client, metav1.FieldValidationStrict)
	for _, o := range objects {
		err := strict.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership, client.DryRunAll)
		if err != nil {
			t.Errorf("apply %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// TestChartLife installs the chart with helm on an API server of its own, upgrades the release, uninstalls it, applies
// install.yaml instead, and goes over from that to the chart. What users have made stays.
func TestChartLife(t *testing.T) {
	needsCluster(t)
	if !kube.Bare() {
		t.Skip("would replace what is installed in the cluster")
	}
	own, err := cluster.Start()
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	removeCRDs(t, own)
	home := t.TempDir() // of helm, which keeps what it learns of API servers
	for variable, folder := range map[string]string{"HELM_CACHE_HOME": "cache", "HELM_CONFIG_HOME": "config", "HELM_DATA_HOME": "data"} {
		t.Setenv(variable, filepath.Join(home, folder))
	}
	helm := func(args ...string) {
		t.Helper()
		out, err := chart.Helm(t.Context(), append(args, "--namespace", chart.Namespace, "--kubeconfig", own.Kubeconfig)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	get := func(o client.Object, namespace, name string) error {
		return own.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	}

	helm("install", "millrace", chart.Folder(), "--create-namespace")
	var ingress appsv1.Deployment
	if err := get(&ingress, chart.Namespace, "broker-ingress"); err != nil || *ingress.Spec.Replicas != 2 {
		t.Fatalf("after installation: %v, replicas %v", err, ingress.Spec.Replicas)
	}
	users := own.Namespace(t)
	harness.Eventually(t, "Brokers can be made", func() error {
		return client.IgnoreAlreadyExists(own.Client.Create(t.Context(), &eventingv1.Broker{ObjectMeta: metav1.ObjectMeta{
			Namespace: users, Name: "shop", Annotations: map[string]string{eventingv1.BrokerClassAnnotation: eventingv1.BrokerClass},
		}}))
	})

	helm("upgrade", "millrace", chart.Folder(), "--set", "ingress.autoscaling.enabled=true,filter.replicas=3,settings.log-level=debug")
	var filter appsv1.Deployment
	if err := get(&filter, chart.Namespace, "broker-filter"); err != nil || *filter.Spec.Replicas != 3 {
		t.Errorf("after the upgrade: %v, replicas of the filter %v", err, filter.Spec.Replicas)
	}
	if err := get(&autoscalingv2.HorizontalPodAutoscaler{}, chart.Namespace, "broker-ingress"); err != nil {
		t.Error(err)
	}

	// The autoscaler owns the number of replicas now: another upgrade leaves it alone.
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 5}}
	if err := own.Client.SubResource("scale").Update(t.Context(), &ingress, client.WithSubResourceBody(scale)); err != nil {
		t.Fatal(err)
	}
	helm("upgrade", "millrace", chart.Folder(), "--set", "ingress.autoscaling.enabled=true,settings.log-level=info")
	if err := get(&ingress, chart.Namespace, "broker-ingress"); err != nil || *ingress.Spec.Replicas != 5 {
		t.Errorf("an upgrade sets the autoscaler's number of replicas back: %v, %d", err, *ingress.Spec.Replicas)
	}

	helm("uninstall", "millrace")
	if err := get(&ingress, chart.Namespace, "broker-ingress"); !apierrors.IsNotFound(err) {
		t.Errorf("after uninstalling, the ingress: %v", err)
	}
	if err := get(&eventingv1.Broker{}, users, "shop"); err != nil {
		t.Errorf("uninstalling takes the Brokers along: %v", err)
	}
	for _, o := range installed(t, chart.Namespace) {
		if err := own.TryApply(t.Context(), "", o); err != nil {
			t.Fatal(err)
		}
	}
	helm("install", "millrace", chart.Folder(), "--take-ownership", "--force-conflicts")
	if err := get(&ingress, chart.Namespace, "broker-ingress"); err != nil {
		t.Error(err)
	}
}

// removeCRDs takes away the CRDs that every cluster for tests has from the start.
func removeCRDs(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, o := range chart.Template(t, "") {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		if err := c.Client.Delete(t.Context(), o); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, o.GetName()+" is gone", func() error {
			if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
				return fmt.Errorf("get it: %w", err)
			}
			return nil
		})
	}
}
