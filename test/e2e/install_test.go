package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// rights are the RBAC objects of an installation.
type rights struct {
	roles    []rbacv1.ClusterRole // Roles too, which have a namespace
	bindings []rbacv1.ClusterRoleBinding
}

// TestPeerDefect11_NoProgramMayReadEverySecret shows that Millrace does not have defect 11 of its peers: a data plane
// that may read every Secret in the cluster. None of its programs may read a Secret cluster-wide, nor get that right in a
// roundabout way, and the data plane may read none at all.
func TestPeerDefect11_NoProgramMayReadEverySecret(t *testing.T) {
	r := readRights(t, installYAML(t))
	if len(r.roles) < 4 || len(r.bindings) < 3 {
		t.Fatalf("found only %d roles and %d bindings", len(r.roles), len(r.bindings))
	}
	for _, fault := range r.faults() {
		t.Error(fault)
	}
}

// TestSecretReadersAreFound shows that the test above can fail.
func TestSecretReadersAreFound(t *testing.T) {
	const role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: r}, rules: [%s]}\n---\n"
	const namespaced = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r, namespace: n}, rules: [%s]}\n---\n"
	const binding = `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: n},
		roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: %s, namespace: n}]}`
	for name, c := range map[string]struct {
		text string
		bad  bool
	}{
		"get":                         {fmt.Sprintf(role, `{apiGroups: [""], resources: [configmaps, secrets], verbs: [get]}`), true},
		"watch":                       {fmt.Sprintf(role, `{apiGroups: [""], resources: [secrets], verbs: [watch]}`), true},
		"named":                       {fmt.Sprintf(role, `{apiGroups: [""], resources: [secrets], resourceNames: [a], verbs: [get]}`), true},
		"everything":                  {fmt.Sprintf(role, `{apiGroups: ["*"], resources: ["*"], verbs: ["*"]}`), true},
		"all of the core":             {fmt.Sprintf(role, `{apiGroups: [""], resources: ["*"], verbs: [list]}`), true},
		"impersonate":                 {fmt.Sprintf(role, `{apiGroups: [""], resources: [serviceaccounts], verbs: [impersonate]}`), true},
		"escalate":                    {fmt.Sprintf(role, `{apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [escalate]}`), true},
		"exec":                        {fmt.Sprintf(role, `{apiGroups: [""], resources: [pods/exec], verbs: [create]}`), true},
		"pods":                        {fmt.Sprintf(role, `{apiGroups: [""], resources: [pods], verbs: [create]}`), true},
		"tokens":                      {fmt.Sprintf(role, `{apiGroups: [""], resources: [serviceaccounts/token], verbs: [create]}`), true},
		"other things":                {fmt.Sprintf(role, `{apiGroups: [""], resources: [services], verbs: [get, list, watch]}`), false},
		"other groups":                {fmt.Sprintf(role, `{apiGroups: [example.org], resources: ["*"], verbs: ["*"]}`), false},
		"one namespace, controller":   {fmt.Sprintf(namespaced, `{apiGroups: [""], resources: [secrets], verbs: [get]}`) + fmt.Sprintf(binding, "broker-controller"), false},
		"one namespace, data plane":   {fmt.Sprintf(namespaced, `{apiGroups: [""], resources: [secrets], verbs: [get]}`) + fmt.Sprintf(binding, "broker-filter"), true},
		"cluster-admin to controller": {`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: broker-controller}]}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			if faults := readRights(t, []byte(c.text)).faults(); (len(faults) > 0) != c.bad {
				t.Errorf("got %v, want bad: %t", faults, c.bad)
			}
		})
	}
}

// installYAML returns what is applied to a cluster. make verify holds it to what config/ says.
func installYAML(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../config/install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// readRights decodes the RBAC objects among the documents.
func readRights(t *testing.T, text []byte) *rights {
	t.Helper()
	r := &rights{}
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err != nil {
			t.Fatal(err)
		}
		var head struct{ Kind string }
		decode(t, document, &head)
		switch head.Kind {
		case "ClusterRole", "Role":
			var role rbacv1.ClusterRole
			decode(t, document, &role)
			r.roles = append(r.roles, role)
		case "ClusterRoleBinding", "RoleBinding":
			var binding rbacv1.ClusterRoleBinding
			decode(t, document, &binding)
			r.bindings = append(r.bindings, binding)
		}
	}
}

func decode(t *testing.T, document []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(document, into); err != nil {
		t.Fatalf("decode %s: %v", document, err)
	}
}

// faults returns what is wrong with the rights.
func (r *rights) faults() []string {
	var faults []string
	known := map[string]bool{}
	for _, role := range r.roles {
		known[role.Namespace+"/"+role.Name] = true
		for _, rule := range role.Rules {
			if role.Namespace == "" && readsSecrets(rule) && !r.leftToUsers(role) {
				faults = append(faults, fmt.Sprintf("ClusterRole %s gives away Secrets of all namespaces: %v", role.Name, rule))
			}
			if readsSecrets(rule) && r.isDataPlanes(role) {
				faults = append(faults, fmt.Sprintf("the data plane may read Secrets by role %s: %v", role.Name, rule))
			}
		}
	}
	for _, binding := range r.bindings {
		namespace := binding.Namespace
		if binding.RoleRef.Kind == "ClusterRole" {
			namespace = ""
		}
		if !known[namespace+"/"+binding.RoleRef.Name] {
			faults = append(faults, fmt.Sprintf("%s is bound to role %s, which is not ours to check", binding.Name, binding.RoleRef.Name))
		}
	}
	return faults
}

// leftToUsers says whether a role of the cluster is there for users to bind in namespaces of theirs, and nobody has it until they do.
func (r *rights) leftToUsers(role rbacv1.ClusterRole) bool {
	bound := slices.ContainsFunc(r.bindings, func(b rbacv1.ClusterRoleBinding) bool { return b.RoleRef.Name == role.Name })
	return role.Name == "millrace-source-secrets" && !bound && len(role.Labels) == 0
}

// isDataPlanes says whether a program of the data plane has the role.
func (r *rights) isDataPlanes(role rbacv1.ClusterRole) bool {
	for _, binding := range r.bindings {
		if binding.RoleRef.Name != role.Name {
			continue
		}
		for _, subject := range binding.Subjects {
			if subject.Name == "broker-ingress" || subject.Name == "broker-filter" || subject.Kind != "ServiceAccount" {
				return true
			}
		}
	}
	return false
}

// readsSecrets says whether a rule lets somebody read Secrets, directly or by way of others' rights: by acting as them,
// by making roles, or by pods, which can mount any Secret of their namespace.
func readsSecrets(rule rbacv1.PolicyRule) bool {
	group := func(name string) bool {
		return slices.Contains(rule.APIGroups, name) || slices.Contains(rule.APIGroups, "*")
	}
	verb := func(names ...string) bool {
		return slices.ContainsFunc(rule.Verbs, func(v string) bool { return v == "*" || slices.Contains(names, v) })
	}
	resource := func(names ...string) bool {
		return slices.ContainsFunc(rule.Resources, func(r string) bool { return strings.HasPrefix(r, "*") || slices.Contains(names, r) })
	}
	switch {
	case group("") && resource("secrets") && verb("get", "list", "watch"),
		group("") && resource("pods", "pods/exec", "pods/attach", "pods/ephemeralcontainers", "serviceaccounts/token") && verb("create", "update", "patch"),
		group("apps") && resource("deployments", "daemonsets", "statefulsets", "replicasets") && verb("create", "update", "patch"),
		group("batch") && resource("jobs", "cronjobs") && verb("create", "update", "patch"),
		group("rbac.authorization.k8s.io") && verb("escalate", "bind", "*"):
		return true
	}
	return slices.Contains(rule.Verbs, "impersonate")
}
