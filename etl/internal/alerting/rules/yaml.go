package rules

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxProblems bounds the length of an error, and the cost of a hostile file.
const maxProblems = 100

// maxShown bounds, in bytes, how much of a value an error shows.
const maxShown = 80

// document returns the only document of a YAML text, or nil if it has no content.
func document(origin string, text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	switch err := d.Decode(&first); {
	case err == io.EOF:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: not YAML: %s", origin, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(&second); err != io.EOF {
		return nil, fmt.Errorf("%s: more than one document: remove everything from the second --- on", origin)
	}
	if len(first.Content) == 0 {
		return nil, nil
	}
	return first.Content[0], nil
}

// parser collects the problems and the values of a file.
type parser struct {
	origin   string
	problems []error
	values   []string // path=value

	temperatureLines map[string]int // of temperature limits, by the path of their layer
}

// field reads the node at a path.
type field func(path string, n *yaml.Node)

// fields are the known keys of a mapping.
type fields map[string]field

func (p *parser) problem(line int, path, value, remedy string) {
	if len(p.problems) > maxProblems {
		return
	}
	if len(p.problems) == maxProblems {
		p.problems = append(p.problems, fmt.Errorf("%s: more than %d problems", p.origin, maxProblems))
		return
	}
	if len(value) > maxShown {
		value = strings.ToValidUTF8(value[:maxShown], "") + "…"
	}
	p.problems = append(p.problems, fmt.Errorf("%s line %d: %s: %s", p.origin, line, strings.TrimSpace(path+" "+value), remedy))
}

// shown formats a node's value for an error.
func shown(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "(a mapping)"
	case yaml.SequenceNode:
		return "(a list)"
	}
	if quoted := strconv.Quote(n.Value); n.Value == "" || n.Tag == "!!str" || len(quoted) > len(n.Value)+2 {
		return quoted // also if it has characters that would break the line
	}
	return n.Value
}

// resolved returns the node that an alias refers to.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// nonNull returns the node, or nil if it is absent or null.
func nonNull(n *yaml.Node) *yaml.Node {
	if n == nil {
		return nil
	}
	if n = resolved(n); n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	return n
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// entries yields the keys and values of a mapping. A null is an empty mapping.
func (p *parser) entries(path string, n *yaml.Node, yield func(key string, at *yaml.Node, value *yaml.Node)) {
	if n = nonNull(n); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.problem(n.Line, path, shown(n), "give a mapping with one key and value per line")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content) && len(p.problems) <= maxProblems; i += 2 {
		key := resolved(n.Content[i])
		switch {
		case key.Kind != yaml.ScalarNode:
			p.problem(key.Line, path, shown(key), "give a name as a key")
		case seen[key.Value]:
			p.problem(key.Line, join(path, key.Value), "", "duplicate key; remove one of them")
		default:
			seen[key.Value] = true
			yield(key.Value, key, resolved(n.Content[i+1]))
		}
	}
}

// mapping reads a mapping with the given keys only.
func (p *parser) mapping(path string, n *yaml.Node, known fields) {
	p.entries(path, n, func(key string, at, value *yaml.Node) {
		if read, ok := known[key]; ok {
			read(join(path, key), value)
			return
		}
		p.problem(at.Line, join(path, key), "", "unknown key; known keys are "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	})
}
