package objects

import (
	"go.yaml.in/yaml/v3"
)

// maxAliasHops bounds a chain of aliases to aliases.
const maxAliasHops = 8

// maxMergedPairs bounds what one merge key adds.
const maxMergedPairs = 1000

func resolveAlias(node *yaml.Node) *yaml.Node {
	for range maxAliasHops {
		if node.Kind != yaml.AliasNode || node.Alias == nil {
			break
		}
		node = node.Alias
	}
	return node
}

// pair is one entry of a mapping.
type pair struct {
	key, value *yaml.Node
}

// pairs returns the entries of a mapping, those merged in with "<<" after its own. merged says how many are its own.
func pairs(node *yaml.Node) (entries []pair, own int) {
	var merged []pair
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.Value == "<<" && key.Style == 0 {
			merged = append(merged, mergedPairs(value)...)
			continue
		}
		entries = append(entries, pair{key, value})
	}
	return append(entries, merged...), len(entries)
}

// mergedPairs returns the entries that a merge key adds. Merges of merges are not followed: nobody writes them, and
// each level would multiply the work.
func mergedPairs(value *yaml.Node) []pair {
	value = resolveAlias(value)
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	var merged []pair
	for _, source := range sources {
		source = resolveAlias(source)
		if source.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(source.Content) && len(merged) < maxMergedPairs; i += 2 {
			merged = append(merged, pair{source.Content[i], source.Content[i+1]})
		}
	}
	return merged
}

// child returns the value of a key of a mapping, nil when there is none.
func child(node *yaml.Node, key string) *yaml.Node {
	if node == nil {
		return nil
	}
	node = resolveAlias(node)
	if node.Kind != yaml.MappingNode {
		return nil
	}
	entries, _ := pairs(node)
	for _, entry := range entries {
		if resolveAlias(entry.key).Value == key {
			return entry.value
		}
	}
	return nil
}

// scalarAt returns the text of a scalar reached through keys, "" when it is not there.
func scalarAt(node *yaml.Node, keys ...string) string {
	for _, key := range keys {
		node = child(node, key)
	}
	if node == nil {
		return ""
	}
	node = resolveAlias(node)
	if node.Kind != yaml.ScalarNode {
		return ""
	}
	return node.Value
}
