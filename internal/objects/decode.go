package objects

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"

	eventingv1 "millrace.dev/api/eventing/v1"
	sourcesv1 "millrace.dev/api/sources/v1"
)

const (
	// maxDepth bounds how deep an object may nest, and with it alias cycles.
	maxDepth = 64
	// maxNodes bounds the nodes of an object after its aliases are expanded.
	maxNodes = 100_000
)

// decoder turns YAML nodes into Go values, strictly: every unknown field, wrong type and duplicate key is a problem with
// its place. It goes on after a problem, so that all of them are reported at once.
//
// Scalars mean what they mean to kubectl, which reads YAML 1.1: a plain yes is a boolean.
type decoder struct {
	report reporter
	places []place
	nodes  int
	root   reflect.Type
	fields map[reflect.Type][]structField
}

// reporter takes note of a mistake at a node.
type reporter func(node *yaml.Node, path, detail, hint string)

// structField is a field of a struct as JSON sees it.
type structField struct {
	name  string
	index []int
	typ   reflect.Type
}

func newDecoder(root reflect.Type, report reporter) *decoder {
	return &decoder{report: report, root: root, fields: map[reflect.Type][]structField{}}
}

// decode sets target from node.
func (d *decoder) decode(node *yaml.Node, target reflect.Value, path string) {
	d.value(node, target, path, 0)
	if d.nodes > maxNodes {
		d.report(node, "", fmt.Sprintf("more than %d values once its aliases are expanded", maxNodes), "write it without aliases")
	}
}

func (d *decoder) value(node *yaml.Node, target reflect.Value, path string, depth int) {
	d.nodes++
	if d.nodes > maxNodes {
		return
	}
	if depth > maxDepth {
		d.report(node, beginning(path), fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
		return
	}
	d.places = append(d.places, placeOf(node, path))
	node = resolveAlias(node)
	if isNull(node) {
		return // as if the field were not there
	}
	if list, ok := target.Addr().Interface().(*sourcesv1.StringList); ok {
		d.stringList(node, list, target, path, depth)
		return
	}
	if _, ok := target.Addr().Interface().(json.Unmarshaler); ok && target.Type() != filterType {
		d.viaJSON(node, target, path)
		return
	}
	switch target.Kind() {
	case reflect.Pointer:
		target.Set(reflect.New(target.Type().Elem()))
		d.value(node, target.Elem(), path, depth)
	case reflect.Struct:
		d.structValue(node, target, path, depth)
	case reflect.Map:
		d.mapValue(node, target, path, depth)
	case reflect.Slice:
		d.sliceValue(node, target, path, depth)
	default:
		d.scalarValue(node, target, path)
	}
}

// filterType reads JSON by itself so as to overlook mistakes, which are what a decoder is to find.
var filterType = reflect.TypeFor[eventingv1.Filter]()

// viaJSON decodes a scalar whose type reads JSON by itself, such as a time.
func (d *decoder) viaJSON(node *yaml.Node, target reflect.Value, path string) {
	if node.Kind != yaml.ScalarNode {
		return // the only such fields that are not scalars are kept by the API server for itself
	}
	quoted, err := json.Marshal(node.Value)
	if err == nil {
		err = json.Unmarshal(quoted, target.Addr().Interface())
	}
	if err != nil {
		d.report(node, path, "expected a time such as 2026-01-31T12:00:00Z, found "+describe(node), "")
	}
}

func (d *decoder) structValue(node *yaml.Node, target reflect.Value, path string, depth int) {
	if node.Kind != yaml.MappingNode {
		d.report(node, path, "expected a mapping, found "+describe(node), shapeHint(target.Type(), node))
		return
	}
	d.entries(node, path, func(entry pair, key string) {
		if path == "" && key == "status" {
			return // as with kubectl apply: what kubectl get wrote may be there, and says nothing
		}
		field, ok := d.field(target.Type(), key)
		if !ok {
			d.report(entry.key, join(path, key), "unknown field", d.unknownFieldHint(target.Type(), path, key))
			return
		}
		d.value(entry.value, target.FieldByIndex(field.index), join(path, key), depth+1)
	})
}

func (d *decoder) mapValue(node *yaml.Node, target reflect.Value, path string, depth int) {
	if node.Kind != yaml.MappingNode {
		d.report(node, path, "expected a mapping, found "+describe(node), "write key: value, one a line, indented")
		return
	}
	target.Set(reflect.MakeMap(target.Type()))
	d.entries(node, path, func(entry pair, key string) {
		at := path + "[" + key + "]"
		if isNull(resolveAlias(entry.value)) {
			d.report(entry.value, at, "has no value", `write "" for the empty string`)
			return
		}
		value := reflect.New(target.Type().Elem()).Elem()
		d.value(entry.value, value, at, depth+1)
		target.SetMapIndex(reflect.ValueOf(key).Convert(target.Type().Key()), value)
	})
}

func (d *decoder) sliceValue(node *yaml.Node, target reflect.Value, path string, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.report(node, path, "expected a list, found "+describe(node), `begin each element with "- "`)
		return
	}
	// The elements are appended, not allocated ahead: an alias bomb ends at maxNodes, whatever lengths it claims.
	for i, element := range node.Content {
		if d.nodes > maxNodes {
			return
		}
		at := path + "[" + strconv.Itoa(i) + "]"
		if isNull(resolveAlias(element)) {
			d.report(element, at, "the element is empty", "remove it, or write its value")
			continue
		}
		value := reflect.New(target.Type().Elem()).Elem()
		d.value(element, value, at, depth+1)
		target.Set(reflect.Append(target, value))
	}
}

