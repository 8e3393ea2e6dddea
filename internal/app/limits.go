package app

import (
	"fmt"

	eventingv1 "millrace.dev/api/eventing/v1"
	"millrace.dev/pkg/stream"
)

// The limits of Brokers where nobody sets any.
const (
	// DefaultMaxBytes is how many bytes of accepted, unsettled events a Broker may store.
	DefaultMaxBytes = 1 << 30
	// DefaultMaxEventBytes is how many bytes of data an event may have.
	DefaultMaxEventBytes = 1 << 20
)

// LimitDefaults are the limits of Brokers that have no annotation for them. The zero value of each field stands for its
// own default.
type LimitDefaults struct {
	// MaxBytes of accepted, unsettled events. Default [DefaultMaxBytes].
	MaxBytes int64
	// MaxEventBytes of data in one event. Default [DefaultMaxEventBytes].
	MaxEventBytes int64
	// Replicas of each stream: 1, 3 or 5. Default 1.
	Replicas int
}

func (d LimitDefaults) withDefaults() LimitDefaults {
	if d.MaxBytes == 0 {
		d.MaxBytes = DefaultMaxBytes
	}
	if d.MaxEventBytes == 0 {
		d.MaxEventBytes = DefaultMaxEventBytes
	}
	if d.Replicas == 0 {
		d.Replicas = 1
	}
	return d
}

func (d LimitDefaults) validate() error {
	switch {
	case !eventingv1.ValidReplicas(d.Replicas):
		return fmt.Errorf("%d replicas of a stream: want 1, 3 or 5", d.Replicas)
	case d.MaxEventBytes < eventingv1.MinEventBytes || d.MaxEventBytes > eventingv1.MaxEventBytes:
		return fmt.Errorf("%d bytes for an event: want %d to %d", d.MaxEventBytes, eventingv1.MinEventBytes, eventingv1.MaxEventBytes)
	case d.MaxBytes < eventingv1.MinStoreBytes:
		return fmt.Errorf("%d bytes for a store: want at least %d", d.MaxBytes, eventingv1.MinStoreBytes)
	}
	return nil
}

// Complete returns the limits with no field left zero, or says which makes no sense.
func (d LimitDefaults) Complete() (LimitDefaults, error) {
	d = d.withDefaults()
	return d, d.validate()
}

// Resolve returns the limits of a Broker's streams, and how many bytes of data an event for it may have. An annotation
// that makes no sense counts as not there: whoever loads objects has reported it. d must be complete.
func (d LimitDefaults) Resolve(o *eventingv1.Broker) (_ stream.Limits, eventBytes int) {
	own, _ := o.Limits()
	eventBytes = int(d.MaxEventBytes)
	if own.MaxEventBytes > 0 {
		eventBytes = own.MaxEventBytes
	}
	l := stream.Limits{
		MaxBytes:        d.MaxBytes,
		MaxMessages:     own.MaxMessages,
		MaxEventBytes:   stream.StoredBytes(eventBytes),
		Replicas:        d.Replicas,
		DuplicateWindow: own.DuplicateWindow,
		ParkedMaxAge:    own.ParkedMaxAge,
		ParkedMaxBytes:  own.ParkedMaxBytes,
		ArchiveMaxAge:   own.ArchiveMaxAge,
		ArchiveMaxBytes: own.ArchiveMaxBytes,
	}
	if own.MaxBytes > 0 {
		l.MaxBytes = own.MaxBytes
	}
	if own.Replicas > 0 {
		l.Replicas = own.Replicas
	}
	return l.WithDefaults(), eventBytes
}
