package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answerTimeout is how long a producer waits for an answer before it counts a failure.
const answerTimeout = 30 * time.Second

// load posts events at a rate, each once, and keeps the ledger: what was posted, answered and received.
type load struct {
	mu       sync.Mutex
	stopped  chan struct{}
	posting  sync.WaitGroup
	posted   int
	accepted map[string]bool
	arrived  map[string]int
	// others are the answers that were not 202, by status or error, counted.
	others map[string]int
}

// report is how the ledger stands.
type report struct {
	Posted, Accepted int
	// Missing are the accepted events that have not arrived, Repeats the arrivals after the first.
	Missing []string
	Repeats int
	// Others counts the answers that were not 202, by status or error.
	Others map[string]int
}

// start posts to ?to, ?rate events a second, until stop. It begins a new ledger.
func (l *load) start(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.Atoi(r.URL.Query().Get("rate"))
	if err != nil || rate <= 0 {
		http.Error(w, "rate is not a positive number", http.StatusBadRequest)
		return
	}
	to := r.URL.Query().Get("to")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped != nil {
		http.Error(w, "a load is running", http.StatusConflict)
		return
	}
	stopped := make(chan struct{})
	l.stopped, l.posted = stopped, 0
	l.accepted, l.arrived, l.others = map[string]bool{}, map[string]int{}, map[string]int{}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 100
	client := &http.Client{Transport: transport, Timeout: answerTimeout}
	ctx := context.WithoutCancel(r.Context()) // the load outlives the request that starts it
	l.posting.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		run := time.Now().UnixNano()
		for i := 0; ; i++ {
			select {
			case <-stopped:
				return
			case <-tick.C:
				id := fmt.Sprintf("%d-%d", run, i)
				l.posting.Go(func() { l.post(ctx, client, to, id) })
			}
		}
	})
}

func (l *load) post(ctx context.Context, client *http.Client, to, id string) {
	answer := post(ctx, client, to, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted++
	if answer == "202" {
		l.accepted[id] = true
	} else {
		l.others[answer]++
	}
}

// post returns the status of the answer, or the error.
func post(ctx context.Context, client *http.Client, to, id string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(`{"of":"the load"}`))
	if err != nil {
		return err.Error()
	}
	request.Header = http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Type": {"load"}, "Ce-Source": {"/probe"}, "Ce-Id": {id},
		"Content-Type": {"application/json"},
	}
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return strconv.Itoa(response.StatusCode)
}

// stop ends the load, and returns when every request has an answer.
func (l *load) stop(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	stopped := l.stopped
	l.stopped = nil
	l.mu.Unlock()
	if stopped == nil {
		http.Error(w, "no load is running", http.StatusConflict)
		return
	}
	close(stopped)
	l.posting.Wait()
}

// receive is the subscriber of the load.
func (l *load) receive(_ http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.arrived != nil {
		l.arrived[r.Header.Get("Ce-Id")]++
	}
}

func (l *load) report(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := report{Posted: l.posted, Accepted: len(l.accepted), Others: l.others}
	for id := range l.accepted {
		if l.arrived[id] == 0 {
			r.Missing = append(r.Missing, id)
		}
	}
	for _, n := range l.arrived {
		r.Repeats += n - 1
	}
	_ = json.NewEncoder(w).Encode(r)
}
