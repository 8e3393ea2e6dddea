package cel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/cel-go/common/types"

	"millrace.dev/pkg/event"
)

// decodeData returns the event's JSON body as nil, bool, int64, uint64, float64, string, []any and map[string]any, or an
// error of kind [KindData] that says why it has none. A number that none of these types holds becomes a CEL error in
// its place, which only those expressions meet that use it.
func decodeData(e *event.Event) (any, error) {
	switch contentType := e.Value(event.DataContentType); {
	case len(e.Data) == 0:
		return nil, kindErrorf(KindData, "the event has no data")
	case !event.IsJSON(contentType):
		return nil, kindErrorf(KindData, "data is not JSON but of content type %.60q", contentType)
	}
	v, err := decodeJSON(e.Data)
	if err != nil {
		return nil, kindErrorf(KindData, "data is not valid JSON: %v", err)
	}
	return v, nil
}

// decodeJSON reads one JSON text. As in encoding/json, of equal names in an object the last one counts, and what is not
// UTF-8 becomes U+FFFD.
func decodeJSON(b []byte) (any, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	v, err := readValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

func readValue(d *jsontext.Decoder) (any, error) {
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if d.StackDepth() > MaxDataDepth {
		return nil, fmt.Errorf("nested deeper than %d", MaxDataDepth)
	}
	switch token.Kind() {
	case '{':
		return readObject(d)
	case '[':
		return readList(d)
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

func readObject(d *jsontext.Decoder) (any, error) {
	object := map[string]any{}
	for {
		token, err := d.ReadToken()
		if err != nil || token.Kind() == '}' {
			return object, err
		}
		name := token.String() // before the next token overwrites it
		if object[name], err = readValue(d); err != nil {
			return nil, err
		}
	}
}

func readList(d *jsontext.Decoder) (any, error) {
	list := []any{}
	for d.PeekKind() != ']' {
		v, err := readValue(d)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := d.ReadToken()
	return list, err
}

// number keeps integers exact: int64, else uint64. An integer too large for both is an error rather than the nearest
// double, which could compare equal to its neighbors.
func number(s string) any {
	if !strings.ContainsAny(s, ".eE") {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
		return types.WrapErr(kindErrorf(KindData, "the integer %.40s in data has more than 64 bits", s))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return types.WrapErr(kindErrorf(KindData, "the number %.40s in data is out of range", s))
	}
	return f
}
