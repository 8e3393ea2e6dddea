package event

import (
	"net/http"
	"slices"
	"strings"
)

// Mode is the content mode of an HTTP message (CloudEvents HTTP binding, section 3).
type Mode uint8

// The content modes. ModeUnsupported is an event format other than JSON.
const (
	ModeBinary Mode = iota
	ModeStructured
	ModeBatch
	ModeUnsupported
)

// The media types of the JSON format.
const (
	ContentTypeJSON      = "application/cloudevents+json"
	ContentTypeBatchJSON = "application/cloudevents-batch+json"

	formatPrefix = "application/cloudevents"
	jsonType     = "application/json"
)

// The bounds on the headers that travel with an event: their number, the length of one value, and that of all names and
// values. What exceeds them is dropped: no event is worth refusing for it.
const (
	maxPassOn           = 64
	maxPassOnBytes      = 4 << 10
	maxPassOnTotalBytes = 8 << 10
)

const contentTypeHeader = "Content-Type"

// passOnOpen begins the names of headers that are passed on whatever follows.
const passOnOpen = "Knative-"

// DetectMode tells from a Content-Type header how a message carries its event.
func DetectMode(contentType string) Mode {
	mt := mediaType(contentType)
	switch {
	case !hasPrefixFold(mt, formatPrefix):
		return ModeBinary
	case strings.EqualFold(mt, ContentTypeJSON):
		return ModeStructured
	case strings.EqualFold(mt, ContentTypeBatchJSON):
		return ModeBatch
	default:
		return ModeUnsupported
	}
}

// IsJSON says whether data of the given media type is JSON: application/json, text/json, or any type ending in +json.
// Parameters and case do not matter.
func IsJSON(contentType string) bool {
	mt := mediaType(contentType)
	return strings.EqualFold(mt, jsonType) || strings.EqualFold(mt, "text/json") || hasSuffixFold(mt, "+json")
}

// mediaType cuts the parameters off a Content-Type.
func mediaType(contentType string) string {
	mt, _, _ := strings.Cut(contentType, ";")
	return strings.Trim(mt, " \t")
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) > len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

// DecodeBinary returns the event of a message in binary content mode (HTTP binding, section 3.1). Its attributes are in
// the order of the specification, then extensions by name; Headers are those of [PassOn]. The event shares body.
//
// The error is an [*Error]. It is one to send an attribute's header twice: which of them counts would be a guess.
func DecodeBinary(h http.Header, body []byte) (*Event, error) {
	e := &Event{Attributes: make([]Attribute, 0, countAttributes(h))}
	for key, values := range h {
		name, ok := attributeName(key)
		if !ok {
			continue
		}
		if len(e.Attributes) > MaxAttributes {
			break // It will be refused.
		}
		if name == DataContentType && len(key) != len(contentTypeHeader) {
			return nil, invalid(name, "has a header of its own", "send the media type as Content-Type")
		}
		if err := e.addHeader(name, values); err != nil {
			return nil, err
		}
	}
	e.Sort()
	if !e.hasHeaders() {
		return nil, invalid(SpecVersion, "is missing, and so are all other ce- headers",
			`send the attributes as headers such as "ce-specversion: 1.0", or all of the event as JSON with "Content-Type: `+ContentTypeJSON+`"`)
	}
	if err := e.validateReceived(); err != nil {
		return nil, err
	}
	e.Headers = PassOn(h)
	if len(body) > 0 {
		e.Data = body
	}
	return e, nil
}

// hasHeaders says whether e has an attribute with a ce- header. Without any, its sender most likely does not know of the
// content modes.
func (e *Event) hasHeaders() bool {
	return slices.ContainsFunc(e.Attributes, func(a Attribute) bool { return a.Name != DataContentType })
}

func countAttributes(h http.Header) int {
	n := 0
	for key := range h {
		if hasPrefixFold(key, "ce-") || key == contentTypeHeader {
			n++
		}
	}
	return min(n+2, MaxAttributes+1) // Room for the two attributes that admission adds.
}

// attributeName returns the name of the attribute that the header key stands for, if any.
func attributeName(key string) (string, bool) {
	switch key { // The canonical ones need no memory.
	case "Ce-Id":
		return ID, true
	case "Ce-Source":
		return Source, true
	case "Ce-Specversion":
		return SpecVersion, true
	case "Ce-Type":
		return Type, true
	case "Ce-Subject":
		return Subject, true
	case "Ce-Time":
		return Time, true
	case "Ce-Dataschema":
		return DataSchema, true
	case contentTypeHeader:
		return DataContentType, true
	}
	if hasPrefixFold(key, "ce-") {
		return strings.ToLower(key[len("ce-"):]), true
	}
	return DataContentType, strings.EqualFold(key, contentTypeHeader)
}

