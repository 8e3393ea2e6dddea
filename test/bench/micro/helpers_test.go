// Package micro holds the benchmarks that run under `go test`: parts of the product, and what decisions rest on. Each puts
// its figure next to a baseline of the same run: the machines that this runs on are shared and noisy, so ratios count,
// not times.
package micro

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
)

const (
	connections = 64
	dataBytes   = 1024
)

var payload = bytes.Repeat([]byte(`{"user":"mia","gift":"rocket"},`), dataBytes/31+1)[:dataBytes-2]

// eventRequest posts an event of 1 KiB in binary mode.
func eventRequest(url, id, eventType string) *http.Request {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		panic(err)
	}
	h := req.Header
	h["Ce-Specversion"], h["Ce-Id"] = []string{"1.0"}, []string{id}
	h["Ce-Source"], h["Ce-Type"] = []string{"/rooms/42"}, []string{eventType}
	h["Ce-Time"], h["Ce-Subject"] = []string{"2026-01-02T03:04:05.123456789Z"}, []string{"room-42"}
	h["Content-Type"] = []string{"application/json"}
	return req
}

// postOne sends one event, which must be accepted.
func postOne(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
