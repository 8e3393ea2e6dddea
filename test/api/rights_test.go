package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"millrace.dev/test/cluster"
)

// right is what a service account may do to a kind of object.
type right struct{ account, group, resource, verb string }

// repeatedEvent is used only where the same Event happens to be told again while the first is remembered.
var repeatedEvent = right{"broker-controller", "events.k8s.io", "events", "patch"}

// secretOfSource is given by users, a namespace at a time, by a RoleBinding to the ClusterRole millrace-source-secrets: until then a
// source is denied it and says so.
var secretOfSource = right{"broker-source", "", "secrets", "get"}

// checkRightsAreUsed compares what the service accounts of install.yaml may do with what they asked for in all tests: a
// right that nothing needs is not to be given, and none that is needed may lack.
func checkRightsAreUsed(c *cluster.Cluster) error {
	if c.AuditLog == "" {
		return nil
	}
	given, err := givenRights()
	if err != nil {
		return err
	}
	used, denied, err := usedRights(c.AuditLog)
	if err != nil {
		return err
	}
	if len(given) < 15 || len(used) < 15 {
		return fmt.Errorf("found only %d rights given and %d used", len(given), len(used))
	}
	return compareRights(given, used, denied)
}

// compareRights returns an error for each right that is given and was not used, and for each that was denied and neither given nor
// for users to give.
func compareRights(given, used, denied map[right]bool) error {
	// What is given and was denied all the same does not lack in install.yaml.
	maps.DeleteFunc(denied, func(r right, _ bool) bool { return given[r] || r == secretOfSource })
	maps.DeleteFunc(given, func(r right, _ bool) bool { return used[r] || r == repeatedEvent })
	var errs []error
	for r := range given {
		errs = append(errs, fmt.Errorf("install.yaml lets %s %s %s of group %q, which nothing has needed", r.account, r.verb, r.resource, r.group))
	}
	for r := range denied {
		errs = append(errs, fmt.Errorf("install.yaml does not let %s %s %s of group %q, which it has tried", r.account, r.verb, r.resource, r.group))
	}
	return errors.Join(errs...)
}

// givenRights reads the rights from the roles that install.yaml binds to service accounts. The controller's role that is
// made of others has none of its own.
func givenRights() (map[right]bool, error) {
	text, err := os.ReadFile(filepath.Join(cluster.Root(), "config", "install.yaml"))
	if err != nil {
		return nil, err
	}
	objects, err := cluster.DecodeAll(string(text))
	if err != nil {
		return nil, err
	}
	rules := map[string][]rbacv1.PolicyRule{}
	for _, o := range objects {
		if kind := o.GetKind(); kind == "ClusterRole" || kind == "Role" {
			var role rbacv1.ClusterRole
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
				return nil, err
			}
			rules[kind+role.Name] = role.Rules
		}
	}
	given := map[right]bool{}
	for _, o := range objects {
		if kind := o.GetKind(); kind != "ClusterRoleBinding" && kind != "RoleBinding" {
			continue
		}
		if err := addRights(given, o, rules); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// addRights adds what a binding gives.
func addRights(given map[right]bool, binding *unstructured.Unstructured, rules map[string][]rbacv1.PolicyRule) error {
	var b rbacv1.ClusterRoleBinding
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(binding.Object, &b); err != nil {
		return err
	}
	for _, subject := range b.Subjects {
		for _, rule := range rules[b.RoleRef.Kind+b.RoleRef.Name] {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						given[right{subject.Name, group, resource, verb}] = true
					}
				}
			}
		}
	}
	return nil
}

// usedRights reads from the audit log what the service accounts did, and what they were denied. The tests' own kinds are
// theirs to permit.
func usedRights(log string) (used, denied map[right]bool, err error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	used, denied = map[right]bool{}, map[right]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Verb             string
			ImpersonatedUser struct{ Username string }
			ObjectRef        struct{ APIGroup, Resource, Subresource string }
			ResponseStatus   struct{ Code int }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, nil, fmt.Errorf("read the audit log: %w", err)
		}
		parts := strings.Split(e.ImpersonatedUser.Username, ":") // system:serviceaccount:NAMESPACE:NAME
		if len(parts) != 4 || strings.HasPrefix(e.ObjectRef.APIGroup, "test.") {
			continue
		}
		r := right{parts[3], e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.Verb}
		if e.ObjectRef.Subresource != "" {
			r.resource += "/" + e.ObjectRef.Subresource
		}
		if e.ResponseStatus.Code == http.StatusForbidden {
			denied[r] = true
			continue
		}
		used[r] = true
		if r.verb == "watch" { // lists are part of watches where the API server can do that
			r.verb = "list"
			used[r] = true
		}
	}
	return used, denied, lines.Err()
}

// TestUnneededRightsAreFound shows that the comparison of rights can fail.
func TestUnneededRightsAreFound(t *testing.T) {
	reads, writes := right{"a", "", "services", "list"}, right{"a", "", "secrets", "get"}
	rights := func(all ...right) map[right]bool {
		m := map[right]bool{}
		for _, r := range all {
			m[r] = true
		}
		return m
	}
	for name, c := range map[string]struct {
		given, used, denied map[right]bool
		want                string
	}{
		"all used":          {rights(reads), rights(reads), rights(), ""},
		"one not used":      {rights(reads, writes), rights(reads), rights(), "lets a get secrets"},
		"one lacks":         {rights(reads), rights(reads), rights(writes), "does not let a get secrets"},
		"denied for once":   {rights(reads), rights(reads), rights(reads), ""},
		"given by users":    {rights(reads), rights(reads), rights(secretOfSource), ""},
		"used now and then": {rights(reads, repeatedEvent), rights(reads), rights(), ""},
	} {
		if err := compareRights(c.given, c.used, c.denied); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
