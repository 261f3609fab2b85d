package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is one value of the file: a scalar (text), a list, or a mapping. It is the plain part of YAML that a configuration
// needs; anchors, aliases, tags and merge keys are refused.
type node struct {
	kind    kind
	line    int
	text    string  // of a scalar
	entries []entry // of a mapping, in the order of the file
	list    []*node
}

type entry struct {
	key   string
	line  int
	value *node
}

type kind int

const (
	kindNull kind = iota
	kindScalar
	kindMapping
	kindList
)

func (k kind) String() string {
	return [...]string{"nothing", "a plain value", "a mapping", "a list"}[k]
}

// get returns the value of a mapping's key, nil if it is not there or n is no mapping.
func (n *node) get(key string) *node {
	if n == nil {
		return nil
	}
	for _, e := range n.entries {
		if e.key == key {
			return e.value
		}
	}
	return nil
}

// parseTree parses one YAML document.
func parseTree(text []byte) (*node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case err == io.EOF:
		return &node{line: 1}, nil
	case err != nil:
		return nil, syntaxError(err)
	}
	if err := d.Decode(&more); err == nil {
		return nil, &lineError{more.Line, "the file holds more than one YAML document"}
	} else if err != io.EOF {
		return nil, syntaxError(err)
	}
	return convert(doc.Content[0], 0)
}

// syntaxError takes the line out of an error of the YAML parser, which says it in words.
func syntaxError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if _, e := fmt.Sscanf(msg, "line %d:", &line); e == nil {
		_, msg, _ = strings.Cut(msg, ": ")
		return &lineError{line, msg}
	}
	return errors.New(msg)
}

// lineError is an error at a line of the file.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return e.msg }

const maxDepth = 16

func convert(n *yaml.Node, depth int) (*node, error) {
	out := &node{line: n.Line}
	if depth > maxDepth {
		return nil, &lineError{n.Line, "the file is nested too deep"}
	}
	if n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return nil, &lineError{n.Line, "anchors and tags are not supported here"}
	}
	switch n.Kind {
	case yaml.MappingNode:
		return out, out.addEntries(n.Content, depth)
	case yaml.SequenceNode:
		out.kind = kindList
		for _, e := range n.Content {
			c, err := convert(e, depth+1)
			if err != nil {
				return nil, err
			}
			out.list = append(out.list, c)
		}
		return out, nil
	case yaml.ScalarNode:
		if n.Tag != "!!null" {
			out.kind, out.text = kindScalar, n.Value
		}
		return out, nil
	}
	return nil, &lineError{n.Line, "aliases are not supported here"}
}

// addEntries makes n a mapping of the keys and values that take turns in content.
func (n *node) addEntries(content []*yaml.Node, depth int) error {
	n.kind = kindMapping
	for i := 0; i+1 < len(content); i += 2 {
		key := content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			return &lineError{key.Line, "a key must be a plain word"}
		}
		if n.get(key.Value) != nil {
			return &lineError{key.Line, "the key " + key.Value + " is there twice"}
		}
		c, err := convert(content[i+1], depth+1)
		if err != nil {
			return err
		}
		n.entries = append(n.entries, entry{key: key.Value, line: key.Line, value: c})
	}
	return nil
}
