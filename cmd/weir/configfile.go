package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decodeFile reads YAML over what cfg holds. It walks the document beside the type, instead of leaving both to the yaml
// package, so that variables are expanded after parsing (a value can never add a key) and so that every error names
// its key.
func decodeFile(path string, data []byte, env map[string]string, cfg *Config, from origins) error {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return syntaxError(path, err)
	}
	if document.Kind == 0 {
		return nil // an empty file
	}
	d := &fileDecoder{path: path, env: env, from: from}
	return d.decode(document.Content[0], reflect.ValueOf(cfg).Elem(), "")
}

type fileDecoder struct {
	path string
	env  map[string]string
	from origins
}

func (d *fileDecoder) at(node *yaml.Node) string { return fmt.Sprintf("%s:%d", d.path, node.Line) }

func (d *fileDecoder) errorf(node *yaml.Node, key, next, format string, args ...any) error {
	return &configError{At: d.at(node), Key: key, Problem: fmt.Sprintf(format, args...), Next: next}
}

var unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()

func (d *fileDecoder) decode(node *yaml.Node, v reflect.Value, key string) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if key != "" {
		d.from[key] = d.at(node)
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		return d.decode(node, v.Elem(), key)
	}
	if !v.Addr().Type().Implements(unmarshaler) {
		switch v.Kind() {
		case reflect.Struct:
			return d.decodeStruct(node, v, key)
		case reflect.Map:
			return d.decodeMap(node, v, key)
		case reflect.Slice:
			return d.decodeList(node, v, key)
		}
	}
	return d.decodeScalar(node, v, key)
}

func (d *fileDecoder) decodeStruct(node *yaml.Node, v reflect.Value, key string) error {
	return d.entries(node, key, func(name, value *yaml.Node) error {
		field, tag, known := fieldNamed(v, name.Value)
		if !known {
			return d.errorf(name, join(key, name.Value), didYouMean(v.Type(), name.Value), "this key does not exist")
		}
		if err := d.decode(value, field, join(key, name.Value)); err != nil {
			return err
		}
		if zero := checkZero(tag, field); zero != nil {
			zero.At, zero.Key = d.at(value), join(key, name.Value)
			return zero
		}
		return nil
	})
}

func (d *fileDecoder) decodeMap(node *yaml.Node, v reflect.Value, key string) error {
	v.Set(reflect.MakeMap(v.Type()))
	return d.entries(node, key, func(name, value *yaml.Node) error {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := d.decode(value, item, join(key, name.Value)); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(name.Value), item)
		return nil
	})
}

func (d *fileDecoder) decodeList(node *yaml.Node, v reflect.Value, key string) error {
	if node.Kind != yaml.SequenceNode {
		return d.errorf(node, key, "write a list: each item on its own line after a dash", "it is %s", kindName(node))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
	for i, item := range node.Content {
		if err := d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", key, i)); err != nil {
			return err
		}
	}
	return nil
}

func (d *fileDecoder) decodeScalar(node *yaml.Node, v reflect.Value, key string) error {
	if node.Kind != yaml.ScalarNode || node.ShortTag() == "!!null" {
		return d.errorf(node, key, "write one value", "it is %s", kindName(node))
	}
	text, missing := expand(node.Value, d.env)
	if missing != "" {
		return d.errorf(node, key, "set it, or write $${"+missing+"} for these very characters", "the environment variable %s is not set", missing)
	}
	if err := setScalar(v, text); err != nil {
		return &configError{At: d.at(node), Key: key, Problem: err.Error()}
	}
	return nil
}

// entries calls f for each key and value of a mapping.
func (d *fileDecoder) entries(node *yaml.Node, key string, f func(name, value *yaml.Node) error) error {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		return nil // a key with everything below it commented out
	}
	if node.Kind != yaml.MappingNode {
		return d.errorf(node, key, "write keys and values below it", "it is %s", kindName(node))
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if line, twice := seen[name.Value]; twice {
			return d.errorf(name, join(key, name.Value), "remove one of the two", "this key is already on line %d", line)
		}
		seen[name.Value] = name.Line
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
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

func syntaxError(path string, err error) error {
	e := &configError{At: path, Problem: strings.TrimPrefix(err.Error(), "yaml: "), Next: "this is not YAML: look at the indentation and the quotes there"}
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		e.At, e.Problem = path+":"+found[1], found[2]
	}
	return e
}

func kindName(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.ShortTag() == "!!null":
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
