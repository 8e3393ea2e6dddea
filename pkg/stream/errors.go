package stream

import (
	"errors"
	"fmt"
)

// The errors that steer what a producer is told. They are matched with errors.Is.
var (
	// ErrFull says that the stream has reached its limit of bytes or messages. Nothing was stored.
	ErrFull = errors.New("the broker's store is full")
	// ErrUnavailable says that the store cannot be reached or did not confirm in time. The message may have been stored.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrNotSent says that the message did not leave the process, because the store is known not to take it: nothing was
	// stored. Errors that match it match [ErrUnavailable] as well.
	ErrNotSent = errors.New("not sent")
	// ErrBusy says that too many bytes wait for the store's confirmation. Nothing was stored.
	ErrBusy = errors.New("too many events wait for the store")
	// ErrTooLarge says that the message is larger than the store takes. Nothing was stored.
	ErrTooLarge = errors.New("the event is larger than the store accepts")
	// ErrRefused says that a stream cannot be made as asked; it stays so until the settings or the server's change.
	ErrRefused = errors.New("the store refuses the stream")
	// ErrKept says that a stream works, but with settings other than those asked for.
	ErrKept = errors.New("the stream keeps some of its settings")
)

// SizeError says by how much a message is larger than the store takes. It matches [ErrTooLarge].
type SizeError struct {
	// What names the limit.
	What string
	// Size is that of the message or its part, Limit what is allowed, in bytes.
	Size, Limit int64
}

// Error names the limit and both sizes.
func (e *SizeError) Error() string {
	return fmt.Sprintf("%v: it takes %d bytes, and %s is %d", ErrTooLarge, e.Size, e.What, e.Limit)
}

// RefusedError is the server's answer that it does not make a stream as asked. It matches [ErrRefused].
type RefusedError struct {
	// Reason is the server's, Advice what to do about it; empty if there is no telling.
	Reason, Advice string
}

// Error gives both.
func (e *RefusedError) Error() string {
	if e.Advice == "" {
		return fmt.Sprintf("%v: %s", ErrRefused, e.Reason)
	}
	return fmt.Sprintf("%v: %s: %s", ErrRefused, e.Reason, e.Advice)
}

// Is reports whether target is [ErrRefused].
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// Is reports whether target is [ErrTooLarge].
func (e *SizeError) Is(target error) bool { return target == ErrTooLarge }
