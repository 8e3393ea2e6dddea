package objects

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
)

// Source delivers Sets. Run calls apply with the first Set before it waits for anything, and again on every change,
// serially. It returns when ctx ends, with nil, or when it can deliver no more.
type Source interface {
	Run(ctx context.Context, apply func(*Set)) error
}

// Key names an object.
type Key struct {
	Kind, Namespace, Name string
}

// String returns the key as people write it: Trigger default/gifts.
func (k Key) String() string {
	if k.Name == "" {
		return k.Kind + " without a name"
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Problem is a mistake in a manifest, located.
type Problem struct {
	// File is the file's path as it was found, or "-" for standard input; empty for an object of a cluster.
	File string
	// Line and Column count from 1, the column in characters; 0 means the file as a whole.
	Line, Column int
	// Object is the object with the mistake, such as "Trigger default/gifts"; empty when that cannot be told.
	Object string
	// Field is the path of the field, such as spec.filters[0].cel; empty for the object as a whole.
	Field string
	// Detail says what is wrong and what was expected.
	Detail string
	// Hint says what to write instead; may be empty.
	Hint string
	// Kept says that the last good version of what is reported stays in use.
	Kept bool
}

// String returns the problem as one line, which editors and terminals take for a link:
//
//	gifts.yaml:7:5: Trigger default/gifts: spec.filer: unknown field (did you mean filter?)
func (p Problem) String() string {
	place := p.File
	if p.Line > 0 {
		place += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	parts := slices.DeleteFunc([]string{place, p.Object, p.Field, p.Detail}, func(part string) bool { return part == "" })
	var b strings.Builder
	b.WriteString(strings.Join(parts, ": "))
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	if p.Kept {
		b.WriteString("; the last good version stays in use")
	}
	return b.String()
}

// Set is everything known at one moment. It and all it points to are immutable.
type Set struct {
	// Brokers and Triggers are sound, defaulted and resolved, in order of namespace and name. Those that cannot be
	// served are here too: their Ready condition is False.
	Brokers  []*eventingv1.Broker
	Triggers []*eventingv1.Trigger
	// Sources of all kinds are likewise. Their Ready condition says whether they can be run, not whether what they read can be
	// reached.
	Sources []sourcesv1.Source
	// Secrets are the values of Secrets by key, as far as they are known here.
	Secrets map[types.NamespacedName]map[string][]byte
	// Problems are the mistakes found, in order of file and line.
	Problems []Problem
	// Skipped counts what was passed over on purpose, by description: objects of other kinds ("apps/v1 Deployment"),
	// Brokers of other classes and their Triggers.
	Skipped map[string]int

	places map[Key]*object
}

// Secret returns the value of a key in a Secret.
func (s *Set) Secret(namespace, name, key string) ([]byte, bool) {
	value, ok := s.Secrets[types.NamespacedName{Namespace: namespace, Name: name}][key]
	return value, ok
}

// Locate returns where a field of an object was written, so that errors found later, such as those of a filter's
// compilation, can be located too. fieldPath has the form of field.Path: spec.filters[0].exact[type]. Of a path that was
// not written (a missing field) the nearest part that was is returned. Line and column count from 1; file is empty when
// the object is not of this Set.
func (s *Set) Locate(kind, namespace, name, fieldPath string) (file string, line, column int) {
	o, ok := s.places[Key{Kind: kind, Namespace: namespace, Name: name}]
	if !ok {
		return "", 0, 0
	}
	at := o.locate(fieldPath)
	return o.file, int(at.line), int(at.column)
}

// Explain turns errors about an object of this Set into located problems.
func (s *Set) Explain(key Key, errs field.ErrorList) []Problem {
	problems := make([]Problem, 0, len(errs))
	for _, err := range errs {
		file, line, column := s.Locate(key.Kind, key.Namespace, key.Name, err.Field)
		problems = append(problems, Problem{
			File: file, Line: line, Column: column,
			Object: key.String(), Field: err.Field, Detail: fieldErrorDetail(err),
		})
	}
	return problems
}
