package main

import (
	"reflect"
	"strings"
)

// keyName is the YAML key of a field.
func keyName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

func fieldNamed(v reflect.Value, name string) (field reflect.Value, tag reflect.StructTag, ok bool) {
	for f, value := range v.Fields() {
		if keyName(f) == name {
			return value, f.Tag, true
		}
	}
	return reflect.Value{}, "", false
}

// keysLike are the keys of a struct, and the one that was probably meant by a name that is none of them.
func keysLike(t reflect.Type, name string) (keys []string, meant string) {
	nearest := 3
	for f := range t.Fields() {
		key := keyName(f)
		keys = append(keys, key)
		if distance := editDistance(name, key); distance < nearest {
			meant, nearest = key, distance
		}
	}
	return keys, meant
}

// editDistance is the number of characters to insert, remove or replace to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

const envPrefix = "WEIR_"

// scalars calls f for each key that holds a single value and is not below a list or a map of names.
func scalars(v reflect.Value, key string, f func(key string, tag reflect.StructTag, field reflect.Value)) {
	for field, value := range v.Fields() {
		name := join(key, keyName(field))
		switch value.Kind() {
		case reflect.Map, reflect.Slice:
		case reflect.Struct:
			scalars(value, name, f)
		default:
			f(name, field.Tag, value)
		}
	}
}

// variable is the environment variable of a key: WEIR_ and the key in capitals.
func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// setFromEnvironment reads WEIR_*. An empty variable counts as not set, and one that is no key is left alone:
// orchestrators add variables that begin with the name of a service.
func setFromEnvironment(cfg *Config, env map[string]string, found *findings) {
	scalars(reflect.ValueOf(cfg).Elem(), "", func(key string, tag reflect.StructTag, field reflect.Value) {
		if name := variable(key); env[name] != "" {
			found.set(name, key, tag, field, env[name])
		}
	})
}

// setFromFlags sets the keys that flags were given for.
func setFromFlags(cfg *Config, flags map[string]string, found *findings) {
	scalars(reflect.ValueOf(cfg).Elem(), "", func(key string, tag reflect.StructTag, field reflect.Value) {
		flag := strings.ReplaceAll(key, "_", "-")
		if value, given := flags[flag]; given {
			found.set("--"+flag, key, tag, field, value)
		}
	})
}

// set reads the text of a variable or a flag into a key.
func (f *findings) set(at, key string, tag reflect.StructTag, field reflect.Value, text string) {
	f.from[key] = origin{text: at}
	if field.Kind() == reflect.Pointer {
		field.Set(reflect.New(field.Type().Elem()))
		field = field.Elem()
	}
	if err := setScalar(field, text); err != nil {
		f.unreadable(f.from[key], key, "", "%s", err)
		return
	}
	f.checkValue(key, tag, field)
}
