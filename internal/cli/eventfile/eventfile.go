// Package eventfile reads CloudEvents in the JSON format from files that people write and programs export: one event, an
// array of events, or one event after the other, be it one a line (NDJSON) or over several lines. Files may be
// compressed with gzip.
//
// A mistake is located and does not hide the events after it, except in an array, whose end cannot be found once its
// syntax is broken.
package eventfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"millrace.dev/pkg/event"
)

// Stdin is the name that stands for standard input.
const Stdin = "-"

// Item is one event of a file, or what is wrong there.
type Item struct {
	// File is the name of the file and Line, from 1, where the event starts.
	File string
	Line int
	// Event is the event, nil if there is an error.
	Event *event.Event
	// Err is an [*Error], or nil.
	Err error
}

// Error is a mistake in a file of events.
type Error struct {
	// File is the name of the file and Line where the event starts that has the mistake; 0 means the file as a whole.
	File string
	Line int
	// Err says what is wrong. It is an [*event.Error] if the text is JSON but not a CloudEvent.
	Err error
}

// Error returns the place and the mistake in the form file:line: what.
func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

// Unwrap returns the mistake without its place.
func (e *Error) Unwrap() error { return e.Err }

// Open yields the events of the named file in their order; the name [Stdin] stands for stdin. A file that cannot be
// opened, is empty, or breaks off yields an error like one that is malformed. The file is closed when the loop ends.
func Open(name string, stdin io.Reader) iter.Seq[Item] {
	return func(yield func(Item) bool) {
		if name == Stdin {
			readAll("standard input", stdin, yield)
			return
		}
		f, err := os.Open(name)
		if err != nil {
			yield(failed(name, 0, fmt.Errorf("open file of events: %w", withoutPath(err))))
			return
		}
		defer func() { _ = f.Close() }() // It was only read.
		readAll(name, f, yield)
	}
}

// withoutPath strips what the error's place says already.
func withoutPath(err error) error {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Read yields the events of r, which has the given name in errors.
func Read(name string, r io.Reader) iter.Seq[Item] {
	return func(yield func(Item) bool) { readAll(name, r, yield) }
}

func failed(name string, line int, err error) Item {
	return Item{File: name, Line: line, Err: &Error{File: name, Line: line, Err: err}}
}

func readAll(name string, r io.Reader, yield func(Item) bool) {
	in, err := plain(r)
	if err != nil {
		yield(failed(name, 0, err))
		return
	}
	s := &scanner{name: name, in: in, yield: yield}
	first, err := s.skipSpace()
	switch {
	case errors.Is(err, io.EOF):
		yield(failed(name, 0, errors.New("there is no event in it")))
	case err != nil:
		yield(failed(name, 0, err))
	case first == '[':
		s.array()
	default:
		s.sequence()
	}
}

// plain undoes compression, which it tells by the first bytes and not by the name, and drops a byte order mark.
func plain(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("decompress file: %w", err)
		}
		in = bufio.NewReaderSize(z, 64<<10)
	}
	if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
		_, err := in.Discard(len(mark))
		return in, err
	}
	return in, nil
}

// scanner splits a file into the texts of its events.
type scanner struct {
	name  string
	in    *bufio.Reader
	line  int // lines consumed
	yield func(Item) bool
}

// skipSpace consumes blank lines and indentation before the first event and returns the byte that follows.
func (s *scanner) skipSpace() (byte, error) {
	for {
		b, err := s.in.ReadByte()
		switch {
		case err != nil:
			return 0, err
		case b == '\n':
			s.line++
		case b != ' ' && b != '\t' && b != '\r':
			return b, s.in.UnreadByte()
		}
	}
}

// sequence reads events that follow each other. An event begins at a line that begins with a brace and goes on until it
// is whole or the next such line: so a broken event costs only itself.
func (s *scanner) sequence() {
	var text []byte // of the event being collected
	start := 0
	for {
		line, err := s.in.ReadBytes('\n')
		s.line++
		if len(text) > 0 && (len(line) == 0 || line[0] == '{') {
			if !s.emit(start, text) {
				return
			}
			text = nil
		}
		text = s.collect(text, line, &start)
		if whole(text, line) {
			if !s.emit(start, text) {
				return
			}
			text = nil
		}
		if err != nil {
			s.end(err, start, text)
			return
		}
	}
}

// collect appends a line to the text of an event, or begins one unless the line is blank.
func (s *scanner) collect(text, line []byte, start *int) []byte {
	if len(text) > 0 {
		return append(text, line...)
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	*start = s.line
	return line
}

// whole says whether the text, which ends in line, is all there is of its event. Text that cannot be an event is whole,
// too.
func whole(text, line []byte) bool {
	switch first := bytes.TrimLeft(text, " \t"); {
	case len(first) == 0:
		return false
	case first[0] != '{':
		return true
	case len(text) == len(line), line[0] == '}': // Looking at every line would take quadratic time.
		return json.Valid(text)
	default:
		return false
	}
}

// end emits the last event and reports an error other than the end of the file.
func (s *scanner) end(err error, start int, text []byte) {
	if len(text) > 0 && !s.emit(start, text) {
		return
	}
	if !errors.Is(err, io.EOF) {
		s.yield(failed(s.name, s.line, fmt.Errorf("read file of events: %w", err)))
	}
}

func (s *scanner) emit(line int, text []byte) bool {
	e, err := event.DecodeJSON(bytes.TrimSpace(text))
	if err != nil {
		return s.yield(failed(s.name, line, err))
	}
	return s.yield(Item{File: s.name, Line: line, Event: e})
}

// array reads the elements of a JSON array.
func (s *scanner) array() {
	counter := &lineCounter{in: s.in, line: s.line + 1}
	dec := json.NewDecoder(counter)
	if _, err := dec.Token(); err != nil {
		s.yield(failed(s.name, counter.line, err))
		return
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			s.yield(failed(s.name, counter.at(nextElement(dec)), brokenArray(err)))
			return
		}
		if !s.emit(counter.at(dec.InputOffset()-int64(len(raw))), raw) {
			return
		}
	}
	if _, err := dec.Token(); err != nil {
		s.yield(failed(s.name, counter.at(nextElement(dec)), brokenArray(err)))
	}
}

// nextElement returns the offset at which the element begins that dec failed to decode.
func nextElement(dec *json.Decoder) int64 {
	rest, _ := io.ReadAll(dec.Buffered()) // It is in memory.
	return dec.InputOffset() + int64(len(rest)-len(bytes.TrimLeft(rest, ", \t\r\n")))
}

func brokenArray(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file ends before the array does")
	}
	return fmt.Errorf("%w; the rest of the array was not read", err)
}

// lineCounter finds the lines of offsets that only grow.
type lineCounter struct {
	in       io.Reader
	line     int     // of the offset last asked for
	read     int64   // read so far
	newlines []int64 // offsets of the line feeds after the offset last asked for
}

func (c *lineCounter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.newlines = append(c.newlines, c.read+int64(i))
		}
	}
	c.read += int64(n)
	return n, err
}

// at returns the line of the byte at offset.
func (c *lineCounter) at(offset int64) int {
	passed := 0
	for passed < len(c.newlines) && c.newlines[passed] < offset {
		passed++
	}
	c.line += passed
	c.newlines = c.newlines[passed:]
	return c.line
}
