package objects

import (
	"testing"

	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// TestScalarsMeanWhatTheyMeanToKubectl holds the resolution of plain scalars to the YAML library that kubectl reads with.
func TestScalarsMeanWhatTheyMeanToKubectl(t *testing.T) {
	words := []string{
		"", "~", "null", "Null", "NULL", "nULL", "y", "Y", "yes", "Yes", "YES", "yEs", "n", "No", "NO", "on", "On", "off", "OFF",
		"true", "True", "TRUE", "tRUE", "false", "False", "falsey", "0x1F", "0o17", "017", "0b11", "1_000", "1e3", ".5", "-.inf",
		".nan", "+12", "-0", "1.10", "2026-01-31", "2026-01-31T12:00:00Z", "1:30", "tomorrow", "9223372036854775808", "-", "---",
	}
	check := func(t interface{ Errorf(string, ...any) }, word string) {
		var want map[string]any
		if err := yamlv2.Unmarshal([]byte("k: "+word), &want); err != nil || len(want) != 1 {
			return
		}
		docs, err := decodeNodes("k: " + word)
		if err != nil || len(docs) != 1 || docs[0].root.Content[1].Kind != yaml.ScalarNode || !isPlain(docs[0].root.Content[1]) {
			return
		}
		node := docs[0].root.Content[1]
		got := resolveScalar(node)
		if nan, ok := got.(float64); ok && nan != nan {
			return
		}
		if got != want["k"] || isNull(node) != (want["k"] == nil) {
			t.Errorf("%q is %v (%T), want %v (%T)", word, got, got, want["k"], want["k"])
		}
	}
	for _, word := range words {
		check(t, word)
	}
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.StringMatching(`[-+.~0-9a-zA-Z_:]{0,6}`).Draw(t, "word"))
	})
}
