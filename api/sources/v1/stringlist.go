package v1

import (
	"encoding/json"
	"fmt"
	"strings"
)

// SplitList cuts a string with commas into its elements, without the space around them; empty ones are left out.
func SplitList(text string) StringList {
	var list StringList
	for element := range strings.SplitSeq(text, ",") {
		if element = strings.TrimSpace(element); element != "" {
			list = append(list, element)
		}
	}
	return list
}

// UnmarshalJSON reads a list of strings, or one string with commas.
func (l *StringList) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*l = SplitList(text)
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("expected a list of strings, or one with commas: %w", err)
	}
	*l = list
	return nil
}
