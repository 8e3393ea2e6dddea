package v1

import (
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// UnmarshalJSON reads a filter. What is no filter is not an error but noted in Fault, for the API server cannot check
// nested filters, and a client that lists Triggers must not lose sight of all of them because of one.
func (f *Filter) UnmarshalJSON(data []byte) error {
	type plain Filter // without this method
	var read plain
	if err := utiljson.Unmarshal(data, &read); err != nil {
		*f = Filter{Fault: err.Error()}
		return nil
	}
	*f = Filter(read)
	return nil
}
