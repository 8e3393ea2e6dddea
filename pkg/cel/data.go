package cel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

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

func decodeJSON(b []byte) (any, error) {
	if depth(b) > MaxDataDepth {
		return nil, fmt.Errorf("nested deeper than %d", MaxDataDepth)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return numbers(v), nil
}

// depth returns how deep the brackets of a JSON text are nested. For a text that is not JSON it may be any number.
func depth(b []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			now++
			deepest = max(deepest, now)
		case c == ']' || c == '}':
			now--
		}
	}
	return deepest
}

// numbers replaces the number texts in v, in place where it can.
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
			switch e.(type) {
			case json.Number, []any, map[string]any:
				v[k] = numbers(e)
			}
		}
	}
	return v
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
