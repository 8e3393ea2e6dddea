package source

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"millrace.dev/pkg/event"
)

const (
	// MaxMapped is how many headers or properties of a message become attributes. It leaves room for an event's others.
	MaxMapped = event.MaxAttributes - 32
	// maxNameBytes bounds the part of an extension's name that comes from a header or a property.
	maxNameBytes = 64
)

// AttributeName keeps of the name of a header or a property what an attribute's name may have: lower-case letters and
// digits. Of a name without any, it is the bytes in hexadecimal.
func AttributeName(key string) string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, strings.ToLower(key))
	if name == "" {
		name = hex.EncodeToString([]byte(key[:min(len(key), maxNameBytes/2)]))
	}
	return name[:min(len(name), maxNameBytes)]
}

// Text returns a value as that of an attribute, in base64 if it is not text.
func Text(s string) (text string, asBase64 bool) {
	if event.IsText(s) {
		return s, false
	}
	return base64.StdEncoding.EncodeToString([]byte(s)), s != ""
}

// Printable makes the value of an attribute of any text, cut where it is long.
func Printable(s string) string {
	const longest = 256
	if s = s[:min(len(s), longest)]; event.IsText(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// DataContentType is the media type of data that is not said to be a CloudEvent: the one claimed, or JSON if it is that; empty
// where there is no data, or nothing is known of it.
func DataContentType(claimed string, data []byte) string {
	switch {
	case len(data) == 0:
		return ""
	case event.IsText(claimed) && event.DetectMode(claimed) == event.ModeBinary:
		return claimed
	case json.Valid(data):
		return "application/json"
	}
	return ""
}
