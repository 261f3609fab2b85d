// Package propertypath reads the dot-separated paths by which push rules and filters name a property of an event:
// `content.body`, or `content.m\.relates_to.rel_type` where a name itself has a dot.
//
// It only splits; looking the property up is left to the packages pushrule and filter.
//
// spec: appendices#dot-separated-property-paths
package propertypath

import "strings"

// Split returns the property names of a path. `\.` is a dot and `\\` a backslash within a name; any other backslash stands
// for itself. There is always at least one name, and names may be empty.
func Split(path string) []string {
	names := make([]string, 0, strings.Count(path, ".")+1)
	if strings.IndexByte(path, '\\') < 0 {
		return append(names, strings.Split(path, ".")...)
	}
	var name []byte
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\' && i+1 < len(path) && (path[i+1] == '.' || path[i+1] == '\\'):
			i++
			name = append(name, path[i])
		case c == '.':
			names = append(names, string(name))
			name = name[:0]
		default:
			name = append(name, c)
		}
	}
	return append(names, string(name))
}

// Join is the inverse of Split.
func Join(names ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `.`, `\.`)
	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = escape.Replace(name)
	}
	return strings.Join(escaped, ".")
}
