package event_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace.dev/pkg/event"
)

// document returns a minimal JSON event with more members.
func document(members string) []byte {
	if members != "" {
		members = "," + members
	}
	return []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"` + members + `}`)
}

func TestDecodeJSON(t *testing.T) {
	body := " {\"type\":\"t\",\"speci\\u0066ication\":null , \"data\" : { \"a\" : [1, \"}\\\"\"] , \"a\":1e400 }\n,\r\n\t\"i\\u0064\":\"\\ud83d\\ude00\\/\\n\\b\"," +
		`"source":"/s","specversion":"1.0","int":-7,"zero":-0,"yes":true,"no":false,"subject":null}  `
	_, err := event.DecodeJSON([]byte(body))
	wantError(t, err, "id") // Control characters.

	got, err := event.DecodeJSON([]byte(strings.ReplaceAll(body, `\n\b`, ``)))
	if err != nil {
		t.Fatal(err)
	}
	want := &event.Event{
		Attributes: []event.Attribute{
			{Name: "type", Value: "t"},
			{Name: "id", Value: "😀/"},
			{Name: "source", Value: "/s"},
			{Name: "specversion", Value: "1.0"},
			{Name: "int", Value: "-7", Kind: event.Integer},
			{Name: "zero", Value: "0", Kind: event.Integer},
			{Name: "yes", Value: "true", Kind: event.Boolean},
			{Name: "no", Value: "false", Kind: event.Boolean},
			{Name: "datacontenttype", Value: "application/json"},
		},
		Data: []byte(`{ "a" : [1, "}\""] , "a":1e400 }`),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded event (-want +got):\n%s", diff)
	}
}

func TestDecodeJSONRefuses(t *testing.T) {
	for _, tc := range []struct{ body, attribute string }{
		{``, ""},
		{`{`, ""},
		{`[]`, ""},
		{`"x"`, ""},
		{`null`, ""},
		{`{} {}`, ""},
		{"{\"a\":\"\xff\"}", ""},
		{strings.Repeat("[", 20000) + strings.Repeat("]", 20000), ""},
		{`{}`, "specversion"},
		{`{"specversion":"2.0"}`, "specversion"},
		{`{"specversion":1.0}`, "specversion"},
		{`{"specversion":null}`, "specversion"},
		{`{"specversion":"1.0","source":"/s","type":"t"}`, "id"},
		{`{"specversion":"1.0","source":"/s","type":"t","id":1}`, "id"},
		{`{"specversion":"1.0","source":"/s","type":"t","id":""}`, "id"},
		{string(document(`"id":"1"`)), "id"},
		{string(document(`"i\u0064":"1"`)), "id"},
		{string(document(`"x":null,"x":"1"`)), "x"},
		{string(document(`"data":1,"data":2`)), "data"},
		{string(document(`"data":1,"data_base64":"AA=="`)), "data_base64"},
		{string(document(`"data_base64":"!"`)), "data_base64"},
		{string(document(`"data_base64":5`)), "data_base64"},
		{string(document(`"myExt":"1"`)), "myExt"},
		{string(document(`"":"1"`)), ""},
		{string(document(`"é":"1"`)), `\u00e9`},
		{string(document(`"a\ud800":"1"`)), ""},
		{string(document(`"` + strings.Repeat("A", 1000) + `":"1"`)), strings.Repeat("A", 32)},
		{string(document(`"` + strings.Repeat("a", 1000) + `":1.5`)), strings.Repeat("a", 128)},
		{string(document(`"ext":"\ud800"`)), "ext"},
		{string(document(`"ext":"\ud800\u0041"`)), "ext"},
		{string(document(`"ext":"\udc00\ud800"`)), "ext"},
		{string(document(`"ext":"\uffff"`)), "ext"},
		{string(document(`"ext":"\u0007"`)), "ext"},
		{string(document(`"ext":{}`)), "ext"},
		{string(document(`"ext":[1]`)), "ext"},
		{string(document(`"ext":1.5`)), "ext"},
		{string(document(`"ext":1e3`)), "ext"},
		{string(document(`"ext":2147483648`)), "ext"},
		{string(document(`"time":12`)), "time"},
		{string(document(`"time":"2020"`)), "time"},
		{string(document(`"subject":true`)), "subject"},
		{string(document(`"datacontenttype":"json"`)), "datacontenttype"},
		{string(document(`"datacontenttype":"text/plain","data":{}`)), "data"},
		{string(document(`"datacontenttype":"text/plain","data":"\ud800"`)), "data"},
		{`{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"gzip"}`, "datacontentencoding"},
	} {
		_, err := event.DecodeJSON([]byte(tc.body))
		t.Run("", func(t *testing.T) {
			t.Logf("%.100s: %v", tc.body, err)
			wantError(t, err, tc.attribute)
		})
	}
}

