package stream

import "errors"

// The errors that steer what a producer is told. They are matched with errors.Is.
var (
	// ErrFull says that the stream has reached its limit of bytes or messages. Nothing was stored.
	ErrFull = errors.New("the broker's store is full")
	// ErrUnavailable says that the store cannot be reached or did not confirm in time. The message may have been stored.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrBusy says that too many bytes wait for the store's confirmation. Nothing was stored.
	ErrBusy = errors.New("too many events wait for the store")
	// ErrTooLarge says that the message is larger than the store takes. Nothing was stored.
	ErrTooLarge = errors.New("the event is larger than the store accepts")
)
