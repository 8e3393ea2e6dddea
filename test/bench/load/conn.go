package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// patience bounds how long a connection waits for an answer.
const patience = 30 * time.Second

// Conn is one connection of a client. It is for one goroutine.
type Conn struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
	idAt    int
	posts   int
}

// Dial opens a connection to host, which is an address and port, for the given request.
func Dial(host string, r Request) (*Conn, error) {
	c, err := net.DialTimeout("tcp", host, patience) //nolint:noctx // bounded by patience
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := &Conn{conn: c, reader: bufio.NewReaderSize(c, 4<<10)}
	conn.request, conn.idAt = r.render(host)
	return conn, nil
}

// Close closes the connection.
func (c *Conn) Close() { _ = c.conn.Close() }

// Post sends the event of the given number and returns the status of the answer.
func (c *Conn) Post(seq uint64) (status int, err error) {
	if c.posts%1024 == 0 { // to move the deadline costs more than it is worth each time
		_ = c.conn.SetDeadline(time.Now().Add(2 * patience))
	}
	c.posts++
	putID(c.request[c.idAt:], seq)
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, fmt.Errorf("post: %w", err)
	}
	return c.readAnswer()
}

func (c *Conn) readAnswer() (status int, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("%q is no answer", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("%q is no answer: %w", line, err)
	}
	length := 0
	for {
		if line, err = c.reader.ReadSlice('\n'); err != nil {
			return 0, fmt.Errorf("read the answer: %w", err)
		}
		name, value, found := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		if !found {
			break
		}
		if len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, fmt.Errorf("length of the answer: %w", err)
			}
		}
	}
	if status != http.StatusAccepted {
		body := make([]byte, length)
		_, _ = c.reader.Read(body)
		return status, fmt.Errorf("status %d: %s", status, body)
	}
	_, err = c.reader.Discard(length)
	return status, err
}
