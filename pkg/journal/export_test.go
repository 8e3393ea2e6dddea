package journal

import "context"

// NewIdleWriter is a Writer that does only what it is told to by Gather and Flush.
func NewIdleWriter(o WriterOptions) *Writer {
	w := NewWriter(o)
	w.Stop(context.Background())
	w.stopped, w.last = false, false
	return w
}

// Gather makes blocks of what was recorded, if there is as much as has the Writer do so by itself.
func (w *Writer) Gather() {
	select {
	case <-w.wake:
		w.gather(w.begun)
	default:
	}
}

// Flush stores what was recorded, as the Writer does by itself twice a second.
func (w *Writer) Flush() { w.flush() }
