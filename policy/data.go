package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v3"
)

// Limits on one data file.
const (
	maxDataNodes = 2_000_000
	maxDataDepth = 64
)

// parseData parses a YAML or JSON file into maps, lists, strings, json.Numbers, bools and nil. Duplicate keys, keys that
// are not strings and values that no JSON has are errors with their line.
func parseData(f sourceFile) (any, error) {
	if path.Ext(f.path) == ".json" {
		return parseJSON(f.name, f.data)
	}
	return parseYAML(f.name, f.data)
}

func parseYAML(name string, data []byte) (any, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, yamlProblem(name, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		return nil, problem(name, more.Line, "holds more than one YAML document")
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlProblem(name, err)
	}
	c := &yamlReader{name: name}
	return c.value(&doc, 0)
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

func yamlProblem(name string, err error) Problem {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ := strconv.Atoi(m[1]) // digits by the pattern; 0 on overflow means the whole file
		return problem(name, line, "%s", m[2])
	}
	return problem(name, 0, "%s", strings.TrimPrefix(err.Error(), "yaml: "))
}

type yamlReader struct {
	name  string
	nodes int
}

func (c *yamlReader) value(n *yaml.Node, depth int) (any, error) {
	c.nodes++
	if depth > maxDataDepth || c.nodes > maxDataNodes {
		return nil, problem(c.name, n.Line, "is nested too deep or too large")
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 0 {
			return nil, nil
		}
		return c.value(n.Content[0], depth)
	case yaml.AliasNode:
		return c.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for _, e := range n.Content {
			v, err := c.value(e, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case yaml.MappingNode:
		return c.mapping(n, depth)
	case yaml.ScalarNode:
		return c.scalar(n)
	}
	return nil, nil
}

func (c *yamlReader) mapping(n *yaml.Node, depth int) (any, error) {
	out := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.ShortTag() == "!!merge" {
			return nil, problem(c.name, k.Line, "merge keys (<<) are not allowed")
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			return nil, problem(c.name, k.Line, "the key %q must be a string; put it in quotes", k.Value)
		}
		if _, dup := out[k.Value]; dup {
			return nil, problem(c.name, k.Line, "the key %q occurs twice", k.Value)
		}
		v, err := c.value(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		out[k.Value] = v
	}
	return out, nil
}

func (c *yamlReader) scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, yamlProblem(c.name, err)
		}
		return b, nil
	case "!!int", "!!float":
		var f float64
		if err := n.Decode(&f); err != nil {
			return nil, yamlProblem(c.name, err)
		}
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, problem(c.name, n.Line, "%s is no JSON number", n.Value)
		}
		var i int64
		if n.Decode(&i) == nil {
			return json.Number(strconv.FormatInt(i, 10)), nil
		}
		return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
	case "!!str", "!!timestamp":
		return n.Value, nil
	}
	return nil, problem(c.name, n.Line, "values with the tag %s are not allowed", n.ShortTag())
}

func parseJSON(name string, data []byte) (any, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(data))
	v, err := jsonValue(dec, 0)
	if err == nil {
		if _, err = dec.ReadToken(); errors.Is(err, io.EOF) {
			return v, nil
		} else if err == nil {
			err = errors.New("holds more than one JSON value")
		}
	}
	at := min(int(dec.InputOffset()), len(data))
	return nil, problem(name, 1+bytes.Count(data[:at], []byte("\n")), "%s", strings.TrimPrefix(err.Error(), "jsontext: "))
}

func jsonValue(dec *jsontext.Decoder, depth int) (any, error) {
	if depth > maxDataDepth {
		return nil, errors.New("is nested too deep")
	}
	tok, err := dec.ReadToken()
	if err != nil {
		return nil, err
	}
	switch tok.Kind() {
	case '{':
		out := map[string]any{}
		for dec.PeekKind() != '}' {
			k, err := dec.ReadToken()
			if err != nil {
				return nil, err
			}
			key := k.String()
			if out[key], err = jsonValue(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.ReadToken()
		return out, err
	case '[':
		out := []any{}
		for dec.PeekKind() != ']' {
			v, err := jsonValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		_, err = dec.ReadToken()
		return out, err
	case '"':
		return tok.String(), nil
	case '0':
		return json.Number(tok.String()), nil
	case 't', 'f':
		return tok.Bool(), nil
	}
	return nil, nil
}

// mergeData puts the document of a file at its place: below the names of its folders, its own name left out, as plain OPA
// does with `-d config:<directory>`. Two files may add to one object, not give one key twice.
func mergeData(into map[string]any, f sourceFile, doc any) error {
	if doc == nil {
		return nil
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return problem(f.name, 1, "the top level must be a mapping")
	}
	at := into
	if dir := path.Dir(f.path); dir != "." {
		for _, part := range strings.Split(dir, "/") {
			next, ok := at[part].(map[string]any)
			if !ok {
				if at[part] != nil {
					return problem(f.name, 0, "the folder %q stands where another file has a value", part)
				}
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
	}
	return mergeMaps(f.name, at, m, "")
}

func mergeMaps(name string, into, from map[string]any, where string) error {
	for k, v := range from {
		old, ok := into[k]
		if !ok {
			into[k] = v
			continue
		}
		a, isA := old.(map[string]any)
		b, isB := v.(map[string]any)
		if !isA || !isB {
			return problem(name, 0, "the key %q is given by another file as well", where+k)
		}
		if err := mergeMaps(name, a, b, fmt.Sprintf("%s%s.", where, k)); err != nil {
			return err
		}
	}
	return nil
}
