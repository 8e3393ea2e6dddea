package kafka

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
)

// EventType is the type of the event made of a record that is not a CloudEvent.
const EventType = "dev.knative.kafka.event"

// The extensions of the event made of a record that is not a CloudEvent. The first four are Knative's, the others
// Millrace's.
const (
	extKey       = "key"
	extPartition = "knativekafkapartition"
	extOffset    = "knativekafkaoffset"
	// extHeader and a header's name, in lower-case letters and digits, name the extension that has its value.
	extHeader = "kafkaheader"
	// extPartitionKey is what CloudEvents calls the attribute to partition by.
	extPartitionKey = "partitionkey"
	// extBase64 lists the extensions whose values are base64 because they are not text.
	extBase64 = "kafkabase64"
	// extMalformed says why a record that seems to be a CloudEvent was not taken for one.
	extMalformed = "kafkamalformed"
)

const (
	// attributePrefix begins the headers of a CloudEvent in binary mode (CloudEvents Kafka binding, section 3.2).
	attributePrefix = "ce_"
	contentType     = "content-type"
)

// mapper makes events of records. It is immutable.
type mapper struct {
	// source is what the source attribute begins with: /apis/v1/namespaces/<ns>/kafkasources/<name>.
	source string
	key    KeyType
	// overrides are set on every event.
	overrides []event.Attribute
}

// event returns the event of a record. It never fails: a record that is not the CloudEvent it claims to be becomes an
// event like any other record's, with the reason in an extension.
func (m *mapper) event(r *kgo.Record) *event.Event {
	e, malformed := decodeEvent(r)
	if e == nil {
		e = m.wrap(r)
		if malformed != nil {
			e.Set(extMalformed, source.Printable(malformed.Error()), event.String)
		}
	}
	for _, a := range m.overrides {
		e.Set(a.Name, a.Value, event.String)
	}
	return e
}

// decodeEvent returns the CloudEvent that a record is. Without an error, a nil event says that it is none.
func decodeEvent(r *kgo.Record) (*event.Event, error) {
	media, _ := header(r, contentType)
	switch event.DetectMode(media) {
	case event.ModeStructured:
		e, err := event.DecodeJSON(r.Value)
		if err != nil {
			return nil, err //nolint:wrapcheck // it goes into the event as it is
		}
		e.Headers = passOn(r)
		return e, nil
	case event.ModeBatch, event.ModeUnsupported:
		return nil, errors.New("the content type is a batch of events, or an event format other than JSON")
	case event.ModeBinary:
	}
	if _, ok := header(r, attributePrefix+event.SpecVersion); !ok {
		return nil, nil //nolint:nilnil // that it is no event is no error
	}
	return decodeBinary(r, media)
}

// decodeBinary decodes a CloudEvent in binary mode. Header values are plain UTF-8 (Kafka binding, section 3.2.3).
func decodeBinary(r *kgo.Record, media string) (*event.Event, error) {
	if len(r.Headers) > source.MaxMapped {
		return nil, errors.New("it has too many headers")
	}
	e := &event.Event{Data: r.Value, Attributes: make([]event.Attribute, 0, len(r.Headers)+4)}
	for _, h := range r.Headers {
		name, ok := strings.CutPrefix(strings.ToLower(h.Key), attributePrefix)
		if ok {
			e.Attributes = append(e.Attributes, event.Attribute{Name: name, Value: string(h.Value)})
		}
	}
	if media != "" {
		e.Attributes = append(e.Attributes, event.Attribute{Name: event.DataContentType, Value: media})
	}
	if err := e.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // it goes into the event as it is
	}
	e.Sort()
	e.Headers = passOn(r)
	return e, nil
}

// wrap returns the event of a record that is not a CloudEvent.
func (m *mapper) wrap(r *kgo.Record) *event.Event {
	e := &event.Event{Data: r.Value, Headers: passOn(r), Attributes: make([]event.Attribute, 0, len(r.Headers)+16)}
	partition, offset := strconv.Itoa(int(r.Partition)), strconv.FormatInt(r.Offset, 10)
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "partition:"+partition+"/offset:"+offset, event.String)
	e.Set(event.Source, m.source+"#"+r.Topic, event.String)
	e.Set(event.Type, EventType, event.String)
	e.Set(event.Subject, "partition:"+partition+"#"+offset, event.String)
	if r.Timestamp.UnixMilli() >= 0 {
		e.Set(event.Time, r.Timestamp.UTC().Format(time.RFC3339Nano), event.String)
	}
	claimed, _ := header(r, contentType)
	if media := source.DataContentType(claimed, r.Value); media != "" {
		e.Set(event.DataContentType, media, event.String)
	}
	var encoded []string
	if text, asBase64 := m.key.text(r.Key); text != "" {
		e.Set(extKey, text, event.String)
		e.Set(extPartitionKey, text, event.String)
		if asBase64 {
			encoded = append(encoded, extKey, extPartitionKey)
		}
	}
	e.Set(extPartition, partition, event.Integer)
	e.Set(extOffset, offset, event.String)
	if encoded = append(encoded, setHeaders(e, r)...); len(encoded) > 0 {
		e.Set(extBase64, strings.Join(encoded, " "), event.String)
	}
	return e
}

// setHeaders gives e an extension for each header of the record, and returns the names of those that are base64. Of
// headers with the same name the last counts, as in Kafka's own clients.
func setHeaders(e *event.Event, r *kgo.Record) (encoded []string) {
	for _, h := range r.Headers[:min(len(r.Headers), source.MaxMapped)] {
		if len(h.Value) == 0 {
			continue // an attribute cannot be empty
		}
		name := extHeader + source.AttributeName(h.Key)
		text, asBase64 := source.Text(string(h.Value))
		e.Set(name, text, event.String)
		encoded = slices.DeleteFunc(encoded, func(s string) bool { return s == name })
		if asBase64 {
			encoded = append(encoded, name)
		}
	}
	return encoded
}

// header returns the last header with the name, which is in lower case.
func header(r *kgo.Record, name string) (string, bool) {
	for _, h := range slices.Backward(r.Headers) {
		if strings.EqualFold(h.Key, name) {
			return string(h.Value), true
		}
	}
	return "", false
}

// passOn returns the headers that travel with an event without being attributes, such as traceparent.
func passOn(r *kgo.Record) []event.Header {
	if len(r.Headers) == 0 {
		return nil
	}
	headers := make(http.Header, len(r.Headers))
	for _, h := range r.Headers {
		if value := string(h.Value); event.IsText(value) {
			headers.Add(h.Key, value)
		}
	}
	return event.PassOn(headers)
}

// identity tells a record from all others of a source. The time tells it from one of a topic of the same name that was
// deleted.
func identity(r *kgo.Record) string {
	return r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10) + "/" +
		strconv.FormatInt(r.Timestamp.UnixMilli(), 36)
}
