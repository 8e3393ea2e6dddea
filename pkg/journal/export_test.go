package journal

import "context"

// NewIdleWriter is a Writer that stores only what Flush has it store.
func NewIdleWriter(o WriterOptions) *Writer {
	w := NewWriter(o)
	w.Stop(context.Background())
	w.stopped, w.last = false, false
	return w
}

// Flush stores what was recorded, as the Writer does by itself twice a second.
func (w *Writer) Flush() {
	w.gather()
	w.flush()
}
