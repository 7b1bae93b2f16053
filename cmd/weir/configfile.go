package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeFile reads YAML over what cfg holds. It walks the document beside the type, instead of leaving both to the yaml
// package, so that variables are expanded after parsing (a value can never add a key), so that every mistake names its
// key, and so that all mistakes are found.
func decodeFile(path string, data []byte, env map[string]string, cfg *Config, found *findings) {
	d := &fileDecoder{path: path, env: env, found: found}
	documents := yaml.NewDecoder(bytes.NewReader(data))
	for first := true; ; first = false {
		var document yaml.Node
		err := documents.Decode(&document)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			at, problem := syntaxError(path, err)
			found.unreadable(at, "", "this is not YAML: look at the indentation and the quotes there", "%s", problem)
			return
		}
		content := document.Content[0]
		if !first && !isNull(content) {
			found.wrongAt(d.at(&document), "", "remove the --- to make it part of the first, or take it out of the file",
				"another document begins here, and only the first would count")
		}
		// One that is refused is read all the same: it may have mistakes too, and what the first names may be in it.
		d.decode(content, reflect.ValueOf(cfg).Elem(), "", "")
	}
}

type fileDecoder struct {
	path  string
	env   map[string]string
	found *findings
}

func (d *fileDecoder) at(node *yaml.Node) origin {
	return origin{fmt.Sprintf("%s:%d", d.path, node.Line), node.Line}
}

func (d *fileDecoder) unreadable(node *yaml.Node, key, next, format string, args ...any) {
	d.found.unreadable(d.at(node), key, next, format, args...)
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

// decode reads a value. The tag is that of the key, which holds for each item of a list.
func (d *fileDecoder) decode(node *yaml.Node, v reflect.Value, key string, tag reflect.StructTag) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if key != "" {
		d.found.from[key] = d.at(node)
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if !v.Addr().Type().Implements(unmarshaler) {
		switch v.Kind() {
		case reflect.Struct:
			d.decodeStruct(node, v, key)
			return
		case reflect.Map:
			d.decodeMap(node, v, key)
			return
		case reflect.Slice:
			d.decodeList(node, v, key, tag)
			return
		}
	}
	if d.decodeScalar(node, v, key) {
		d.found.checkValue(key, tag, v)
	}
}

func (d *fileDecoder) decodeStruct(node *yaml.Node, v reflect.Value, key string) {
	d.entries(node, key, func(name, value *yaml.Node) {
		field, tag, known := fieldNamed(v, name.Value)
		if !known {
			d.unknown(name, v.Type(), key)
			return
		}
		d.decode(value, field, join(key, name.Value), tag)
	})
}

// unknown notes a key that does not exist, and that the key which was probably meant could not be read.
func (d *fileDecoder) unknown(name *yaml.Node, t reflect.Type, key string) {
	keys, meant := keysLike(t, name.Value)
	next := "the keys here are " + strings.Join(keys, ", ")
	if meant != "" {
		next = "did you mean " + meant + "?"
		d.found.unread = append(d.found.unread, join(key, meant))
	}
	d.unreadable(name, join(key, name.Value), next, "this key does not exist")
}

func (d *fileDecoder) decodeMap(node *yaml.Node, v reflect.Value, key string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(node, key, func(name, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, join(key, name.Value), "")
		v.SetMapIndex(reflect.ValueOf(name.Value), item)
	})
}

func (d *fileDecoder) decodeList(node *yaml.Node, v reflect.Value, key string, tag reflect.StructTag) {
	if node.Kind != yaml.SequenceNode {
		d.unreadable(node, key, "write a list: each item on its own line after a dash", "it is %s", kindName(node))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", key, i), tag)
	}
}

// decodeScalar reports whether the value could be read.
func (d *fileDecoder) decodeScalar(node *yaml.Node, v reflect.Value, key string) bool {
	if node.Kind != yaml.ScalarNode || isNull(node) {
		d.unreadable(node, key, "write one value", "it is %s", kindName(node))
		return false
	}
	text, missing := expand(node.Value, d.env)
	if missing != "" {
		d.unreadable(node, key, "set it, or write $${"+missing+"} for these very characters", "the environment variable %s is not set", missing)
		return false
	}
	if err := setScalar(v, text); err != nil {
		d.unreadable(node, key, "", "%s", err)
		return false
	}
	return true
}

// entries calls f for each key and value of a mapping.
func (d *fileDecoder) entries(node *yaml.Node, key string, f func(name, value *yaml.Node)) {
	if isNull(node) {
		return // a key with everything below it commented out
	}
	if node.Kind != yaml.MappingNode {
		d.unreadable(node, key, "write keys and values below it", "it is %s", kindName(node))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if line, twice := seen[name.Value]; twice {
			d.found.wrongAt(d.at(name), join(key, name.Value), "remove one of the two", "this key is already on line %d", line)
			continue
		}
		seen[name.Value] = name.Line
		f(name, value)
	}
}

// setScalar reads text into a field that holds one value.
func setScalar(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(yaml.Unmarshaler); ok {
		return u.UnmarshalYAML(&yaml.Node{Kind: yaml.ScalarNode, Value: text})
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is not a switch; write true or false", text)
		}
		v.SetBool(text == "true")
	default:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	}
	return nil
}

var reference = regexp.MustCompile(`\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// expand replaces ${VAR} and turns $$ into $. A $ on its own stands for itself. It returns the name of a variable that is not set.
func expand(text string, env map[string]string) (expanded, missing string) {
	expanded = reference.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		name := found[2 : len(found)-1]
		value, ok := env[name]
		if !ok && missing == "" {
			missing = name
		}
		return value
	})
	return expanded, missing
}

var yamlLine = regexp.MustCompile(`line (\d+): (.*)`)

func syntaxError(path string, err error) (at origin, problem string) {
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		line, _ := strconv.Atoi(found[1])
		return origin{path + ":" + found[1], line}, found[2]
	}
	return origin{text: path}, strings.TrimPrefix(err.Error(), "yaml: ")
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

func kindName(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(node):
		return "empty"
	}
	return "a single value"
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
