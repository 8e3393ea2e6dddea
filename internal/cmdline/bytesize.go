package cmdline

import (
	"errors"

	"k8s.io/apimachinery/pkg/api/resource"

	eventingv1 "millrace.dev/api/eventing/v1"
)

// byteSize is a flag whose value is a number of bytes, written as a quantity such as 10Gi.
type byteSize struct {
	target    *int64
	low, high int64
}

// newByteSize returns a flag value that sets target, with a default, for values from low to high, which is no bound if 0.
func newByteSize(target *int64, value, low, high int64) *byteSize {
	*target = value
	return &byteSize{target, low, high}
}

// Set implements pflag.Value.
func (b *byteSize) Set(text string) error {
	n, fault := eventingv1.ParseBytes(text, b.low, b.high)
	if fault != "" {
		return errors.New(fault)
	}
	*b.target = n
	return nil
}

// String implements pflag.Value.
func (b *byteSize) String() string {
	if b.target == nil {
		return ""
	}
	return resource.NewQuantity(*b.target, resource.BinarySI).String()
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "bytes" }
