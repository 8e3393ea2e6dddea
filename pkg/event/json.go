package event

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// DecodeJSON returns the event of a document in the CloudEvents JSON format, which is the body of a message in structured
// content mode (JSON format, section 3). Attributes keep the document's order. A member that is null counts as absent.
//
// Data that the content type says is JSON, or that has no content type, is kept as it stands in the document, byte for
// byte; without a content type the event gets application/json, as the format says. Of other data the text of the JSON
// string is kept. The event may share body. The error is an [*Error].
func DecodeJSON(body []byte) (*Event, error) {
	if err := checkDocument(body); err != nil {
		return nil, err
	}
	return decodeObject(body)
}

// DecodeJSONBatch returns the events of a document in the JSON batch format (JSON format, section 4), as [DecodeJSON]
// does. An empty batch is valid. If any event is not, the error is an [*Error] with the Index of the first such one.
func DecodeJSONBatch(body []byte) ([]*Event, error) {
	if err := checkDocument(body); err != nil {
		return nil, err
	}
	if s := (scanner{b: body}); s.first() != '[' {
		return nil, invalid("", "the body is not a JSON array", "send a batch as [{...}, {...}]")
	}
	var events []*Event
	for i, raw := range elements(body) {
		e, err := decodeObject(raw)
		if err != nil {
			return nil, atIndex(err, i)
		}
		events = append(events, e)
	}
	return events, nil
}

func atIndex(err error, i int) error {
	var bad *Error
	if errors.As(err, &bad) {
		bad.Index = i
	}
	return err
}

// member is one member of a JSON event. The value is as it stands in the document.
type member struct {
	name  string
	value []byte
}

func (m *member) isNull() bool { return m.value[0] == 'n' }

func (m *member) isString() bool { return m.value[0] == '"' }

// decodeObject reads an event from valid JSON.
func decodeObject(raw []byte) (*Event, error) {
	if s := (scanner{b: raw}); s.first() != '{' {
		return nil, invalid("", "the event is not a JSON object", `send {"specversion": "1.0", ...}`)
	}
	list, err := listMembers(raw)
	if err != nil {
		return nil, err
	}
	e := &Event{Attributes: make([]Attribute, 0, len(list)+2)} // Room for the two attributes that admission adds.
	var data, dataBase64 *member
	for i := range list {
		m := &list[i]
		switch {
		case m.name == dataMember:
			data = m
		case m.isNull():
		case m.name == dataBase64Member:
			dataBase64 = m
		default:
			if err := e.addMember(m); err != nil {
				return nil, err
			}
		}
	}
	if err := e.validateReceived(); err != nil {
		return nil, err
	}
	if err := e.decodeData(data, dataBase64); err != nil {
		return nil, err
	}
	return e, nil
}

func listMembers(raw []byte) ([]member, error) {
	list := make([]member, 0, 16)
	for quoted, value := range members(raw) {
		name, ok := memberName(quoted)
		if !ok {
			return nil, invalid("", "a member's name is not valid Unicode", "")
		}
		if find(list, name) != nil {
			return nil, duplicate(quoteName(name))
		}
		if len(list) == MaxAttributes+2 {
			return nil, tooMany()
		}
		list = append(list, member{name, value})
	}
	return list, nil
}

func find(list []member, name string) *member {
	for i := range list {
		if list[i].name == name {
			return &list[i]
		}
	}
	return nil
}

// memberName returns what a quoted member name stands for; the usual ones need no memory.
func memberName(quoted []byte) (string, bool) {
	switch string(quoted[1 : len(quoted)-1]) {
	case SpecVersion:
		return SpecVersion, true
	case ID:
		return ID, true
	case Source:
		return Source, true
	case Type:
		return Type, true
	case Subject:
		return Subject, true
	case Time:
		return Time, true
	case DataContentType:
		return DataContentType, true
	case dataMember:
		return dataMember, true
	}
	name, ok := unescape(quoted)
	return string(name), ok
}

// addMember adds an attribute given as a member that is not null.
func (e *Event) addMember(m *member) error {
	if err := checkName(m.name); err != nil {
		return err
	}
	a := Attribute{Name: m.name}
	switch c := m.value[0]; c {
	case '"':
		text, ok := unescape(m.value)
		if !ok {
			return invalid(m.name, "contains half of a surrogate pair", "escape characters beyond U+FFFF as two \\u sequences")
		}
		a.Value = string(text)
	case 't', 'f':
		a.Kind, a.Value = Boolean, strconv.FormatBool(c == 't')
	case '{', '[':
		return invalid(m.name, "is an object or an array", "attributes are strings, whole numbers or booleans: move it into the data")
	default:
		a.Kind, a.Value = Integer, canonicalInteger(m.value)
	}
	if a.Name == DataContentType && a.Kind == String && !isMediaType(a.Value) {
		return invalid(a.Name, "is not a media type", "write something like application/json")
	}
	e.Attributes = append(e.Attributes, a)
	return nil
}

