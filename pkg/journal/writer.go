package journal

import (
	"cmp"
	"context"
	"encoding/binary"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
)

const (
	// DefaultBuffer is how many bytes of records wait in memory to be stored, which is some 20,000 records.
	DefaultBuffer = 4 << 20
	// flushEvery is how long a record waits at most before it is on its way to the store, and so how much a process that is killed
	// takes with it while the store takes blocks.
	flushEvery = 500 * time.Millisecond
	// Settles is how long it takes until what a process did is in a store that takes blocks without delay.
	Settles = 2 * flushEvery
	// blockSize is at how many bytes, uncompressed, a block is complete.
	blockSize = 128 << 10
	// storeTimeout bounds the wait for the store to confirm blocks. Meanwhile records gather in the buffer.
	storeTimeout = 5 * time.Second
	// maxPending bounds the bytes of blocks that are kept while the store takes none.
	maxPending = 8 << 20
	// omissionsEvery is how often it is told of refusals that were not recorded.
	omissionsEvery = time.Minute
	// gatherAt is at how many bytes, or which part of a small buffer, records are gathered before it is time: while what they were written
	// into is in the processor's cache.
	gatherAt     = 256 << 10
	gatherAtPart = 4
	// headerSize is that of what is before each record in the buffer: a byte for its shard and four for its size.
	headerSize = 5
)

// WriterOptions configure a Writer.
type WriterOptions struct {
	// Store keeps the blocks.
	Store Store
	// Name tells the process apart where it tells of a gap.
	Name string
	// Buffer is how many bytes of records wait in memory at most before they are compressed; default [DefaultBuffer].
	Buffer int
	// Logger receives when a gap begins; default slog.Default().
	Logger *slog.Logger
}

// Writer gathers records and stores them. It never makes those who have records wait: what it has no room for is dropped
// and counted.
type Writer struct {
	opts WriterOptions
	wake chan struct{}
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	records []byte // each after a header; grows to Buffer when it is needed
	base    int64  // of their times, in µs since 1970
	stopped bool

	kept, dropped atomic.Uint64
	omitted       atomic.Uint64 // refusals, which dropped does not count
	stored, bytes atomic.Uint64 // blocks
	refusals      *rate.Limiter

	// What follows belongs to the goroutine that stores.
	begun        int64  // of base, the last that was given
	spare        []byte // takes the place of records
	space        []byte // to compress in
	shards       [Shards]Encoder
	blocks       []Block
	told         uint64    // of dropped
	toldOmitted  uint64    // of omitted, that is told
	omissionTold time.Time // when
	gapSince     time.Time
	clear        time.Time // until when nothing was missing
	last         bool      // nothing is tried again
	number       uint64    // of the last block
	id           string    // of this Writer
}

// NewWriter returns a Writer that works until [Writer.Stop].
func NewWriter(o WriterOptions) *Writer {
	o.Buffer = cmp.Or(o.Buffer, DefaultBuffer)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	w := &Writer{
		opts: o, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		clear: time.Now(), omissionTold: time.Now(), id: uuid.NewString(), refusals: rate.NewLimiter(refusalRate, refusalBurst),
	}
	w.begun = w.clear.UnixMicro()
	w.base = w.begun
	go w.run()
	return w
}

// Record writes a record down, or drops it if there is no room. It sets the time unless it is set, keeps nothing of r, and is safe for
// concurrent use.
func (w *Writer) Record(r *Record) {
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	shard, gather := Shard(r.ID), min(gatherAt, w.opts.Buffer/gatherAtPart)
	w.mu.Lock()
	before := len(w.records)
	if w.stopped || before >= w.opts.Buffer {
		w.mu.Unlock()
		w.dropped.Add(1)
		return
	}
	w.records = appendRecord(append(w.records, byte(shard), 0, 0, 0, 0), w.base, r)
	binary.LittleEndian.PutUint32(w.records[before+1:], uint32(len(w.records)-before-headerSize))
	now := len(w.records)
	w.mu.Unlock()
	if before < gather && now >= gather {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Stats counts records since the Writer began.
type Stats struct {
	// Kept are in the store, Dropped are not: there was no room for them, or the store did not take them. Omitted are refusals that
	// were not recorded, for there were too many, or they had no id.
	Kept, Dropped, Omitted uint64
	// Blocks were stored, of Bytes.
	Blocks, Bytes uint64
}

// Stats returns the counts so far.
func (w *Writer) Stats() Stats {
	return Stats{
		Kept: w.kept.Load(), Dropped: w.dropped.Load(), Omitted: w.omitted.Load(), Blocks: w.stored.Load(), Bytes: w.bytes.Load(),
	}
}

// Stop stores what was taken, for as long as ctx allows, and drops what comes later.
func (w *Writer) Stop(ctx context.Context) {
	w.mu.Lock()
	first := !w.stopped
	w.stopped = true
	w.mu.Unlock()
	if first {
		close(w.stop)
	}
	select {
	case <-w.done:
	case <-ctx.Done():
	}
}

func (w *Writer) run() {
	defer close(w.done)
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			w.last = true
			w.flush()
			w.flush() // tells of what the store did not take
			return
		case <-w.wake:
			w.gather(w.begun)
		case <-tick.C:
			w.flush()
		}
	}
}

