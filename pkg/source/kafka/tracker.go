package kafka

import "time"

// slot is a record that was received.
type slot struct {
	offset  int64
	epoch   int32
	settled bool
	at      time.Time // when it was received
}

// tracker knows which records of a partition are settled. Offsets need not be contiguous: what compaction or an aborted
// transaction left out was never received. It is not safe for concurrent use.
type tracker struct {
	slots []*slot // in order of offsets, from the first that is not settled
	// position is the offset to commit: every record before it is settled. Negative as long as it is not known.
	position int64
	epoch    int32
}

func newTracker() tracker { return tracker{position: -1, epoch: -1} }

// start sets where the partition begins, if that is not known yet.
func (t *tracker) start(offset int64) {
	if t.position < 0 {
		t.position = offset
	}
}

// add takes note of a record, whose offset is above those before it.
func (t *tracker) add(offset int64, epoch int32, at time.Time) *slot {
	s := &slot{offset: offset, epoch: epoch, at: at}
	t.slots = append(t.slots, s)
	return s
}

// settle takes note that a record is settled.
func (t *tracker) settle(s *slot) {
	s.settled = true
	done := 0
	for done < len(t.slots) && t.slots[done].settled {
		t.position, t.epoch = t.slots[done].offset+1, t.slots[done].epoch
		done++
	}
	clear(t.slots[:done])
	t.slots = t.slots[done:]
}

// oldest is when the oldest record was received that is not settled; the zero time if all are.
func (t *tracker) oldest() time.Time {
	if len(t.slots) == 0 {
		return time.Time{}
	}
	return t.slots[0].at
}