// canonicalInteger returns a JSON number's text, which validation looks at; only minus zero is not yet canonical.
func canonicalInteger(number []byte) string {
	if string(number) == "-0" {
		return "0"
	}
	return string(number)
}

// isMediaType checks what matters: that there are a type and a subtype, and nothing a header would lose.
func isMediaType(s string) bool {
	if strings.Trim(s, " \t") != s {
		return false
	}
	typ, sub, ok := strings.Cut(mediaType(s), "/")
	return ok && isToken(typ) && isToken(sub)
}

// isToken says whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if mustEncode(c) && c != '%' || strings.IndexByte(`(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// decodeData reads the payload from the members that may hold it; they are nil if absent.
func (e *Event) decodeData(data, dataBase64 *member) error {
	encoding, encoded := e.Get(dataContentEncoding)
	switch encoded = encoded && e.Value(SpecVersion) == "0.3"; {
	case encoded && !strings.EqualFold(encoding, "base64"):
		return invalid(dataContentEncoding, "is not base64", `write "base64", or leave it out`)
	case encoded:
		e.Remove(dataContentEncoding)
	}
	switch {
	case dataBase64 != nil && data != nil && !data.isNull():
		return invalid(dataBase64Member, "is given beside data", "send one of data and data_base64")
	case dataBase64 != nil:
		return e.setBase64(dataBase64)
	case data == nil, encoded && data.isNull():
		return nil
	case encoded:
		return e.setBase64(data)
	default:
		return e.setData(data)
	}
}

func (e *Event) setBase64(m *member) error {
	if !m.isString() {
		return invalid(m.name, "is not a string", "send base64 in double quotes")
	}
	text, _ := unescape(m.value)
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(data, text)
	if err != nil {
		return invalid(m.name, "is not base64", "use the standard alphabet with padding (RFC 4648, section 4)")
	}
	if n > 0 {
		e.Data = data[:n]
	}
	return nil
}

func (e *Event) setData(m *member) error {
	contentType, ok := e.Get(DataContentType)
	switch {
	case !ok:
		e.Set(DataContentType, jsonType, String)
		e.Data = m.value
	case IsJSON(contentType):
		e.Data = m.value
	case m.isNull():
	case !m.isString():
		return invalid(dataMember, "is not a string although the content type is not JSON", "send a string, data_base64, or datacontenttype application/json")
	default:
		return e.setText(m)
	}
	return nil
}

func (e *Event) setText(m *member) error {
	text, ok := unescape(m.value)
	if !ok {
		return invalid(dataMember, "contains half of a surrogate pair", "send data_base64")
	}
	if len(text) > 0 {
		e.Data = text
	}
	return nil
}

// AppendJSON appends e in the JSON format to dst. Integers and booleans are written as such. Data is written
//   - as it is, if the content type is JSON and the data really is: white space around it, which JSON gives no meaning,
//     is all that a decoder may not give back;
//   - as a string, if the content type is one of text and the data is UTF-8;
//   - as data_base64 otherwise (in CloudEvents 0.3 as data with datacontentencoding base64), which includes data without
//     a content type.
//
// [DecodeJSON] gives back the same bytes.
func (e *Event) AppendJSON(dst []byte) []byte {
	old := e.Value(SpecVersion) == "0.3"
	dst = append(dst, '{')
	for i := range e.Attributes {
		a := &e.Attributes[i]
		if old && a.Name == dataContentEncoding {
			continue // Says how another document held the data.
		}
		dst = appendName(dst, a.Name)
		if a.Kind == String {
			dst = appendString(dst, a.Value)
		} else {
			dst = append(dst, a.Value...)
		}
	}
	if len(e.Data) > 0 {
		dst = e.appendData(dst, old)
	}
	return append(dst, '}')
}

// appendName appends the name of a JSON member, with a comma if it is not the first.
func appendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendString(dst, name), ':')
}

func (e *Event) appendData(dst []byte, old bool) []byte {
	contentType := e.Value(DataContentType)
	switch utf := utf8.Valid(e.Data); {
	case utf && IsJSON(contentType) && json.Valid(e.Data):
		return append(appendName(dst, dataMember), e.Data...)
	case utf && isText(contentType):
		return appendString(appendName(dst, dataMember), e.Data)
	case old:
		dst = appendString(appendName(dst, dataContentEncoding), "base64")
		dst = appendName(dst, dataMember)
	default:
		dst = appendName(dst, dataBase64Member)
	}
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), e.Data)
	return append(dst, '"')
}

// isText says whether people would call data of the given media type text. It looks at the type alone and not at the
// data, so that a subscriber always finds one content type in the same member.
func isText(contentType string) bool {
	mt := mediaType(contentType)
	for _, t := range [...]string{"application/xml", "application/yaml", "application/javascript", "application/x-www-form-urlencoded"} {
		if strings.EqualFold(mt, t) {
			return true
		}
	}
	return hasPrefixFold(mt, "text/") && !IsJSON(mt) || hasSuffixFold(mt, "+xml") || hasSuffixFold(mt, "+yaml")
}
