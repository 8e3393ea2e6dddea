package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/s2"

	"millrace.dev/pkg/event"
)

// A block is the byte of its schema and the S2 compression of
//
//	base time (varint, µs since 1970) record…
//
// where a record is its kind, a varint of what it has, and then those fields in the order of their bits. Times are µs after
// the base. A string that is likely to come again in the block is 0 and the string or, if it is the n-th of these that came after a 0, just
// n, which this version reads but does not write: S2 finds what comes again faster. Fields that a reader does not know can only be those of a
// later schema.
const schema = 1

// The bits of the fields.
const (
	hasFate = 1 << iota
	hasDeadLetter
	hasSequence
	hasPeer
	hasTrigger
	hasTriggers
	hasAttempt
	hasStatus
	hasReason
	hasCause
	hasDuration
	hasDue
	hasAttributes
	hasAgain // of no bytes, so versions before it read on
)

const (
	// maxCause bounds Cause, maxText every other text, and maxAttributes the names and values of the attributes.
	maxCause      = 256
	maxText       = 1 << 10
	maxAttributes = 4 << 10
	// maxTriggers bounds the Triggers of a record.
	maxTriggers = 4096
	// maxBlock bounds a block that is read, uncompressed.
	maxBlock = 16 << 20
)

// ErrSchema says that a block is none, or one of a later version of Millrace.
var ErrSchema = errors.New("not a block of the journal that this version can read")

// appendRecord appends a record whose times are relative to the base, in µs since 1970. What is too long is cut.
func appendRecord(buf []byte, base int64, r *Record) []byte {
	has := fieldsOf(r)
	buf = append(buf, byte(r.Kind))
	buf = appendNumber(buf, uint64(has))
	buf = binary.AppendVarint(buf, r.Time.UnixMicro()-base)
	buf = appendCommon(buf, r.Broker)
	buf = appendText(buf, r.ID, maxText)
	buf = appendCommon(buf, r.Source)
	buf = appendCommon(buf, r.Type)
	if has&hasFate != 0 {
		buf = append(buf, byte(r.Fate))
	}
	if has&hasSequence != 0 {
		buf = appendNumber(buf, r.Sequence)
	}
	if has&hasPeer != 0 {
		buf = appendCommon(buf, r.Peer)
	}
	if has&hasTrigger != 0 {
		buf = appendCommon(buf, r.Trigger)
	}
	if has&hasTriggers != 0 {
		n := min(len(r.Triggers), maxTriggers)
		buf = appendNumber(buf, uint64(n))
		for _, t := range r.Triggers[:n] {
			buf = appendCommon(buf, t)
		}
	}
	if has&hasAttempt != 0 {
		buf = appendNumber(buf, uint64(r.Attempt))
	}
	if has&hasStatus != 0 {
		buf = appendNumber(buf, uint64(r.Status))
	}
	if has&hasReason != 0 {
		buf = appendCommon(buf, r.Reason)
	}
	if has&hasCause != 0 {
		buf = appendText(buf, r.Cause, mostOfCause(r.Kind))
	}
	if has&hasDuration != 0 {
		buf = appendNumber(buf, uint64(r.Duration.Microseconds()))
	}
	if has&hasDue != 0 {
		buf = binary.AppendVarint(buf, r.Due.UnixMicro()-base)
	}
	if has&hasAttributes != 0 {
		buf = appendAttributes(buf, r.Attributes)
	}
	return buf
}

func appendNumber(buf []byte, n uint64) []byte {
	if n < 0x80 { // as most are
		return append(buf, byte(n))
	}
	return binary.AppendUvarint(buf, n)
}

func appendText(buf []byte, s string, most int) []byte {
	n := min(len(s), most)
	return append(appendNumber(buf, uint64(n)), s[:n]...)
}

// appendCommon appends a string that is likely to come again.
func appendCommon(buf []byte, s string) []byte { return appendText(append(buf, 0), s, maxText) }

func fieldsOf(r *Record) (has int) {
	set := func(bit int, is bool) {
		if is {
			has |= bit
		}
	}
	set(hasFate, r.Fate != None)
	set(hasDeadLetter, r.DeadLetter)
	set(hasSequence, r.Sequence != 0)
	set(hasPeer, r.Peer != "")
	set(hasTrigger, r.Trigger != "")
	set(hasTriggers, len(r.Triggers) > 0)
	set(hasAttempt, r.Attempt > 0)
	set(hasStatus, r.Status > 0)
	set(hasReason, r.Reason != "")
	set(hasCause, r.Cause != "")
	set(hasDuration, r.Duration > 0)
	set(hasDue, !r.Due.IsZero())
	set(hasAttributes, len(r.Attributes) > 0)
	set(hasAgain, r.Again)
	return has
}

// mostOfCause is how long Cause may be: where it is an id, as long as ids.
func mostOfCause(k Kind) int {
	if k == Replied || k == Answered {
		return maxText
	}
	return maxCause
}

// appendAttributes appends those beside id, source and type, as long as there is room for them; the number says whether any is
// missing.
func appendAttributes(buf []byte, all []event.Attribute) []byte {
	room, n, missing := maxAttributes, 0, uint64(0)
	for i := range all {
		if standing(all[i].Name) {
			continue
		}
		if room -= len(all[i].Name) + len(all[i].Value); room < 0 {
			missing = 1
			break
		}
		n++
	}
	buf = appendNumber(buf, uint64(n)<<1|missing)
	for i := range all {
		if n == 0 {
			break
		}
		a := &all[i]
		if standing(a.Name) {
			continue
		}
		n--
		buf = appendCommon(buf, a.Name)
		buf = append(buf, byte(a.Kind))
		buf = appendText(buf, a.Value, maxAttributes)
	}
	return buf
}

