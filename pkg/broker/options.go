package broker

import (
	"log/slog"
	"time"

	"millrace.dev/pkg/event"
	"millrace.dev/pkg/observe"
)

// Options are the bounds of a [Handler]. The zero value of each field stands for its default.
type Options struct {
	// MaxEventBytes bounds the data of one event. Default 1 MiB. A Broker may have its own.
	MaxEventBytes int
	// MaxAttributeBytes bounds the names and values of one event's attributes together. Default 64 KiB.
	MaxAttributeBytes int
	// MaxBatchBytes bounds the body of a batch. Default 8 MiB.
	MaxBatchBytes int
	// MaxInFlightBytes bounds the bodies of all requests being served. A request that exceeds it is still served if no
	// other is. Default 64 MiB.
	MaxInFlightBytes int64
	// MaxInFlightRequests bounds the number of requests being served. Default 10,000.
	MaxInFlightRequests int64
	// Recorder, if set, is told of each event that was answered for.
	Recorder observe.Recorder
	// NoLatencies spares requests the measuring of how long they take.
	NoLatencies bool
	// Tracer, if set, makes spans of those events whose trace is recorded.
	Tracer observe.Tracer
	// Logger receives a record when the store refuses events, at most one a second. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	setDefault(&o.MaxEventBytes, 1<<20)
	setDefault(&o.MaxAttributeBytes, event.DefaultMaxAttributeBytes)
	setDefault(&o.MaxBatchBytes, 8<<20)
	setDefault(&o.MaxInFlightBytes, 64<<20)
	setDefault(&o.MaxInFlightRequests, 10_000)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}
