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

// UnmarshalJSON reads a list of strings, or one string with commas. Anything else is no error but becomes an element in its
// JSON form, for validation to find fault with: the API server cannot check a field that has two forms, and a client that lists
// sources must not lose sight of all of them because of one.
func (l *StringList) UnmarshalJSON(data []byte) error {
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return fmt.Errorf("read a list of strings: %w", err)
	}
	*l = nil
	switch value := value.(type) {
	case nil:
	case string:
		*l = SplitList(value)
	case []any:
		for _, element := range value {
			*l = append(*l, elementText(element))
		}
	default:
		*l = StringList{elementText(value)}
	}
	return nil
}

// elementText is a string itself, or what else it is as JSON.
func elementText(element any) string {
	if text, ok := element.(string); ok {
		return text
	}
	text, _ := json.Marshal(element) // it was decoded from JSON
	return string(text)
}
