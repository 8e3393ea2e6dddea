package chart

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// ofSources returns the names of the objects that are there for sources alone, each with its kind.
func ofSources(objects []*unstructured.Unstructured) (names []string) {
	for _, o := range objects {
		name, component := o.GetName(), at(o.Object, []string{"spec", "podSelector", "matchLabels", "app~kubernetes~io/component"})
		if strings.Contains(name, "broker-source") || strings.HasPrefix(name, "millrace-source") || strings.HasSuffix(name, ".sources.knative.dev") || component == "source" {
			names = append(names, o.GetKind()+" "+strings.Trim(o.GetNamespace()+"/"+name, "/"))
		}
	}
	slices.Sort(names)
	return names
}

// controllerArgs returns those of the container of broker-controller.
func controllerArgs(t *testing.T, objects []*unstructured.Unstructured) []any {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() == "Deployment" && o.GetName() == "broker-controller" {
			args, _ := at(o.Object, []string{"spec", "template", "spec", "containers", "0", "args"}).([]any)
			return args
		}
	}
	t.Fatal("no broker-controller")
	return nil
}

// TestSources renders the chart with and without sources.
func TestSources(t *testing.T) {
	const off, rest = "--sources=false", `
networkPolicies: {sourceEgress: [{to: [{ipBlock: {cidr: 192.168.7.0/24}}]}]}
`
	with := Template(t, "source: {secretNamespaces: [shop]}"+rest)
	want := []string{
		"ClusterRole millrace-source",
		"ClusterRole millrace-source-secrets",
		"ClusterRoleBinding millrace-source",
		"CustomResourceDefinition kafkasources.sources.knative.dev",
		"CustomResourceDefinition rocketmqsources.sources.knative.dev",
		"NetworkPolicy " + Namespace + "/source",
		"PodDisruptionBudget " + Namespace + "/broker-source",
		"RoleBinding shop/millrace-source-secrets",
		"ServiceAccount " + Namespace + "/broker-source",
		"StatefulSet " + Namespace + "/broker-source",
	}
	if diff := cmp.Diff(want, ofSources(with)); diff != "" {
		t.Errorf("with sources (-want +got):\n%s", diff)
	}
	if args := controllerArgs(t, with); slices.Contains(args, any(off)) {
		t.Errorf("with sources the controller is started with %v", args)
	}
	without := Template(t, "source: {install: false, secretNamespaces: [shop]}"+rest)
	if left := ofSources(without); len(left) > 0 {
		t.Errorf("without sources there are %v", left)
	}
	if args := controllerArgs(t, without); !slices.Contains(args, any(off)) {
		t.Errorf("without sources the controller is started with %v", args)
	}
}

// TestSecretNamespaces binds the right to get Secrets in the namespaces named, and in no others.
func TestSecretNamespaces(t *testing.T) {
	const role = "millrace-source-secrets"
	var bound []string
	for _, o := range Template(t, "source: {secretNamespaces: [shop, live]}", "--namespace", "events") {
		switch {
		case o.GetKind() == "ClusterRoleBinding" && at(o.Object, []string{"roleRef", "name"}) == role:
			t.Errorf("%s binds the right everywhere", o.GetName())
		case o.GetKind() == "RoleBinding" && at(o.Object, []string{"roleRef", "name"}) == role:
			bound = append(bound, o.GetNamespace())
			want := []any{map[string]any{"kind": "ServiceAccount", "name": "broker-source", "namespace": "events"}}
			if diff := cmp.Diff(want, at(o.Object, []string{"subjects"})); diff != "" {
				t.Errorf("subjects in %s (-want +got):\n%s", o.GetNamespace(), diff)
			}
		}
	}
	if diff := cmp.Diff([]string{"shop", "live"}, bound); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	if all := ofSources(Template(t, "")); slices.ContainsFunc(all, func(name string) bool { return strings.HasPrefix(name, "RoleBinding ") }) {
		t.Errorf("unless asked for: %v", all)
	}
}

// TestSourceEgress lets broker-source reach what is named, DNS, and the NATS of the chart.
func TestSourceEgress(t *testing.T) {
	const rules = `
networkPolicies:
  sourceEgress: [{to: [{ipBlock: {cidr: 192.168.7.0/24}}], ports: [{port: 9092}]}]
`
	const dns, nats, kafka = `
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]`, `
- {to: [{podSelector: {matchLabels: {app.kubernetes.io/name: nats}}}], ports: [{port: client}]}`, `
- {to: [{ipBlock: {cidr: 192.168.7.0/24}}], ports: [{port: 9092}]}`
	for name, c := range map[string]struct{ values, want string }{
		"with the chart's NATS": {rules, dns + nats + kafka},
		"with another NATS":     {rules + `nats: {install: false, url: "nats://nats.data.svc:4222"}`, dns + kafka},
		"no rules":              {"", ""},
		"no policies":           {strings.Replace(rules, "networkPolicies:", "networkPolicies:\n  install: false", 1), ""},
	} {
		var want, got any
		if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		for _, o := range Template(t, c.values) {
			if o.GetKind() == "NetworkPolicy" && o.GetName() == "source" {
				got = at(o.Object, []string{"spec", "egress"})
				if types := at(o.Object, []string{"spec", "policyTypes"}); !cmp.Equal(types, []any{"Egress"}) {
					t.Errorf("%s: policy types %v", name, types)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
