package cel

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"millrace.dev/pkg/event"
)

// attributes is the variable ce: a read-only CEL map straight over the event's attributes. Each value is converted at
// most once an event, however many programs ask for it.
type attributes struct {
	event *event.Event
	vals  []ref.Val // as event.Attributes; nil = not converted yet
}

var _ traits.Mapper = (*attributes)(nil)

func (a *attributes) reset(e *event.Event) {
	a.event = e
	clear(a.vals)
	if n := len(e.Attributes); n <= cap(a.vals) {
		a.vals = a.vals[:n]
	} else {
		a.vals = make([]ref.Val, n)
	}
}

// value returns the i-th attribute in its CEL type, or a CEL error if its text is not of that type.
func (a *attributes) value(i int) ref.Val {
	if a.vals[i] == nil {
		a.vals[i] = convert(&a.event.Attributes[i])
	}
	return a.vals[i]
}

// wellKnown gives the type of attributes that specifications and Knative define as other than strings. HTTP headers
// carry text only, so their kind alone does not tell.
func wellKnown(name string) *types.Type {
	switch name {
	case event.Time, "knativearrivaltime", "expirytime", "recordedtime":
		return types.TimestampType
	case "knativeerrorcode", "knativeerrorattempts", "knativebrokerttl", "sampledrate":
		return types.IntType
	default:
		return types.StringType
	}
}

func convert(attr *event.Attribute) ref.Val {
	switch wellKnown(attr.Name) {
	case types.TimestampType:
		return timestamp(attr)
	case types.IntType:
		return integer(attr)
	}
	switch attr.Kind {
	case event.Integer:
		return integer(attr)
	case event.Boolean:
		return types.Bool(attr.Value == "true")
	default:
		return types.String(attr.Value)
	}
}

func integer(attr *event.Attribute) ref.Val {
	n, err := strconv.ParseInt(attr.Value, 10, 64)
	if err != nil {
		return types.WrapErr(kindErrorf(KindAttribute, "ce.%s is not an integer: %.40q", attr.Name, attr.Value))
	}
	return types.Int(n)
}

// timestamp accepts what RFC 3339 does: the letters T and Z may be lower-case, which time.Parse does not know.
func timestamp(attr *event.Attribute) ref.Val {
	t, err := time.Parse(time.RFC3339Nano, attr.Value)
	if err != nil {
		t, err = time.Parse(time.RFC3339Nano, strings.ToUpper(attr.Value))
	}
	if err != nil {
		return types.WrapErr(kindErrorf(KindAttribute, "ce.%s is not an RFC 3339 time: %.40q", attr.Name, attr.Value))
	}
	return types.Timestamp{Time: t}
}

// Find implements [traits.Mapper].
func (a *attributes) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	for i := range a.event.Attributes {
		if a.event.Attributes[i].Name == string(name) {
			return a.value(i), true
		}
	}
	return nil, false
}

// Get implements [traits.Indexer].
func (a *attributes) Get(key ref.Val) ref.Val {
	if v, ok := a.Find(key); ok {
		return v
	}
	return types.WrapErr(kindErrorf(KindMissing, "no such key: %v", key))
}

// Contains implements [traits.Container]: an attribute is there even if its value cannot be converted.
func (a *attributes) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	return types.Bool(ok && a.event.Lookup(string(name)) != nil)
}

// Size implements [traits.Sizer].
func (a *attributes) Size() ref.Val { return types.Int(len(a.event.Attributes)) }

// Iterator implements [traits.Iterable]: it yields the names in the order of the event.
func (a *attributes) Iterator() traits.Iterator {
	names := make([]string, len(a.event.Attributes))
	for i := range names {
		names[i] = a.event.Attributes[i].Name
	}
	return types.NewStringList(types.DefaultTypeAdapter, names).Iterator()
}

// plain returns the attributes as one of the evaluator's own maps, for the operations that nobody uses in a hurry.
func (a *attributes) plain() traits.Mapper {
	m := make(map[ref.Val]ref.Val, len(a.event.Attributes))
	for i := range a.event.Attributes {
		m[types.String(a.event.Attributes[i].Name)] = a.value(i)
	}
	return types.NewRefValMap(types.DefaultTypeAdapter, m)
}

// ConvertToNative implements [ref.Val].
func (a *attributes) ConvertToNative(t reflect.Type) (any, error) {
	return a.plain().ConvertToNative(t)
}

// ConvertToType implements [ref.Val].
func (a *attributes) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.MapType:
		return a
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("type conversion error from '%s' to '%s'", types.MapType, t)
}

// Equal implements [ref.Val].
func (a *attributes) Equal(other ref.Val) ref.Val { return a.plain().Equal(other) }

// Type implements [ref.Val].
func (a *attributes) Type() ref.Type { return types.MapType }

// Value implements [ref.Val].
func (a *attributes) Value() any { return a.plain().Value() }
