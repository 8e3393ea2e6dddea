package chaos

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// posted is a request that a producer is about to make. A batch is several events of one request.
type posted struct {
	At  time.Time
	IDs []string
}

// answered is what a producer was told; Status is 0 if it was told nothing.
type answered struct {
	At     time.Time
	IDs    []string
	Status int
}

// received is a request that a subscriber or the dead letter sink got.
type received struct {
	At time.Time
	// Place is the role whose subscriber it was, or the sink.
	Place string
	ID    string
	// Nth counts the requests for this event at this place, from 1.
	Nth int
	// Status is what was answered; 0 if nothing was, or nobody was there any more to hear it.
	Status int
	// Trigger, Code and Attempts are what a dead letter says about itself.
	Trigger  string `json:",omitempty"`
	Code     int    `json:",omitempty"`
	Attempts int    `json:",omitempty"`
}

// parked is an event found parked at the end.
type parked struct{ ID, Subject string }

// fault is something that was broken for a while.
type fault struct {
	Kind, Target string
	From, Until  time.Time
}

// books are everything that was written down.
type books struct {
	Posted   []posted
	Answered []answered
	Received []received
	Parked   []parked
	Faults   []fault
}

// ledger writes the books to append-only files, a JSON document a line.
type ledger struct {
	dir string

	mu    sync.Mutex
	files map[string]*os.File
	nth   map[[2]string]int // requests by place and event id
	acked int
	last  time.Time // when something was received
	err   error
}

func newLedger(t testing.TB, dir string) *ledger {
	t.Helper()
	l := &ledger{dir: dir, files: map[string]*os.File{}, nth: map[[2]string]int{}, last: time.Now()}
	for _, name := range []string{"posted", "answered", "received", "parked", "faults"} {
		f, err := os.OpenFile(filepath.Join(dir, name+".jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		l.files[name] = f
		t.Cleanup(func() { _ = f.Close() })
	}
	return l
}

// write appends a record. The caller holds mu.
func (l *ledger) write(file string, record any) {
	line, err := json.Marshal(record)
	if err == nil {
		_, err = l.files[file].Write(append(line, '\n'))
	}
	if err != nil && l.err == nil {
		l.err = err
	}
}

func (l *ledger) posting(ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write("posted", posted{At: time.Now(), IDs: ids})
}

func (l *ledger) answer(ids []string, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status == accepted {
		l.acked += len(ids)
	}
	l.write("answered", answered{At: time.Now(), IDs: ids, Status: status})
}

// arrive counts a request and returns which for this event it is.
func (l *ledger) arrive(place, id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = time.Now()
	l.nth[[2]string{place, id}]++
	return l.nth[[2]string{place, id}]
}

func (l *ledger) receive(r received) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.At = time.Now()
	l.write("received", r)
}

func (l *ledger) park(p parked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write("parked", p)
}

func (l *ledger) note(f fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write("faults", f)
}

// progress returns how many events were accepted, and when a subscriber last got something.
func (l *ledger) progress() (acked int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.last
}

// read returns what the files hold.
func (l *ledger) read(t testing.TB) *books {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		t.Fatalf("the ledger could not be written: %v", l.err)
	}
	b := &books{}
	readLines(t, filepath.Join(l.dir, "posted.jsonl"), &b.Posted)
	readLines(t, filepath.Join(l.dir, "answered.jsonl"), &b.Answered)
	readLines(t, filepath.Join(l.dir, "received.jsonl"), &b.Received)
	readLines(t, filepath.Join(l.dir, "parked.jsonl"), &b.Parked)
	readLines(t, filepath.Join(l.dir, "faults.jsonl"), &b.Faults)
	return b
}

func readLines[T any](t testing.TB, path string, into *[]T) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := json.NewDecoder(bufio.NewReader(f)); d.More(); {
		var record T
		if err := d.Decode(&record); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		*into = append(*into, record)
	}
}
