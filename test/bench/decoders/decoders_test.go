// Package decoders compares libraries that decode JSON for filters on data. It is a module of its own, so that libraries
// that the product does not use are none of its dependencies.
package decoders

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bytedance/sonic"
	"github.com/go-json-experiment/json/jsontext"
	goccy "github.com/goccy/go-json"
	"github.com/google/go-cmp/cmp"
	segmentio "github.com/segmentio/encoding/json"
)

// decoder decodes data of any shape, with numbers kept as they are written.
type decoder interface {
	UseNumber()
	Decode(v any) error
}

func with[D decoder](open func(b []byte) D) func([]byte) (any, error) {
	return func(b []byte) (v any, err error) {
		d := open(b)
		d.UseNumber()
		err = d.Decode(&v)
		return numbers(v), err
	}
}

var keepNumbers = sonic.Config{UseNumber: true, ValidateString: true, CopyString: true}.Froze()

// decoders return what filters see: nil, bool, int64, float64, string, []any and map[string]any.
var decoders = []struct {
	name   string
	decode func([]byte) (any, error)
}{
	{"encoding-json", with(func(b []byte) *json.Decoder { return json.NewDecoder(bytes.NewReader(b)) })},
	{"goccy", with(func(b []byte) *goccy.Decoder { return goccy.NewDecoder(bytes.NewReader(b)) })},
	{"segmentio", with(func(b []byte) *segmentio.Decoder { return segmentio.NewDecoder(bytes.NewReader(b)) })},
	{"sonic", func(b []byte) (v any, err error) { err = keepNumbers.Unmarshal(b, &v); return numbers(v), err }},
	{"jsontext", func(b []byte) (any, error) {
		return walk(jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)))
	}},
}

// numbers replaces the number texts in v.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k, e := range v {
			v[k] = numbers(e)
		}
	}
	return v
}

func number(s string) any {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	f, _ := strconv.ParseFloat(s, 64)
	return f
}

// walk builds the value from the tokens of encoding/json/v2's lower half: json/v2 itself makes every number a float64.
func walk(d *jsontext.Decoder) (any, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '{':
		return walkObject(d)
	case '[':
		return walkList(d)
	case '"':
		return token.String(), nil
	case '0':
		return number(token.String()), nil
	case 't', 'f':
		return token.Bool(), nil
	default:
		return nil, nil
	}
}

func walkObject(d *jsontext.Decoder) (any, error) {
	object := map[string]any{}
	for {
		token, err := d.ReadToken()
		if err != nil || token.Kind() == '}' {
			return object, err
		}
		name := token.String() // before the next token overwrites it
		if object[name], err = walk(d); err != nil {
			return nil, err
		}
	}
}

func walkList(d *jsontext.Decoder) (any, error) {
	list := []any{}
	for d.PeekKind() != ']' {
		v, err := walk(d)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.ReadToken()
	return list, err
}

var inputs = map[string][]byte{
	"text": []byte(fmt.Sprintf(`{"user":{"id":"u-48151623","name":"mia","level":12,"badges":["fan","early","gold"]},"room":{"id":42,"host":"lee"},`+
		`"gift":{"name":"rocket","count":3,"combo":true},"amount":707,"currency":"coin","at":1767323045.123,"text":"%s"}`, strings.Repeat("x", 778))),
	"fields": []byte(fields()),
}

// fields is 1 KiB of JSON with many small values.
func fields() string {
	var b strings.Builder
	b.WriteString(`{"items":[`)
	for i := range 17 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":"A-%04d","count":%d,"price":%d.25,"gift":%t}`, i, i%7, 10+i, i%2 == 0)
	}
	b.WriteString(`],"total":404,"user":{"id":4815162342,"vip":true}}`)
	return b.String()
}

// turn is how many texts are decoded before it is the next one's turn.
const turn = 200

// BenchmarkDecode lets the decoders take turns and reports, for each, the time of one text and the ratio to encoding/json:
// the medians of all turns.
func BenchmarkDecode(b *testing.B) {
	for _, input := range []string{"text", "fields"} {
		b.Run(input, func(b *testing.B) {
			times := make([][]float64, len(decoders))
			for b.Loop() {
				for i, d := range decoders {
					start := time.Now()
					for range turn {
						if _, err := d.decode(inputs[input]); err != nil {
							b.Fatal(err)
						}
					}
					times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/turn)
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, d := range decoders {
				b.ReportMetric(median(times[i]), d.name+"-ns")
				b.ReportMetric(median(times[i])/median(times[0]), d.name+"-ratio")
				b.ReportMetric(testing.AllocsPerRun(100, func() { _, _ = d.decode(inputs[input]) }), d.name+"-allocs")
			}
		})
	}
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// What filters rely on: integers of 64 bits stay exact, and of two equal names the last one counts.
func TestDecodersAgree(t *testing.T) {
	text := []byte(`{"n":9007199254740993,"twice":1,"twice":2,"s":"\u00e9\ud83d\ude00","deep":[[1]]}`)
	want, err := decoders[0].decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decoders[1:] {
		if got, err := d.decode(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %v; encoding/json: %v", d.name, got, err, want)
		}
	}
}

// Text that is not JSON must be refused: an event that one process matches and another refuses would be lost to some.
func TestDecodersRefuseTheSame(t *testing.T) {
	for _, text := range []string{`{"a":1,}`, `{"a":01}`, `{'a':1}`, "{\"a\":\"\x01\"}", `{"a":1e}`, `[1 2]`, `{"a":NaN}`, `"\ud800"`, "\"\xff\"", `{"a" 1}`, ``, `tru`} {
		_, want := decoders[0].decode([]byte(text))
		for _, d := range decoders[1:] {
			if _, err := d.decode([]byte(text)); (err == nil) != (want == nil) {
				t.Errorf("%s says of %q: %v; encoding/json: %v", d.name, text, err, want)
			}
		}
	}
}
