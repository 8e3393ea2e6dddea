// Package sink is a subscriber that costs little: it reads requests of HTTP/1.1 without net/http, so that a benchmark
// measures the broker and not what it delivers to.
package sink

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"millrace.dev/test/bench/ledger"
)

var answer = []byte("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

// Sink is a running subscriber.
type Sink struct {
	listener net.Listener
	book     *ledger.Ledger
	delay    time.Duration

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
	err   error
}

// Listen starts a subscriber that enters what it gets in the book and answers 202 after the delay.
func Listen(book *ledger.Ledger, delay time.Duration) (*Sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // Close ends it
	if err != nil {
		return nil, fmt.Errorf("listen for deliveries: %w", err)
	}
	s := &Sink{listener: l, book: book, delay: delay, conns: map[net.Conn]struct{}{}}
	go s.accept()
	return s, nil
}

// URL is the address of the subscriber of the given number.
func (s *Sink) URL(subscriber int) string {
	return "http://" + s.listener.Addr().String() + "/" + strconv.Itoa(subscriber)
}

// Close ends the sink and returns the first request that it could not read.
func (s *Sink) Close() error {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	return s.err
}

func (s *Sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.add(c) {
			_ = c.Close()
			return
		}
		go func() {
			s.remove(c, s.serve(c))
		}()
	}
}

func (s *Sink) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// remove forgets the connection. An error counts unless the sink is closed.
func (s *Sink) remove(c net.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = c.Close()
	if s.conns == nil {
		return
	}
	delete(s.conns, c)
	s.err = errors.Join(s.err, err)
}

// serve answers requests until the client hangs up.
func (s *Sink) serve(c net.Conn) error {
	r := bufio.NewReaderSize(c, 8<<10)
	for {
		subscriber, seq, err := readRequest(r)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a delivery: %w", err)
		}
		s.book.Receive(subscriber, seq)
		if s.delay > 0 {
			time.Sleep(s.delay)
		}
		if _, err := c.Write(answer); err != nil {
			return fmt.Errorf("answer a delivery: %w", err)
		}
	}
}

// readRequest reads one request and returns the subscriber that it is for and the number of the event.
func readRequest(r *bufio.Reader) (subscriber int, seq uint64, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if subscriber, err = parseTarget(line); err != nil {
		return 0, 0, err
	}
	length, id := -1, false
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, 0, err
		}
		name, value, found := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !found {
			break
		}
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == len("ce-id") && bytes.EqualFold(name, []byte("ce-id")):
			seq, err = strconv.ParseUint(string(value), 10, 64)
			id = true
		case len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
			length, err = strconv.Atoi(string(value))
		}
		if err != nil {
			return 0, 0, fmt.Errorf("header %q: %w", name, err)
		}
	}
	if length < 0 || !id {
		return 0, 0, errors.New("a request without Content-Length or Ce-Id")
	}
	_, err = r.Discard(length)
	return subscriber, seq, err
}

// parseTarget reads the number out of a line such as "POST /7 HTTP/1.1".
func parseTarget(line []byte) (int, error) {
	rest, ok := bytes.CutPrefix(line, []byte("POST /"))
	target, _, spaced := bytes.Cut(rest, []byte(" "))
	n, err := strconv.Atoi(string(target))
	if !ok || !spaced || err != nil {
		return 0, fmt.Errorf("%q is no request of a delivery", line)
	}
	return n, nil
}