// stringList decodes a list of strings that may be written as one string with commas.
func (d *decoder) stringList(node *yaml.Node, list *sourcesv1.StringList, target reflect.Value, path string, depth int) {
	if node.Kind != yaml.ScalarNode {
		d.sliceValue(node, target, path, depth)
		return
	}
	var text string
	d.scalarValue(node, reflect.ValueOf(&text).Elem(), path)
	*list = sourcesv1.SplitList(text)
}

// entries calls visit for every entry of a mapping, once a key.
func (d *decoder) entries(node *yaml.Node, path string, visit func(entry pair, key string)) {
	entries, own := pairs(node)
	first := make(map[string]*yaml.Node, len(entries))
	for i, entry := range entries {
		key, ok := d.key(entry.key, path)
		if !ok {
			continue
		}
		if before, duplicate := first[key]; duplicate {
			if i < own {
				d.report(entry.key, join(path, key), "given twice", fmt.Sprintf("the first is on line %d", before.Line))
			}
			continue
		}
		first[key] = entry.key
		visit(entry, key)
	}
}

// key returns the text of a mapping's key.
func (d *decoder) key(node *yaml.Node, path string) (string, bool) {
	node = resolveAlias(node)
	if node.Kind != yaml.ScalarNode {
		d.report(node, path, "expected a name as the key, found "+describe(node), "")
		return "", false
	}
	switch resolveScalar(node).(type) {
	case bool, nil:
		d.report(node, path, fmt.Sprintf("the key %s is not a string but %s in YAML", node.Value, describe(node)),
			fmt.Sprintf("write %q", node.Value))
		return "", false
	}
	return node.Value, true
}

func (d *decoder) scalarValue(node *yaml.Node, target reflect.Value, path string) {
	if node.Kind != yaml.ScalarNode {
		d.report(node, path, "expected "+typeName(target.Kind())+", found "+describe(node), "")
		return
	}
	if tag := node.Tag; node.Style&yaml.TaggedStyle != 0 && tag != "!!str" {
		d.report(node, path, "the tag "+tag+" is not supported", "remove the tag")
		return
	}
	if !setScalar(target, resolveScalar(node)) {
		d.report(node, path, "expected "+typeName(target.Kind())+", found "+describe(node), scalarHint(target.Kind(), node, path))
	}
}

