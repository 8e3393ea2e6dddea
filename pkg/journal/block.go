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
// the base. A string that is likely to come again in the block is written once and then named by its number: 0 stands for
// a new one that follows, n for the n-th. Fields that a reader does not know can only be those of a later schema.
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

// Encoder writes the records of one block, and after Take those of the next. The zero value is ready for use.
type Encoder struct {
	buf    []byte
	base   int64
	count  int
	known  map[string]uint64
	packed []byte
}

// Add writes a record. What is too long is cut.
func (e *Encoder) Add(r *Record) {
	if e.count == 0 {
		e.buf = e.buf[:0]
		e.base = r.Time.UnixMicro()
		e.buf = binary.AppendVarint(e.buf, e.base)
		if e.known == nil {
			e.known = map[string]uint64{}
		}
		clear(e.known)
	}
	e.count++
	has := fieldsOf(r)
	e.buf = append(e.buf, byte(r.Kind))
	e.number(uint64(has))
	e.time(r.Time)
	e.again(r.Broker)
	e.text(r.ID, maxText)
	e.again(r.Source)
	e.again(r.Type)
	if has&hasFate != 0 {
		e.buf = append(e.buf, byte(r.Fate))
	}
	if has&hasSequence != 0 {
		e.number(r.Sequence)
	}
	if has&hasPeer != 0 {
		e.again(r.Peer)
	}
	if has&hasTrigger != 0 {
		e.again(r.Trigger)
	}
	if has&hasTriggers != 0 {
		n := min(len(r.Triggers), maxTriggers)
		e.number(uint64(n))
		for _, t := range r.Triggers[:n] {
			e.again(t)
		}
	}
	if has&hasAttempt != 0 {
		e.number(uint64(r.Attempt))
	}
	if has&hasStatus != 0 {
		e.number(uint64(r.Status))
	}
	if has&hasReason != 0 {
		e.again(r.Reason)
	}
	if has&hasCause != 0 {
		e.text(r.Cause, mostOfCause(r.Kind))
	}
	if has&hasDuration != 0 {
		e.number(uint64(r.Duration.Microseconds()))
	}
	if has&hasDue != 0 {
		e.time(r.Due)
	}
	if has&hasAttributes != 0 {
		e.attributes(r.Attributes)
	}
}

func fieldsOf(r *Record) int {
	has := 0
	for _, f := range [...]struct {
		bit int
		set bool
	}{
		{hasFate, r.Fate != None},
		{hasDeadLetter, r.DeadLetter},
		{hasSequence, r.Sequence != 0},
		{hasPeer, r.Peer != ""},
		{hasTrigger, r.Trigger != ""},
		{hasTriggers, len(r.Triggers) > 0},
		{hasAttempt, r.Attempt > 0},
		{hasStatus, r.Status > 0},
		{hasReason, r.Reason != ""},
		{hasCause, r.Cause != ""},
		{hasDuration, r.Duration > 0},
		{hasDue, !r.Due.IsZero()},
		{hasAttributes, len(r.Attributes) > 0},
		{hasAgain, r.Again},
	} {
		if f.set {
			has |= f.bit
		}
	}
	return has
}

// mostOfCause is how long Cause may be: where it is an id, as long as ids.
func mostOfCause(k Kind) int {
	if k == Replied || k == Answered {
		return maxText
	}
	return maxCause
}

// attributes writes those beside id, source and type, as long as there is room for them; the number says whether any is
// missing.
func (e *Encoder) attributes(all []event.Attribute) {
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
	e.number(uint64(n)<<1 | missing)
	for i := range all {
		if n == 0 {
			return
		}
		a := &all[i]
		if standing(a.Name) {
			continue
		}
		n--
		e.again(a.Name)
		e.buf = append(e.buf, byte(a.Kind))
		e.text(a.Value, maxAttributes)
	}
}

func standing(name string) bool {
	return name == event.ID || name == event.Source || name == event.Type
}

func (e *Encoder) number(n uint64) { e.buf = binary.AppendUvarint(e.buf, n) }

func (e *Encoder) time(t time.Time) { e.buf = binary.AppendVarint(e.buf, t.UnixMicro()-e.base) }

func (e *Encoder) text(s string, most int) {
	s = s[:min(len(s), most)]
	e.number(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *Encoder) again(s string) {
	s = s[:min(len(s), maxText)]
	if n := e.known[s]; n > 0 {
		e.number(n)
		return
	}
	e.known[s] = uint64(len(e.known)) + 1
	e.number(0)
	e.text(s, maxText)
}

// Take returns the block and begins a new one.
func (e *Encoder) Take() []byte {
	e.packed = s2.Encode(e.packed[:cap(e.packed)], e.buf)
	block := append(make([]byte, 0, 1+len(e.packed)), schema)
	e.count = 0
	return append(block, e.packed...)
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