func (e *Event) addHeader(name string, values []string) error {
	switch {
	case len(values) == 0:
		return nil
	case len(values) > 1:
		return duplicate(quoteName(name))
	case name == DataContentType && values[0] == "":
		return nil // As good as no Content-Type.
	}
	a, err := AttributeFromWire(name, values[0])
	if err != nil {
		return err
	}
	e.Attributes = append(e.Attributes, a)
	return nil
}

// Sort puts the attributes into the order in which people expect to read them: the required ones, the other context
// attributes, and the extensions by name.
func (e *Event) Sort() { slices.SortFunc(e.Attributes, compareAttributes) }

func compareAttributes(a, b Attribute) int {
	if d := rank(a.Name) - rank(b.Name); d != 0 {
		return d
	}
	return strings.Compare(a.Name, b.Name)
}

// rank orders attributes the way people expect to read them.
func rank(name string) int {
	switch name {
	case SpecVersion:
		return 0
	case ID:
		return 1
	case Source:
		return 2
	case Type:
		return 3
	case Subject:
		return 4
	case Time:
		return 5
	case DataContentType:
		return 6
	case DataSchema:
		return 7
	default:
		return 8
	}
}

// PassOn returns the headers of a request that are handed on with its event: traceparent, tracestate, x-request-id,
// b3, x-b3-* and knative-*, by name but the last, values in their order. A value with CR, LF or NUL or longer than 4 KiB
// is left out, and so is what exceeds 64 headers or 8 KiB in all. The result is nil if there are none.
func PassOn(h http.Header) []Header {
	var out []Header
	for key, values := range h {
		if key = http.CanonicalHeaderKey(key); !passesOn(key) {
			continue
		}
		for _, v := range values {
			if len(v) <= maxPassOnBytes && !strings.ContainsAny(v, "\r\n\x00") {
				out = append(out, Header{Name: key, Value: v})
			}
		}
	}
	slices.SortStableFunc(out, comparePassOn)
	return boundPassOn(out)
}

// comparePassOn puts knative-* last: anybody may make up any number of those, and they must not crowd out a trace.
func comparePassOn(a, b Header) int {
	if open := strings.HasPrefix(a.Name, passOnOpen); open != strings.HasPrefix(b.Name, passOnOpen) {
		if open {
			return 1
		}
		return -1
	}
	return strings.Compare(a.Name, b.Name)
}

func boundPassOn(headers []Header) []Header {
	bytes := 0
	for i, f := range headers {
		if bytes += len(f.Name) + len(f.Value); i == maxPassOn || bytes > maxPassOnTotalBytes {
			return headers[:i]
		}
	}
	return headers
}

func passesOn(key string) bool {
	switch key {
	case "Traceparent", "Tracestate", "X-Request-Id", "B3":
		return true
	}
	return strings.HasPrefix(key, passOnOpen) || strings.HasPrefix(key, "X-B3-")
}

// WriteHeader adds the attributes of e to h as binary content mode wants them (HTTP binding, section 3.1), replacing what
// h had under these names. It does not write e.Headers, which belong to every mode.
func (e *Event) WriteHeader(h http.Header) {
	values := make([]string, len(e.Attributes))
	for i := range e.Attributes {
		a := &e.Attributes[i]
		values[i] = a.WireValue()
		h[headerKey(a.Name)] = values[i : i+1 : i+1]
	}
}

// headerKey returns the header that carries the named attribute, in the canonical form of net/http.
func headerKey(name string) string {
	switch name {
	case ID:
		return "Ce-Id"
	case Source:
		return "Ce-Source"
	case SpecVersion:
		return "Ce-Specversion"
	case Type:
		return "Ce-Type"
	case Subject:
		return "Ce-Subject"
	case Time:
		return "Ce-Time"
	case DataSchema:
		return "Ce-Dataschema"
	case DataContentType:
		return contentTypeHeader
	case ArrivalTime: // Every event that is delivered has this one.
		return "Ce-Knativearrivaltime"
	case HopLimit:
		return "Ce-Knativebrokerttl"
	default:
		return extensionKey(name)
	}
}

// extensionKey is headerKey for extensions. In as good as all names there is nothing to make canonical but the first letter,
// which this does in one allocation.
func extensionKey(name string) string {
	for _, c := range []byte(name) {
		if (c < 'a' || 'z' < c) && (c < '0' || '9' < c) {
			return http.CanonicalHeaderKey("ce-" + name)
		}
	}
	if name == "" || name[0] < 'a' {
		return "Ce-" + name
	}
	letter := name[0] - 'a'
	return "Ce-" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[letter:letter+1] + name[1:]
}