// setScalar sets target to value; it reports whether the types fit.
func setScalar(target reflect.Value, value any) bool {
	switch target.Kind() {
	case reflect.String:
		s, ok := value.(string)
		target.SetString(s)
		return ok
	case reflect.Bool:
		b, ok := value.(bool)
		target.SetBool(b)
		return ok
	case reflect.Int32, reflect.Int64:
		n, ok := wholeNumber(value)
		if !ok || target.OverflowInt(n) {
			return false
		}
		target.SetInt(n)
		return true
	default:
		return false
	}
}

// wholeNumber returns an integer, also one written as 3.0.
func wholeNumber(value any) (int64, bool) {
	switch v := value.(type) {
	case int:
		return int64(v), true
	case int64:
		return v, true
	case float64:
		const exact = 1 << 53
		if v == float64(int64(v)) && v < exact && v > -exact {
			return int64(v), true
		}
	}
	return 0, false
}

// resolveScalar returns what a scalar means in YAML 1.1: nil, a bool, a number or a string.
func resolveScalar(node *yaml.Node) any {
	if !isPlain(node) || !mayBeTyped(node.Value) {
		return node.Value
	}
	// As the only element of a list, so that nothing but a scalar can come of it.
	var list []any
	if err := yamlv2.Unmarshal([]byte("- "+node.Value), &list); err != nil || len(list) != 1 {
		return node.Value
	}
	switch v := list[0].(type) {
	case nil, bool, int, int64, uint64, float64:
		return v
	}
	return node.Value
}

// isPlain reports whether a scalar is written without quotes, as no block, and without a tag.
func isPlain(node *yaml.Node) bool {
	return node.Style&^yaml.FlowStyle == 0
}

// mayBeTyped reports whether a plain scalar can be anything but a string. It spares the parser most of the texts.
func mayBeTyped(value string) bool {
	const longestWord = len("false")
	switch {
	case value == "":
		return true
	case strings.ContainsRune("yYnNtTfFoO~", rune(value[0])):
		return len(value) <= longestWord
	}
	return strings.ContainsRune("+-.0123456789", rune(value[0]))
}

func isNull(node *yaml.Node) bool {
	if node.Kind != yaml.ScalarNode || !isPlain(node) {
		return false
	}
	switch node.Value {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// field returns a struct's field by its JSON name.
func (d *decoder) field(typ reflect.Type, name string) (structField, bool) {
	for _, field := range d.fieldsOf(typ) {
		if field.name == name {
			return field, true
		}
	}
	return structField{}, false
}

func (d *decoder) fieldsOf(typ reflect.Type) []structField {
	if fields, ok := d.fields[typ]; ok {
		return fields
	}
	var fields []structField
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "" && field.Anonymous:
			for _, inner := range d.fieldsOf(field.Type) {
				index := append([]int{i}, inner.index...)
				fields = append(fields, structField{name: inner.name, index: index, typ: inner.typ})
			}
		case name != "" && name != "-":
			fields = append(fields, structField{name: name, index: []int{i}, typ: field.Type})
		}
	}
	d.fields[typ] = fields
	return fields
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// beginning is the part of a very long path that a reader needs.
func beginning(path string) string {
	const limit = 40
	if len(path) <= limit {
		return path
	}
	return path[:max(strings.LastIndexByte(path[:limit], '.'), 0)]
}

func typeName(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int32, reflect.Int64:
		return "a whole number"
	default:
		return "something else"
	}
}

// describe says what a node is, with its text where it is short.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return describeScalar(node)
	}
}

func describeScalar(node *yaml.Node) string {
	switch resolveScalar(node).(type) {
	case nil:
		return "nothing"
	case bool:
		return "the boolean " + node.Value
	case string:
		return "the string " + strconv.Quote(shorten(node.Value))
	}
	return "the number " + shorten(node.Value)
}

func shorten(s string) string {
	const limit = 40
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit]) + "…"
	}
	return s
}
