package objects

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
	sourcesv1alpha1 "millrace.dev/api/sources/v1alpha1"
)

// maxProblems bounds the problems reported of one object. Whoever has more is better served by the first.
const maxProblems = 50

// manifest is what one file says.
type manifest struct {
	objects  []*object
	problems []Problem
	skipped  map[string]int
	// failed are the objects with mistakes, those that could be told at least.
	failed map[Key]bool
	// broken says that a part of the file could not be parsed, so there may be objects nobody knows of.
	broken bool
}

// object is a sound object and where it was written. One of broker, trigger, source and secret is set.
type object struct {
	key     Key
	broker  *eventingv1.Broker
	trigger *eventingv1.Trigger
	source  sourcesv1.Source
	secret  secret
	file    string
	places  []place // that of the object as a whole first
}

// place is where a field was written. Of each value that was decoded this is kept, and not its node, which takes ten times as
// much and far more than what was decoded.
type place struct {
	path         string // in the form of field.Path
	line, column int32
}

func placeOf(node *yaml.Node, path string) place {
	return place{path: path, line: int32(node.Line), column: int32(node.Column)} //nolint:gosec // a file has maxFileSize bytes at most
}

// firstLine returns the object's first line, as file:line.
func (o *object) firstLine() string {
	return fmt.Sprintf("%s:%d", o.file, o.places[0].line)
}

// locate returns the place of a field, or that of the nearest part around it that was written.
func (o *object) locate(path string) place {
	for path != "" {
		if i := slices.IndexFunc(o.places, func(p place) bool { return p.path == path }); i >= 0 {
			return o.places[i]
		}
		before := "."
		if strings.HasSuffix(path, "]") {
			before = "["
		}
		path = path[:max(strings.LastIndex(path, before), 0)]
	}
	return o.places[0]
}

// parseManifest reads the text of one file. It never fails: whatever is wrong becomes a problem of the manifest.
func parseManifest(name, content string) *manifest {
	m := &manifest{skipped: map[string]int{}, failed: map[Key]bool{}}
	for _, doc := range parseDocuments(splitLines(strings.TrimPrefix(content, "\ufeff"))) {
		if doc.fault != nil {
			m.broken = true
			m.problems = append(m.problems, Problem{
				File: name, Line: doc.fault.line, Column: doc.fault.column,
				Detail: doc.fault.detail, Hint: doc.fault.hint,
			})
			continue
		}
		m.addDocument(name, doc.root, 0)
	}
	return m
}

// brokenManifest is a file of which nothing can be said but what is wrong with it.
func brokenManifest(name, detail, hint string) *manifest {
	return &manifest{broken: true, problems: []Problem{{File: name, Detail: detail, Hint: hint}}}
}

// keep adds what was good in an earlier version of the file and has nothing good in its place now: the objects that have
// mistakes, and, if a part of the file could not be parsed, all that were not seen.
func (m *manifest) keep(earlier *manifest) {
	present := map[Key]bool{}
	for _, o := range m.objects {
		present[o.key] = true
	}
	kept := map[string]bool{}
	for _, o := range earlier.objects {
		if !present[o.key] && (m.broken || m.failed[o.key]) {
			m.objects = append(m.objects, o)
			kept[o.key.String()] = true
		}
	}
	for i := range m.problems {
		p := &m.problems[i]
		p.Kept = kept[p.Object] || p.Object == "" && m.broken && len(kept) > 0
	}
}

// addDocument adds the object, or the list of objects, that a document holds.
func (m *manifest) addDocument(name string, node *yaml.Node, depth int) {
	node = resolveAlias(node)
	if isNull(node) {
		return // an empty document
	}
	if node.Kind != yaml.MappingNode {
		m.skipped["not a Kubernetes object"]++
		return
	}
	kind := kindOf(node)
	switch {
	case kind.isList() && depth < maxDepth:
		if items := child(node, "items"); items != nil && resolveAlias(items).Kind == yaml.SequenceNode {
			for _, item := range resolveAlias(items).Content {
				m.addDocument(name, item, depth+1)
			}
		}
	case kind.served():
		m.addObject(name, node, kind.name)
	default:
		m.addOther(name, node, kind)
	}
}

// addOther deals with what is not served: passed over, unless it was meant to be one.
func (m *manifest) addOther(name string, node *yaml.Node, kind objectKind) {
	wrong, detail, hint := kind.mistake(node)
	if detail == "" {
		m.skipped[kind.String()]++
		return
	}
	m.broken = true // what it was called before, nobody can tell
	at := node
	if value := child(node, wrong); value != nil {
		at = value
	}
	problem := Problem{File: name, Line: at.Line, Column: at.Column, Field: wrong, Detail: detail, Hint: hint}
	if called := scalarAt(node, "metadata", "name"); called != "" {
		problem.Object = strings.TrimSpace(kind.name + " " + called)
	}
	m.problems = append(m.problems, problem)
}