func TestJSONData(t *testing.T) {
	for _, tc := range []struct{ members, contentType, data string }{
		{``, "", ""},
		{`"data":null`, "application/json", "null"},
		{`"data":"text"`, "application/json", `"text"`},
		{`"data":"text","datacontenttype":"application/json"`, "application/json", `"text"`},
		{`"data":{ "a":1 },"datacontenttype":"application/x+json"`, "application/x+json", `{ "a":1 }`},
		{`"data":"<a>\n\u00e9</a>","datacontenttype":"text/xml"`, "text/xml", "<a>\n\u00e9</a>"},
		{`"data":null,"datacontenttype":"text/xml"`, "text/xml", ""},
		{`"data":"","datacontenttype":"text/xml"`, "text/xml", ""},
		{`"data_base64":"AP8\/"`, "", "\x00\xff\x3f"},
		{`"data_base64":"AP8/","data":null`, "", "\x00\xff\x3f"},
		{`"data_base64":null,"data":1`, "application/json", "1"},
		{`"data_base64":"","datacontenttype":"text/xml"`, "text/xml", ""},
	} {
		e, err := event.DecodeJSON(document(tc.members))
		if err != nil {
			t.Errorf("%s: %v", tc.members, err)
			continue
		}
		if string(e.Data) != tc.data || e.Value(event.DataContentType) != tc.contentType || (e.Data == nil) != (tc.data == "") {
			t.Errorf("%s: got %q %q, want %q %q", tc.members, e.Value(event.DataContentType), e.Data, tc.contentType, tc.data)
		}
	}
}

func TestVersion03(t *testing.T) {
	body := `{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"/schema","datacontentencoding":"Base64","datacontenttype":"application/octet-stream","data":"AAE="}`
	e, err := event.DecodeJSON([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Data) != "\x00\x01" || e.Lookup("datacontentencoding") != nil || e.Value("schemaurl") != "/schema" {
		t.Errorf("got %+v", e)
	}
	const want = `{"specversion":"0.3","id":"1","source":"/s","type":"t","schemaurl":"/schema","datacontenttype":"application/octet-stream","datacontentencoding":"base64","data":"AAE="}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAppendJSON(t *testing.T) {
	for _, tc := range []struct{ contentType, data, want string }{
		{"", "", ``},
		{"", "{}", `,"data_base64":"e30="`},
		{"application/json", "{\"a\" :1}\n", `,"datacontenttype":"application/json","data":{"a" :1}` + "\n"},
		{"application/json", "{", `,"datacontenttype":"application/json","data_base64":"ew=="`},
		{"application/json", "\"\xff\"", `,"datacontenttype":"application/json","data_base64":"Iv8i"`},
		{"text/plain", "a\"\\\x01\n\r\té\u2028", `,"datacontenttype":"text/plain","data":"a\"\\\u0001\n\r\té` + "\u2028\""},
		{"text/plain", "\xff", `,"datacontenttype":"text/plain","data_base64":"/w=="`},
		{"image/svg+xml; x=y", "<a/>", `,"datacontenttype":"image/svg+xml; x=y","data":"<a/>"`},
		{"application/octet-stream", "ascii", `,"datacontenttype":"application/octet-stream","data_base64":"YXNjaWk="`},
	} {
		e := minimal()
		if tc.contentType != "" {
			e.Set(event.DataContentType, tc.contentType, event.String)
		}
		e.Data = []byte(tc.data)
		if got, want := string(e.AppendJSON(nil)), string(document(strings.TrimPrefix(tc.want, ","))); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestDecodeJSONBatch(t *testing.T) {
	one := string(document(""))
	for body, want := range map[string]int{"[]": 0, " [ ] ": 0, "[" + one + "]": 1, "[" + one + " ,\n" + one + "]": 2} {
		events, err := event.DecodeJSONBatch([]byte(body))
		if err != nil || len(events) != want {
			t.Errorf("%s: got %d events and error %v, want %d", body, len(events), err, want)
		}
	}
	for body, want := range map[string]event.Error{
		one:                                 {Index: -1},
		"[" + one + ",{}]":                  {Index: 1, Attribute: "specversion"},
		"[1]":                               {Index: 0},
		"[" + one + "," + one + ",[" + "]]": {Index: 2},
		"[" + one + ",":                     {Index: -1},
	} {
		_, err := event.DecodeJSONBatch([]byte(body))
		wantError(t, err, want.Attribute)
		if got := err.(*event.Error).Index; got != want.Index { //nolint:errorlint // The decoders return the type itself.
			t.Errorf("%s: got index %d, want %d", body, got, want.Index)
		}
	}
}

// minimal returns an event with nothing but the required attributes.
func minimal() *event.Event {
	e := &event.Event{}
	e.Set(event.SpecVersion, "1.0", event.String)
	e.Set(event.ID, "1", event.String)
	e.Set(event.Source, "/s", event.String)
	e.Set(event.Type, "t", event.String)
	return e
}
