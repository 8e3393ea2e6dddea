package rocketmq

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	v2 "github.com/apache/rocketmq-clients/golang/v5/protocol/v2"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/source"
)

// EventType is the type of the event made of a message that is not a CloudEvent.
const EventType = "dev.knative.rocketmq.message"

// The extensions of the event made of a message that is not a CloudEvent.
const (
	extTag     = "rocketmqtag"
	extKeys    = "rocketmqkeys"
	extQueue   = "rocketmqqueue"
	extOffset  = "rocketmqoffset"
	extAttempt = "rocketmqattempt"
	// extProperty and a user property's name, in lower-case letters and digits, name the extension that has its value.
	extProperty = "rocketmqproperty"
	// extPartitionKey is what CloudEvents calls the attribute to partition by. It has the message group.
	extPartitionKey = "partitionkey"
	// extBase64 lists the extensions whose values are base64 because they are not text.
	extBase64 = "rocketmqbase64"
	// extMalformed says why a message that seems to be a CloudEvent, or to be compressed, was not taken for that.
	extMalformed = "rocketmqmalformed"
)

const (
	// attributePrefix begins the properties of a CloudEvent in binary mode, in the CloudEvents RocketMQ binding.
	attributePrefix = "ce_"
	// maxUnpackedBytes bounds what a compressed body may become.
	maxUnpackedBytes = 32 << 20
)

// mapper makes events of messages. It is immutable.
type mapper struct {
	// source is what the source attribute begins with: /apis/v1/namespaces/<ns>/rocketmqsources/<name>.
	source string
	// overrides are set on every event.
	overrides []event.Attribute
}

// event returns the event of a message. It never fails: a message that is not the CloudEvent it claims to be becomes an
// event like any other message's, with the reason in an extension.
func (m *mapper) event(msg *v2.Message) *event.Event {
	body, err := unpack(msg)
	var e *event.Event
	if err == nil {
		e, err = decodeEvent(msg, body)
	}
	if e == nil {
		e = m.wrap(msg, body)
		if err != nil {
			e.Set(extMalformed, source.Printable(err.Error()), event.String)
		}
	}
	for _, a := range m.overrides {
		e.Set(a.Name, a.Value, event.String)
	}
	return e
}

// unpack returns the body as it was before the producer's client compressed it; as it is if it cannot be unpacked.
func unpack(msg *v2.Message) ([]byte, error) {
	body := msg.GetBody()
	if msg.GetSystemProperties().GetBodyEncoding() != v2.Encoding_GZIP {
		return body, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body, fmt.Errorf("the body is said to be gzip: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxUnpackedBytes+1))
	switch {
	case err != nil:
		return body, fmt.Errorf("the body is said to be gzip: %w", err)
	case len(plain) > maxUnpackedBytes:
		return body, fmt.Errorf("the body becomes larger than %d bytes when it is unpacked", maxUnpackedBytes)
	}
	return plain, nil
}

// decodeEvent returns the CloudEvent that a message is. Without an error, a nil event says that it is none.
func decodeEvent(msg *v2.Message, body []byte) (*event.Event, error) {
	media := mediaType(msg)
	switch event.DetectMode(media) {
	case event.ModeStructured:
		e, err := event.DecodeJSON(body)
		if err != nil {
			return nil, err //nolint:wrapcheck // it goes into the event as it is
		}
		e.Headers = passOn(msg)
		return e, nil
	case event.ModeBatch, event.ModeUnsupported:
		return nil, errors.New("the content type is a batch of events, or an event format other than JSON")
	case event.ModeBinary:
	}
	if property(msg, attributePrefix+event.SpecVersion) == "" {
		return nil, nil //nolint:nilnil // that it is no event is no error
	}
	return decodeBinary(msg, body, media)
}

// decodeBinary decodes a CloudEvent in binary mode.
func decodeBinary(msg *v2.Message, body []byte, media string) (*event.Event, error) {
	properties := msg.GetUserProperties()
	if len(properties) > source.MaxMapped {
		return nil, errors.New("it has too many properties")
	}
	if bytes.Equal(body, []byte{0}) {
		body = nil // RocketMQ allows no empty body, so that the CloudEvents SDK writes this for one
	}
	e := &event.Event{Data: body, Attributes: make([]event.Attribute, 0, len(properties)+4)}
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		name, ok := strings.CutPrefix(strings.ToLower(key), attributePrefix)
		if ok && name != "contenttype" && name != event.DataContentType {
			e.Attributes = append(e.Attributes, event.Attribute{Name: name, Value: properties[key]})
		}
	}
	if media != "" {
		e.Attributes = append(e.Attributes, event.Attribute{Name: event.DataContentType, Value: media})
	}
	if err := e.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // it goes into the event as it is
	}
	e.Sort()
	e.Headers = passOn(msg)
	return e, nil
}

