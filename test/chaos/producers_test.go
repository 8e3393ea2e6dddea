package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	accepted = http.StatusAccepted
	// postTimeout is longer than the broker may take to say that it does not know.
	postTimeout = 20 * time.Second
	workers     = 32
	// every batchEvery-th request is a batch of batchSize events.
	batchEvery, batchSize = 20, 4
)

// producers post events and write down what they were told.
type producers struct {
	ledger *ledger
	urls   []string // of the Broker at each ingress
	client *http.Client
}

func newProducers(l *ledger, urls []string) *producers {
	return &producers{ledger: l, urls: urls, client: &http.Client{
		Timeout: postTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: workers},
	}}
}

// run has count requests accepted, spread evenly over the given time as far as the broker lets it.
func (p *producers) run(ctx context.Context, count int, over time.Duration) {
	defer p.client.CloseIdleConnections()
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range numbers {
				p.insist(ctx, n)
			}
		})
	}
	start := time.Now()
	for n := range count {
		wait(ctx, time.Until(start.Add(over*time.Duration(n)/time.Duration(count))))
		numbers <- n
	}
	close(numbers)
	wg.Wait()
}

// insist posts a number, each time under new ids, until it is accepted.
func (p *producers) insist(ctx context.Context, number int) {
	for try := 0; ctx.Err() == nil; try++ {
		ids := []string{eventID(number, try, 0)}
		if number%batchEvery == 0 {
			for place := 1; place < batchSize; place++ {
				ids = append(ids, eventID(number, try, place))
			}
		}
		p.ledger.posting(ids)
		status := p.post(ctx, p.urls[(number+try)%len(p.urls)], compose(number, ids))
		p.ledger.answer(ids, status)
		if status == accepted {
			return
		}
		wait(ctx, 100*time.Millisecond)
	}
}

// post returns the status, or 0 if there was none.
func (p *producers) post(ctx context.Context, url string, m message) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(m.body))
	if err != nil {
		return 0
	}
	req.Header = m.header
	resp, err := p.client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// message is the content of a request.
type message struct {
	header http.Header
	body   []byte
}

// compose makes a batch of several ids, and of one an event in binary or structured mode.
func compose(number int, ids []string) message {
	switch {
	case len(ids) > 1:
		events := make([]map[string]string, len(ids))
		for i, id := range ids {
			events[i] = attributes(number, id)
		}
		return document("application/cloudevents-batch+json", events)
	case number%3 == 0:
		return document("application/cloudevents+json", attributes(number, ids[0]))
	default:
		h := http.Header{"Content-Type": {"text/plain"}}
		for name, value := range attributes(number, ids[0]) {
			if name != "data" {
				h.Set("Ce-"+name, value)
			}
		}
		return message{header: h, body: []byte(ids[0])}
	}
}

func document(contentType string, content any) message {
	body, err := json.Marshal(content)
	if err != nil {
		panic(err) // strings can be encoded
	}
	return message{header: http.Header{"Content-Type": {contentType}}, body: body}
}

func attributes(number int, id string) map[string]string {
	return map[string]string{
		"specversion": "1.0", "id": id, "source": "/chaos", "type": eventType,
		"number": strconv.Itoa(number), "digit": strconv.Itoa(number % 10), "data": id,
	}
}

// wait waits until d has passed or ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(max(d, 0)):
	}
}