func standing(name string) bool {
	return name == event.ID || name == event.Source || name == event.Type
}

// Encoder writes the records of one block, and after Take those of the next. The zero value is ready for use.
type Encoder struct {
	buf   []byte
	base  int64
	count int
}

// Add writes a record. What is too long is cut.
func (e *Encoder) Add(r *Record) {
	if e.count == 0 {
		e.begin(r.Time.UnixMicro())
	}
	e.count++
	e.buf = appendRecord(e.buf, e.base, r)
}

// add writes what appendRecord made with the base, which is that of the block.
func (e *Encoder) add(base int64, record []byte) {
	if e.count == 0 {
		e.begin(base)
	}
	e.count++
	e.buf = append(e.buf, record...)
}

func (e *Encoder) begin(base int64) {
	e.base = base
	e.buf = binary.AppendVarint(e.buf[:0], base)
}

// Take returns the block and begins a new one.
func (e *Encoder) Take() []byte {
	block, _ := e.pack(nil)
	return block
}

// pack is Take with memory to compress in, which it returns, as far as it had to grow, for the next time.
func (e *Encoder) pack(space []byte) (block, grown []byte) {
	packed := s2.Encode(space[:cap(space)], e.buf)
	e.count = 0
	block = append(make([]byte, 0, 1+len(packed)), schema)
	return append(block, packed...), packed
}

// decoder reads the records of one block.
type decoder struct {
	rest  []byte
	base  int64
	known []string
	bad   bool
}

// Decode calls each for the records of a block until it returns false. The Record is used again: it is to be copied if it
// is to be kept. The error matches [ErrSchema].
func Decode(block []byte, each func(*Record) bool) error {
	if len(block) == 0 || block[0] != schema {
		return ErrSchema
	}
	n, err := s2.DecodedLen(block[1:])
	if err != nil || n > maxBlock {
		return fmt.Errorf("%w: its length is wrong", ErrSchema)
	}
	d := &decoder{}
	if d.rest, err = s2.Decode(nil, block[1:]); err != nil {
		return fmt.Errorf("%w: %w", ErrSchema, err)
	}
	d.base = d.signed()
	for len(d.rest) > 0 && !d.bad {
		var r Record
		d.record(&r)
		if !d.bad && !each(&r) {
			return nil
		}
	}
	if d.bad {
		return fmt.Errorf("%w: it ends too early", ErrSchema)
	}
	return nil
}

func (d *decoder) record(r *Record) {
	r.Kind = Kind(d.byte())
	has := int(d.number())
	r.Time = d.time()
	r.Broker, r.ID = d.again(), d.text()
	r.Source, r.Type = d.again(), d.again()
	if has&hasFate != 0 {
		r.Fate = Fate(d.byte())
	}
	r.DeadLetter, r.Again = has&hasDeadLetter != 0, has&hasAgain != 0
	if has&hasSequence != 0 {
		r.Sequence = d.number()
	}
	if has&hasPeer != 0 {
		r.Peer = d.again()
	}
	if has&hasTrigger != 0 {
		r.Trigger = d.again()
	}
	if has&hasTriggers != 0 {
		for range d.length() {
			r.Triggers = append(r.Triggers, d.again())
		}
	}
	if has&hasAttempt != 0 {
		r.Attempt = int(d.number())
	}
	if has&hasStatus != 0 {
		r.Status = int(d.number())
	}
	if has&hasReason != 0 {
		r.Reason = d.again()
	}
	if has&hasCause != 0 {
		r.Cause = d.text()
	}
	if has&hasDuration != 0 {
		r.Duration = time.Duration(d.number()) * time.Microsecond
	}
	if has&hasDue != 0 {
		r.Due = d.time()
	}
	if has&hasAttributes != 0 {
		d.attributes(r)
	}
}

func (d *decoder) attributes(r *Record) {
	head := d.number()
	r.Attributes = append(r.Attributes,
		event.Attribute{Name: event.ID, Value: r.ID}, event.Attribute{Name: event.Source, Value: r.Source},
		event.Attribute{Name: event.Type, Value: r.Type})
	for n := head >> 1; n > 0 && !d.bad; n-- {
		a := event.Attribute{Name: d.again(), Kind: event.Kind(d.byte())}
		a.Value = d.text()
		r.Attributes = append(r.Attributes, a)
	}
	r.Cut = head&1 != 0
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) signed() int64 {
	n, size := binary.Varint(d.rest)
	if size <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *decoder) time() time.Time { return time.UnixMicro(d.base + d.signed()) }

// length is a number of things that follow, each of at least a byte.
func (d *decoder) length() int {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.bad, d.rest = true, nil
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.length()
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) again() string {
	n := d.number()
	if n == 0 && !d.bad {
		s := d.text()
		d.known = append(d.known, s)
		return s
	}
	if n > uint64(len(d.known)) || n == 0 {
		d.bad, d.rest = true, nil
		return ""
	}
	return d.known[n-1]
}
