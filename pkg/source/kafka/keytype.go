package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"

	"millrace.dev/pkg/event"
)

// KeyType says how the keys of records are read. A key that is not what it should be is written in base64.
type KeyType string

// The types of keys. Numbers are big-endian and have 4 or 8 bytes, as Kafka's own serializers write them.
const (
	KeyAuto      KeyType = "" // text if it is
	KeyString    KeyType = "string"
	KeyInt       KeyType = "int"
	KeyFloat     KeyType = "float"
	KeyByteArray KeyType = "byte-array"
)

// text returns a key as the value of an attribute, "" if it is missing or empty. asBase64 says that the key is not of
// the type and therefore in base64.
func (t KeyType) text(key []byte) (text string, asBase64 bool) {
	switch t {
	case KeyByteArray:
		return base64.StdEncoding.EncodeToString(key), len(key) > 0
	case KeyInt:
		text = intText(key)
	case KeyFloat:
		text = floatText(key)
	case KeyAuto, KeyString:
		if event.IsText(string(key)) {
			return string(key), false
		}
	}
	if text != "" {
		return text, false
	}
	return base64.StdEncoding.EncodeToString(key), len(key) > 0
}

const narrow, wide = 4, 8 // bytes

func intText(key []byte) string {
	switch len(key) {
	case narrow:
		return strconv.FormatInt(int64(int32(binary.BigEndian.Uint32(key))), 10)
	case wide:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64(key)), 10)
	}
	return ""
}

func floatText(key []byte) string {
	switch len(key) {
	case narrow:
		return strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(key))), 'g', -1, 32)
	case wide:
		return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(key)), 'g', -1, 64)
	}
	return ""
}