// gather moves what was recorded into the blocks of the shards. What is recorded from now on has the given base.
func (w *Writer) gather(next int64) {
	w.mu.Lock()
	taken, base := w.records, w.base
	w.records, w.base = w.spare[:0], next
	w.mu.Unlock()
	for rest := taken; len(rest) > 0; {
		shard, end := int(rest[0]), headerSize+binary.LittleEndian.Uint32(rest[1:])
		e := &w.shards[shard]
		e.add(base, rest[headerSize:end])
		rest = rest[end:]
		if len(e.buf) >= blockSize {
			w.complete(shard)
		}
	}
	w.spare = taken
}

func (w *Writer) complete(shard int) {
	if e := &w.shards[shard]; e.count > 0 {
		w.put(Subject(shard), e, e.count)
	}
}

// put adds a block, with an id that no other block has.
func (w *Writer) put(subject string, e *Encoder, records int) {
	w.number++
	var data []byte
	data, w.space = e.pack(w.space)
	w.blocks = append(w.blocks, Block{Subject: subject, ID: w.id + "/" + strconv.FormatUint(w.number, 36), Data: data, Records: records})
}

// flush stores all there is.
func (w *Writer) flush() {
	w.begun = time.Now().UnixMicro()
	w.gather(w.begun)
	for shard := range w.shards {
		w.complete(shard)
	}
	w.tell()
	if len(w.blocks) > 0 {
		w.store()
	}
	if w.dropped.Load() == w.told {
		w.clear, w.gapSince = time.Now(), time.Time{}
	}
}

// store writes the blocks. Those that it does not confirm are kept to be written again, as far as there is room.
func (w *Writer) store() {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	all := sizesOf(w.blocks)
	failed := w.opts.Store.StoreJournal(ctx, w.blocks)
	lost := sizesOf(failed)
	w.kept.Add(all.records - lost.records)
	w.stored.Add(all.blocks - lost.blocks)
	w.bytes.Add(all.bytes - lost.bytes)
	w.blocks = w.blocks[:0]
	size := 0
	for _, b := range failed {
		if size += len(b.Data); size <= maxPending && !w.last {
			w.blocks = append(w.blocks, b)
			continue
		}
		if b.Subject == gapSubject {
			w.told -= uint64(b.Records) // to be told again
			continue
		}
		w.dropped.Add(uint64(b.Records))
	}
}

type sizes struct{ records, blocks, bytes uint64 }

func sizesOf(blocks []Block) (s sizes) {
	for _, b := range blocks {
		s.blocks++
		s.bytes += uint64(len(b.Data))
		if b.Subject != gapSubject {
			s.records += uint64(b.Records)
		}
	}
	return s
}

// tell adds a block that says what has been dropped since it was told last.
func (w *Writer) tell() {
	w.tellOmitted()
	dropped := w.dropped.Load()
	if dropped == w.told {
		return
	}
	if w.gapSince.IsZero() {
		w.gapSince = w.clear
		w.opts.Logger.Warn("the journal has a gap: records were dropped, for there was no room or the store did not take them",
			slog.Uint64("dropped", dropped))
	}
	var e Encoder
	e.Add(&Record{Kind: Gap, Time: time.Now(), Peer: w.opts.Name, Sequence: dropped - w.told, Due: w.gapSince})
	w.put(gapSubject, &e, int(dropped-w.told))
	w.told = dropped
}

// tellOmitted adds one that says which refusals were not recorded.
func (w *Writer) tellOmitted() {
	omitted := w.omitted.Load()
	if omitted == w.toldOmitted || !w.last && time.Since(w.omissionTold) < omissionsEvery {
		return
	}
	now := time.Now()
	var e Encoder
	e.Add(&Record{Kind: Gap, Time: now, Peer: w.opts.Name, Sequence: omitted - w.toldOmitted, Due: w.omissionTold, Reason: OfRefusals})
	w.put(gapSubject, &e, 0)
	w.toldOmitted, w.omissionTold = omitted, now
}
