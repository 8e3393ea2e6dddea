package chart

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"millrace.dev/internal/app"
)

// TestDeploymentsOutliveOneNode holds what restarts, updates and drains of nodes depend on.
func TestDeploymentsOutliveOneNode(t *testing.T) {
	var deployments []appsv1.Deployment
	var budgets []policyv1.PodDisruptionBudget
	convert := runtime.DefaultUnstructuredConverter.FromUnstructured
	for _, o := range Template(t, "") {
		var err error
		switch o.GetKind() {
		case "Deployment":
			var d appsv1.Deployment
			err = convert(o.Object, &d)
			deployments = append(deployments, d)
		case "PodDisruptionBudget":
			var b policyv1.PodDisruptionBudget
			err = convert(o.Object, &b)
			budgets = append(budgets, b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(deployments) < 3 {
		t.Fatalf("only %d Deployments", len(deployments))
	}
	for _, d := range deployments {
		for _, fault := range faults(d, budgets) {
			t.Errorf("%s: %s", d.Name, fault)
		}
	}
}

// faults says why a Deployment would not get over the loss of a node or an update without being missed.
func faults(d appsv1.Deployment, budgets []policyv1.PodDisruptionBudget) []string {
	var all []string
	fault := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	pods := d.Spec.Template
	if d.Spec.Replicas == nil || *d.Spec.Replicas < 2 {
		fault("it has less than two replicas")
	}
	if u := d.Spec.Strategy.RollingUpdate; u == nil || u.MaxUnavailable.IntValue() != 0 {
		fault("an update may stop a replica before another is ready")
	}
	if s := pods.Spec.TopologySpreadConstraints; len(s) == 0 || s[0].TopologyKey != "kubernetes.io/hostname" || !selects(s[0].LabelSelector, pods.Labels) {
		fault("its replicas may all be on one node")
	}
	matching := 0
	for _, b := range budgets {
		if selects(b.Spec.Selector, pods.Labels) {
			matching++
			if b.Spec.MaxUnavailable.IntValue() != 1 {
				fault("a drain may take %v of it at a time", b.Spec.MaxUnavailable)
			}
		}
	}
	if matching != 1 { // Kubernetes evicts no pod that has several
		fault("%d PodDisruptionBudgets hold for it", matching)
	}
	container := pods.Spec.Containers[0]
	if container.ReadinessProbe == nil || container.StartupProbe == nil || container.LivenessProbe == nil {
		fault("it lacks a probe")
	}
	if pods.Labels["app.kubernetes.io/component"] == "controller" { // nobody waits for an answer of it
		return all
	}
	if container.Lifecycle == nil || container.Lifecycle.PreStop == nil || container.Lifecycle.PreStop.Sleep == nil {
		return append(all, "it stops before Services have noticed")
	}
	stop := time.Duration(container.Lifecycle.PreStop.Sleep.Seconds)*time.Second + app.DefaultDrainTimeout
	if grace := time.Duration(*pods.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= stop {
		fault("it is killed after %v, while it may take %v to stop", grace, stop)
	}
	return all
}

func selects(selector *metav1.LabelSelector, of map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(of))
}

// TestFaultsAreFound shows that the test above can fail.
func TestFaultsAreFound(t *testing.T) {
	var good []appsv1.Deployment
	for _, o := range Template(t, "") {
		var d appsv1.Deployment
		if o.GetKind() != "Deployment" || o.GetName() != "broker-ingress" {
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
			t.Fatal(err)
		}
		good = append(good, d)
	}
	bad := good[0]
	one, short := int32(1), int64(30)
	bad.Spec.Replicas, bad.Spec.Template.Spec.TerminationGracePeriodSeconds = &one, &short
	want := []string{
		"it has less than two replicas", "0 PodDisruptionBudgets hold for it", "it is killed after 30s, while it may take 30s to stop",
	}
	if diff := cmp.Diff(want, faults(bad, nil)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
