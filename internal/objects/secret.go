package objects

import (
	"encoding/base64"
	"strings"

	"go.yaml.in/yaml/v3"
)

// secret holds the values of a Secret by key.
type secret map[string][]byte

// decodeSecret reads data and stringData of a Secret. It says where a mistake is and never what the value was: problems
// are printed and logged.
func decodeSecret(node *yaml.Node, report reporter) secret {
	values := secret{}
	for _, name := range []string{"data", "stringData"} { // the second wins, as in a cluster
		section := child(node, name)
		if section == nil || isNull(resolveAlias(section)) {
			continue
		}
		section = resolveAlias(section)
		if section.Kind != yaml.MappingNode {
			report(section, name, "expected a mapping", "write key: value, one a line, indented")
			continue
		}
		entries, _ := pairs(section)
		for _, entry := range entries {
			key, value := resolveAlias(entry.key).Value, resolveAlias(entry.value)
			at := name + "[" + key + "]"
			if value.Kind != yaml.ScalarNode {
				report(value, at, "expected a string", "")
				continue
			}
			decoded, err := secretValue(name, value.Value)
			if err != nil {
				report(value, at, "is not base64", "write it under stringData as it is")
			}
			values[key] = decoded
		}
	}
	return values
}

func secretValue(section, text string) ([]byte, error) {
	if section == "stringData" {
		return []byte(text), nil
	}
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")) //nolint:wrapcheck // it would repeat the value
}