// wrap returns the event of a message that is not a CloudEvent.
func (m *mapper) wrap(msg *v2.Message, body []byte) *event.Event {
	p := msg.GetSystemProperties()
	e := &event.Event{Data: body, Headers: passOn(msg), Attributes: make([]event.Attribute, 0, len(msg.GetUserProperties())+16)}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.Source, m.source+"#"+msg.GetTopic().GetName(), event.String)
	e.Set(event.Type, EventType, event.String)
	if born := p.GetBornTimestamp(); born != nil {
		e.Set(event.Time, born.AsTime().UTC().Format(time.RFC3339Nano), event.String)
	}
	if media := source.DataContentType(mediaType(msg), body); media != "" {
		e.Set(event.DataContentType, media, event.String)
	}
	e.Set(extQueue, strconv.Itoa(int(p.GetQueueId())), event.Integer)
	e.Set(extOffset, strconv.FormatInt(p.GetQueueOffset(), 10), event.String)
	e.Set(extAttempt, strconv.Itoa(int(max(p.GetDeliveryAttempt(), 1))), event.Integer)
	var encoded []string
	text := func(name, value string) {
		if value == "" {
			return // an attribute cannot be empty
		}
		encoded = slices.DeleteFunc(encoded, func(s string) bool { return s == name })
		value, asBase64 := source.Text(value)
		if asBase64 {
			encoded = append(encoded, name)
		}
		e.Set(name, value, event.String)
	}
	text(event.ID, cmp.Or(p.GetMessageId(), fmt.Sprintf("queue:%d/offset:%d", p.GetQueueId(), p.GetQueueOffset())))
	text(extTag, p.GetTag())
	text(extKeys, strings.Join(p.GetKeys(), " "))
	text(extPartitionKey, p.GetMessageGroup())
	properties := msg.GetUserProperties()
	for i, key := range slices.Sorted(maps.Keys(properties)) {
		if i < source.MaxMapped {
			text(extProperty+source.AttributeName(key), properties[key])
		}
	}
	if len(encoded) > 0 {
		e.Set(extBase64, strings.Join(encoded, " "), event.String)
	}
	return e
}

// mediaType is the media type that a message claims to have, in any of the ways that CloudEvents SDKs write it.
func mediaType(msg *v2.Message) string {
	for _, name := range []string{"ce_contenttype", "ce_datacontenttype", "content-type", "contenttype"} {
		if media := property(msg, name); media != "" {
			return media
		}
	}
	return ""
}

// property returns the user property with the name, which is in lower case.
func property(msg *v2.Message, name string) string {
	for key, value := range msg.GetUserProperties() {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}

// passOn returns the properties that travel with an event without being attributes, such as traceparent.
func passOn(msg *v2.Message) []event.Header {
	headers := http.Header{}
	for key, value := range msg.GetUserProperties() {
		if event.IsText(value) {
			headers.Add(key, value)
		}
	}
	return event.PassOn(headers)
}
