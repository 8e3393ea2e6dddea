package objects

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// unknownFieldHint guesses what somebody meant by a field that typ, at path, does not have.
func (d *decoder) unknownFieldHint(typ reflect.Type, path, name string) string {
	if hint := filterHint(typ, path, name); hint != "" {
		return hint
	}
	if near := nearest(name, d.names(typ)); near != "" {
		return "did you mean " + near + "?"
	}
	if elsewhere := d.pathsOf(name); len(elsewhere) > 0 {
		return fmt.Sprintf("%s belongs at %s: check the indentation", name, strings.Join(elsewhere, " or "))
	}
	if typ == reflect.TypeFor[metav1.ObjectMeta]() {
		return "known here: name, namespace, labels, annotations"
	}
	return "known here: " + strings.Join(d.names(typ), ", ")
}

// filterHint serves those who write attributes where a dialect has to come first.
func filterHint(typ reflect.Type, path, name string) string {
	attribute := regexp.MustCompile(`^(type|source|subject|id|time|specversion|dataschema|datacontenttype|partitionkey)$`)
	switch {
	case typ == reflect.TypeFor[eventingv1.TriggerFilter]() && attribute.MatchString(name):
		return fmt.Sprintf("write %s.attributes.%s", path, name)
	case typ == reflect.TypeFor[eventingv1.Filter]() && attribute.MatchString(name):
		return fmt.Sprintf("write exact: {%s: ...}", name)
	case typ == reflect.TypeFor[eventingv1.TriggerFilter]() && filterDialect(name):
		return fmt.Sprintf("%s is a dialect of spec.filters: write filters: [{%s: ...}]", name, name)
	}
	return ""
}

func filterDialect(name string) bool {
	return slices.Contains([]string{"all", "any", "not", "exact", "prefix", "suffix", "cesql", "sql"}, name)
}

func (d *decoder) names(typ reflect.Type) []string {
	fields := d.fieldsOf(typ)
	names := make([]string, 0, len(fields))
	for _, field := range fields {
		names = append(names, field.name)
	}
	return names
}

// pathsOf returns the shortest paths of spec at which a field of that name is possible, two at most.
func (d *decoder) pathsOf(name string) []string {
	type place struct {
		typ  reflect.Type
		path string
	}
	level := []place{{d.root, ""}}
	for range 4 {
		var found []string
		var next []place
		for _, p := range level {
			for _, field := range d.fieldsOf(p.typ) {
				if p.path == "" && field.name != "spec" {
					continue
				}
				at := join(p.path, field.name)
				if field.name == name {
					found = append(found, at)
				}
				if inner := structOf(field.typ); inner != nil {
					next = append(next, place{inner, at})
				}
			}
		}
		if len(found) > 0 && len(found) <= 2 {
			return found
		}
		level = next
	}
	return nil
}

// structOf returns the struct behind a type, nil when there is none.
func structOf(typ reflect.Type) reflect.Type {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	return typ
}

// shapeHint says how to write a mapping for those who wrote something simpler.
func shapeHint(typ reflect.Type, node *yaml.Node) string {
	switch {
	case typ == reflect.TypeFor[eventingv1.Destination]() && node.Kind == yaml.ScalarNode:
		return "write uri: " + shorten(node.Value) + " on a line of its own, indented"
	case typ == reflect.TypeFor[eventingv1.KReference]() && node.Kind == yaml.ScalarNode:
		return fmt.Sprintf("write {apiVersion: v1, kind: Service, name: %s}", shorten(node.Value))
	case typ == reflect.TypeFor[eventingv1.TriggerFilter]() && node.Kind == yaml.SequenceNode:
		return "a list of filters goes under spec.filters"
	case typ == reflect.TypeFor[eventingv1.TriggerFilter](), typ == reflect.TypeFor[eventingv1.Filter]():
		return "an expression is written as cel: ..."
	}
	return "write its fields on lines of their own, indented"
}

// scalarHint says how to write a scalar so that it has the type that is expected.
func scalarHint(expected reflect.Kind, node *yaml.Node, path string) string {
	switch expected {
	case reflect.String:
		if isDurationField(path) {
			if guess := eventingv1.SuggestDuration(node.Value); guess != "" {
				return "write " + guess
			}
		}
		return fmt.Sprintf("write %q, in quotes", node.Value)
	case reflect.Bool:
		return "write true or false, without quotes"
	default:
		plain := resolveScalar(&yaml.Node{Kind: yaml.ScalarNode, Value: node.Value})
		if _, ok := wholeNumber(plain); ok && node.Style != 0 {
			return "remove the quotes: " + node.Value
		}
		return ""
	}
}

func isDurationField(path string) bool {
	name := path[strings.LastIndexByte(path, '.')+1:]
	return name == "timeout" || name == "backoffDelay" || name == "retryAfterMax"
}

// nearest returns the candidate that name most likely is a slip for, "" when none is near. Of two that are equally near,
// one of the same length is the likelier: letters get swapped.
func nearest(name string, candidates []string) string {
	limit := min(2, len(name)/2)
	best, bestDistance := "", limit+1
	for _, candidate := range candidates {
		distance := editDistance(strings.ToLower(name), strings.ToLower(candidate))
		likelier := distance == bestDistance && best != "" && len(candidate) == len(name)
		if distance < bestDistance || likelier {
			best, bestDistance = candidate, distance
		}
	}
	return best
}

// editDistance counts the characters to insert, remove or replace to get from a to b. Strings too long to be names are far
// from everything.
func editDistance(a, b string) int {
	const far = 100
	if len(a) > far || len(b) > far {
		return far
	}
	return levenshtein.Distance(a, b, nil)
}
