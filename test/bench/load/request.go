// Package load posts events over plain connections of HTTP/1.1 at little cost: a request is a template in which only the
// event's id changes.
package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// idWidth is the number of digits of an event's id.
const idWidth = 16

var idPlace = bytes.Repeat([]byte("0"), idWidth)

// Request is a template of a request. Its event has the id 0000000000000000, which each event replaces by its own number.
type Request struct {
	path string
	head string // headers after Host, each with its line end
	body []byte
}

// Binary is a request in binary mode: data of the given type of event.
func Binary(path, eventType string, data []byte) Request {
	return Request{path: path, body: data, head: "Ce-Specversion: 1.0\r\nCe-Id: " + string(idPlace) + "\r\nCe-Source: /rooms/42\r\nCe-Type: " +
		eventType + "\r\nCe-Time: 2026-01-02T03:04:05.123456789Z\r\nCe-Subject: room-42\r\nContent-Type: application/json\r\n"}
}

// Structured is the same event in structured JSON mode.
func Structured(path, eventType string, data []byte) Request {
	body := fmt.Appendf(nil, `{"specversion":"1.0","id":"%s","source":"/rooms/42","type":"%s","time":"2026-01-02T03:04:05.123456789Z",`+
		`"subject":"room-42","datacontenttype":"application/json","data":%s}`, idPlace, eventType, data)
	return Request{path: path, body: body, head: "Content-Type: application/cloudevents+json\r\n"}
}

// render returns the bytes of the request to the given host and where in them the id is.
func (r Request) render(host string) (request []byte, idAt int) {
	request = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s", r.path, host, r.head, len(r.body), r.body)
	return request, bytes.Index(request, idPlace)
}

// putID writes the number in idWidth digits.
func putID(dst []byte, seq uint64) {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], seq, 10)
	n := copy(dst, idPlace[:idWidth-len(text)])
	copy(dst[n:], text)
}
