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

// checkZero refuses a zero that was written where zero stands for the default: who writes it means none, or at once. The tag
// zero:"allowed" is for keys where it is what it says.
func checkZero(tag reflect.StructTag, field reflect.Value) *configError {
	optional := strings.HasSuffix(tag.Get("yaml"), ",omitempty")
	if !optional || tag.Get("zero") == "allowed" || !field.CanInt() || !field.IsZero() {
		return nil
	}
	return &configError{Problem: "0 cannot be had here", Next: "write more, or leave the key out for the default"}
}

// didYouMean is the next step for a key that does not exist.
func didYouMean(t reflect.Type, name string) string {
	var keys []string
	best, bestDistance := "", 3
	for f := range t.Fields() {
		key := keyName(f)
		keys = append(keys, key)
		if distance := editDistance(name, key); distance < bestDistance {
			best, bestDistance = key, distance
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "the keys here are " + strings.Join(keys, ", ")
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
func scalars(v reflect.Value, key string, f func(key string, tag reflect.StructTag, field reflect.Value) error) error {
	for field, value := range v.Fields() {
		name := join(key, keyName(field))
		var err error
		switch value.Kind() {
		case reflect.Map, reflect.Slice:
		case reflect.Struct:
			err = scalars(value, name, f)
		default:
			err = f(name, field.Tag, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// variable is the environment variable of a key: WEIR_ and the key in capitals.
func variable(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// setFromEnvironment reads WEIR_*. An empty variable counts as not set, and one that is no key is left alone:
// orchestrators add variables that begin with the name of a service.
func setFromEnvironment(cfg *Config, env map[string]string, from origins) error {
	return scalars(reflect.ValueOf(cfg).Elem(), "", func(key string, tag reflect.StructTag, field reflect.Value) error {
		name := variable(key)
		if env[name] == "" {
			return nil
		}
		if err := setScalar(field, env[name]); err != nil {
			return &configError{At: name, Problem: err.Error()}
		}
		if zero := checkZero(tag, field); zero != nil {
			zero.At = name
			return zero
		}
		from[key] = name
		return nil
	})
}

// setFromFlags sets the keys that flags were given for.
func setFromFlags(cfg *Config, flags map[string]string, from origins) error {
	return scalars(reflect.ValueOf(cfg).Elem(), "", func(key string, _ reflect.StructTag, field reflect.Value) error {
		flag := strings.ReplaceAll(key, "_", "-")
		value, given := flags[flag]
		if !given {
			return nil
		}
		if err := setScalar(field, value); err != nil {
			return &configError{At: "--" + flag, Problem: err.Error()}
		}
		from[key] = "--" + flag
		return nil
	})
}
