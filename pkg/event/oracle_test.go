package event_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	sdk "github.com/cloudevents/sdk-go/v2/event"
	sdkhttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

// sdkEvents are events as users of the official SDK make them. Values have no percent sign, which the SDK neither
// encodes nor decodes.
func sdkEvents(t *testing.T) map[string]*sdk.Event {
	t.Helper()
	build := func(version, contentType string, data []byte, extensions map[string]any) *sdk.Event {
		e := sdk.New(version)
		e.SetID("id-1")
		e.SetSource("https://example.com/a%20b?c=d#e")
		e.SetType("com.example.type")
		e.SetSubject("Größe 😀")
		e.SetTime(time.Date(2020, 1, 2, 3, 4, 5, 123456789, time.UTC))
		if contentType != "" {
			e.SetDataContentType(contentType)
		}
		e.DataEncoded = data
		for name, value := range extensions {
			e.SetExtension(name, value)
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		return &e
	}
	binary := build("1.0", "application/octet-stream", []byte{0, 255, 1}, nil)
	binary.DataBase64 = true
	return map[string]*sdk.Event{
		"json":   build("1.0", "application/json", []byte(`{"a": [1, "\u00e9"]}`), map[string]any{"text": "a \"b\"", "number": -5, "flag": true}),
		"0.3":    build("0.3", "application/json", []byte(`{"a":1}`), map[string]any{"text": "x"}),
		"text":   build("1.0", "text/plain", []byte("line\n\"quoted\" é"), nil),
		"empty":  build("1.0", "", nil, nil),
		"binary": binary,
	}
}

// attributes returns all attributes in their canonical string form as the SDK sees them.
func attributes(t *testing.T, e *sdk.Event) map[string]string {
	t.Helper()
	all := map[string]string{
		"specversion": e.SpecVersion(), "id": e.ID(), "source": e.Source(), "type": e.Type(), "subject": e.Subject(),
		"time": e.Time().Format(time.RFC3339Nano), "datacontenttype": e.DataContentType(),
	}
	if e.DataContentType() == "" {
		delete(all, "datacontenttype")
	}
	for name, value := range e.Extensions() {
		text, err := types.Format(value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = text
	}
	return all
}

func valuesOf(e *event.Event) map[string]string {
	all := map[string]string{}
	for _, a := range e.Attributes {
		all[a.Name] = a.Value
	}
	return all
}

func TestDecodesWhatTheSDKEncodes(t *testing.T) {
	for name, want := range sdkEvents(t) {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/", nil)
			if err := sdkhttp.WriteRequest(binding.WithForceBinary(t.Context()), binding.ToMessage(want), r); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := event.DecodeBinary(r.Header, body)
			compareWithSDK(t, want, got, err)

			document, err := want.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			got, err = event.DecodeJSON(document)
			compareWithSDK(t, want, got, err)
		})
	}
}

func compareWithSDK(t *testing.T, want *sdk.Event, got *event.Event, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(attributes(t, want), valuesOf(got)); diff != "" {
		t.Errorf("attributes (-SDK +Millrace):\n%s", diff)
	}
	if !bytes.Equal(want.Data(), got.Data) {
		t.Errorf("got data %q, want %q", got.Data, want.Data())
	}
}

func TestSDKDecodesWhatIsEncoded(t *testing.T) {
	for name, original := range sdkEvents(t) {
		t.Run(name, func(t *testing.T) {
			document, err := original.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			e, err := event.DecodeJSON(document)
			if err != nil {
				t.Fatal(err)
			}
			var fromJSON sdk.Event
			if err := fromJSON.UnmarshalJSON(e.AppendJSON(nil)); err != nil {
				t.Fatal(err)
			}
			compareWithSDK(t, &fromJSON, e, nil)

			e.Set("subject", "plain", event.String) // The SDK would not decode the others.
			e.Set("source", "/plain", event.String)
			e.Remove("text")
			h := http.Header{}
			e.WriteHeader(h)
			got, err := binding.ToEvent(t.Context(), sdkhttp.NewMessage(h, io.NopCloser(bytes.NewReader(e.Data))))
			if err != nil {
				t.Fatal(err)
			}
			compareWithSDK(t, got, e, nil)
		})
	}
}
