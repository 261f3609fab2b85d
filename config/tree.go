package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
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
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
			return nil, &lineError{ye.GetToken().Position.Line, ye.GetMessage()}
		}
		return nil, err
	}
	var bodies []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return &node{line: 1}, nil
	case 1:
		return convert(bodies[0], 0)
	}
	return nil, &lineError{lineOf(bodies[1]), "the file holds more than one YAML document"}
}

// lineError is an error at a line of the file.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return e.msg }

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

const maxDepth = 16

func convert(n ast.Node, depth int) (*node, error) {
	out := &node{line: lineOf(n)}
	if depth > maxDepth {
		return nil, &lineError{out.line, "the file is nested too deep"}
	}
	switch v := n.(type) {
	case *ast.NullNode:
		return out, nil
	case *ast.MappingNode:
		return out, out.addEntries(v.Values, depth)
	case *ast.MappingValueNode:
		return out, out.addEntries([]*ast.MappingValueNode{v}, depth)
	case *ast.SequenceNode:
		out.kind = kindList
		for _, e := range v.Values {
			c, err := convert(e, depth+1)
			if err != nil {
				return nil, err
			}
			out.list = append(out.list, c)
		}
		return out, nil
	case *ast.LiteralNode:
		out.kind, out.text = kindScalar, v.Value.Value
		return out, nil
	case *ast.StringNode:
		out.kind, out.text = kindScalar, v.Value
		return out, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = kindScalar, n.GetToken().Value
		return out, nil
	}
	return nil, &lineError{out.line, fmt.Sprintf("%s is not supported here", strings.ToLower(n.Type().String()))}
}

func (n *node) addEntries(values []*ast.MappingValueNode, depth int) error {
	n.kind = kindMapping
	for _, v := range values {
		if v.Key.IsMergeKey() {
			return &lineError{lineOf(v.Key), "merge keys are not supported here"}
		}
		c, err := convert(v.Value, depth+1)
		if err != nil {
			return err
		}
		n.entries = append(n.entries, entry{key: v.Key.GetToken().Value, line: lineOf(v.Key), value: c})
	}
	return nil
}
