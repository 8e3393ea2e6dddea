package load

import (
	"syscall"
	"time"
)

// sleepUntil sleeps in the kernel: the runtime's timers may be a millisecond late when the program is idle, as long as
// the latencies that are to be measured.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(d.Nanoseconds())
		_ = syscall.Nanosleep(&ts, nil) // ends early on a signal
	}
}