// addObject decodes, defaults and checks an object that is served.
func (m *manifest) addObject(name string, node *yaml.Node, kind string) {
	o := &object{key: keyOf(node, kind), file: name}
	before := len(m.problems)
	report := func(at place, path, detail, hint string) {
		if len(m.problems)-before >= maxProblems {
			return
		}
		m.problems = append(m.problems, Problem{
			File: name, Line: int(at.line), Column: int(at.column),
			Object: o.key.String(), Field: path, Detail: detail, Hint: hint,
		})
	}
	o.decode(node, func(at *yaml.Node, path, detail, hint string) { report(placeOf(at, path), path, detail, hint) })
	if len(m.problems) == before {
		for _, err := range o.validate() {
			report(o.locate(err.Field), err.Field, fieldErrorDetail(err), "")
		}
	}
	if len(m.problems) > before {
		m.failed[o.key] = true
		return
	}
	m.objects = append(m.objects, o)
}

func (o *object) decode(node *yaml.Node, report reporter) {
	switch o.key.Kind {
	case eventingv1.KindBroker:
		o.broker = decodeObject[eventingv1.Broker](o, node, report)
		o.broker.ObjectMeta = cleanMeta(&o.broker.ObjectMeta)
		eventingv1.DefaultBroker(o.broker)
	case eventingv1.KindTrigger:
		o.trigger = decodeObject[eventingv1.Trigger](o, node, report)
		o.trigger.ObjectMeta = cleanMeta(&o.trigger.ObjectMeta)
		eventingv1.DefaultTrigger(o.trigger)
	case sourcesv1.KindKafkaSource:
		source := decodeObject[sourcesv1.KafkaSource](o, node, report)
		source.ObjectMeta = cleanMeta(&source.ObjectMeta)
		o.setSource(source)
	case sourcesv1alpha1.KindRocketMQSource:
		source := decodeObject[sourcesv1alpha1.RocketMQSource](o, node, report)
		source.ObjectMeta = cleanMeta(&source.ObjectMeta)
		o.setSource(source)
	case kindSecret:
		o.secret = decodeSecret(node, report)
		o.places = metaPlaces(node)
	}
}

func (o *object) setSource(source sourcesv1.Source) {
	source.Default()
	o.source = source
}

func decodeObject[T any](o *object, node *yaml.Node, report reporter) *T {
	target := new(T)
	d := newDecoder(reflect.TypeFor[T](), report)
	d.decode(node, reflect.ValueOf(target).Elem(), "")
	o.places = slices.Clip(d.places)
	return target
}

// metaPlaces are the places of what can be wrong with any object.
func metaPlaces(node *yaml.Node) []place {
	places := []place{placeOf(node, "")}
	meta := child(node, "metadata")
	for path, at := range map[string]*yaml.Node{
		"metadata": meta, "metadata.name": child(meta, "name"), "metadata.namespace": child(meta, "namespace"),
	} {
		if at != nil {
			places = append(places, placeOf(at, path))
		}
	}
	return places
}

func (o *object) validate() field.ErrorList {
	switch {
	case o.broker != nil:
		return eventingv1.ValidateBroker(o.broker)
	case o.trigger != nil:
		return eventingv1.ValidateTrigger(o.trigger)
	case o.source != nil:
		return o.source.Validate()
	default:
		return eventingv1.ValidateMeta(o.key.Name, o.key.Namespace)
	}
}

// cleanMeta keeps of an object's metadata what its author decides.
func cleanMeta(meta *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: meta.Name, Namespace: meta.Namespace, Labels: meta.Labels, Annotations: meta.Annotations,
	}
}

func keyOf(node *yaml.Node, kind string) Key {
	key := Key{Kind: kind, Namespace: scalarAt(node, "metadata", "namespace"), Name: scalarAt(node, "metadata", "name")}
	if key.Namespace == "" {
		key.Namespace = eventingv1.DefaultNamespace
	}
	return key
}

// fieldErrorDetail is the text of a validation error without its field, which Problem has beside it.
func fieldErrorDetail(err *field.Error) string {
	switch err.Type {
	case field.ErrorTypeRequired:
		return "is missing: " + err.Detail
	case field.ErrorTypeForbidden:
		return err.Detail
	case field.ErrorTypeNotSupported:
		return fmt.Sprintf("%s is not one of the %s", badValue(err.BadValue), err.Detail)
	case field.ErrorTypeInvalid:
		return badValue(err.BadValue) + " " + err.Detail
	default:
		return err.ErrorBody()
	}
}

func badValue(value any) string {
	if v := reflect.ValueOf(value); v.Kind() == reflect.String {
		return fmt.Sprintf("%q", shorten(v.String()))
	}
	return shorten(fmt.Sprint(value))
}
