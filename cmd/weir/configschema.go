package main

import (
	"reflect"
	"strings"
)

// configSchema is the JSON Schema of the configuration file, made from the types so that it cannot lag behind them.
func configSchema() map[string]any {
	schema := schemaOf(reflect.TypeFor[Config]())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = "urn:weir:config"
	schema["title"] = "Configuration of Weir"
	return schema
}

// variablePattern is the form of a value that is taken from the environment, which any value may be.
const variablePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`

func schemaOf(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[Duration]():
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|` + variablePattern, "examples": []string{"200ms", "30s", "5m"}}
	case t == reflect.TypeFor[Percent]():
		return map[string]any{"type": "string", "pattern": `^([1-9][0-9]?|100)%$|` + variablePattern, "examples": []string{"10%"}}
	case t == reflect.TypeFor[Amount]():
		return orVariable(map[string]any{"type": "number", "minimum": 0})
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem())
	case t.Kind() == reflect.Struct:
		return objectSchema(t)
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case t.Kind() == reflect.Bool:
		return orVariable(map[string]any{"type": "boolean"})
	case t.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	}
	return orVariable(map[string]any{"type": "integer", "minimum": 0})
}

func orVariable(schema map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{schema, map[string]any{"type": "string", "pattern": variablePattern}}}
}

func objectSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	for field := range t.Fields() {
		property := schemaOf(field.Type)
		property["description"] = field.Tag.Get("doc")
		if enum, ok := field.Tag.Lookup("enum"); ok {
			property["enum"] = strings.Split(enum, ",")
		}
		properties[keyName(field)] = property
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}
