package main

import (
	"encoding/json"
	"reflect"
	"strings"
)

// configSchema is the JSON Schema of the configuration file, made from the types so that it cannot lag behind them.
func configSchema() map[string]any {
	schema := objectSchema(reflect.TypeFor[Config]())
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = "urn:weir:config"
	schema["title"] = "Configuration of Weir"
	return schema
}

// variablePattern is the form of a value that is taken from the environment, which any value may be.
const variablePattern = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`

// schemaOf describes a value of the type, within the bounds that the tag of its key says.
func schemaOf(t reflect.Type, tag reflect.StructTag) map[string]any {
	switch {
	case t == reflect.TypeFor[Duration]():
		return durationSchema(t, tag)
	case t == reflect.TypeFor[Percent]():
		return map[string]any{"type": "string", "pattern": `^([1-9][0-9]?|100)%$|` + variablePattern, "examples": []string{"10%"}}
	case t == reflect.TypeFor[Amount]():
		return orVariable(bounded(map[string]any{"type": "number"}, t, tag))
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), tag)
	case t.Kind() == reflect.Struct:
		return objectSchema(t)
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), "")}
	case t.Kind() == reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), tag)}
	case t.Kind() == reflect.Bool:
		return orVariable(map[string]any{"type": "boolean"})
	case t.Kind() == reflect.String:
		if words := wordsOf(tag); words != nil {
			return orVariable(map[string]any{"type": "string", "enum": words})
		}
		return map[string]any{"type": "string"}
	}
	return orVariable(bounded(map[string]any{"type": "integer"}, t, tag))
}

// bounded adds the bounds of a key, or the few numbers that it may hold.
func bounded(schema map[string]any, t reflect.Type, tag reflect.StructTag) map[string]any {
	if b, ok := boundsOf(t, tag); ok {
		schema["minimum"], schema["maximum"] = json.Number(b.leastText), json.Number(b.mostText)
	}
	if words := wordsOf(tag); words != nil {
		numbers := make([]json.Number, len(words))
		for i, word := range words {
			numbers[i] = json.Number(word)
		}
		schema["enum"] = numbers
	}
	return schema
}

// durationSchema cannot say the bounds of a duration, which has many forms, but that it is not none.
func durationSchema(t reflect.Type, tag reflect.StructTag) map[string]any {
	schema := map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|` + variablePattern, "examples": []string{"200ms", "30s", "5m"}}
	if b, ok := boundsOf(t, tag); ok && b.least > 0 {
		schema["not"] = map[string]any{"pattern": `^(0+(\.0+)?(ns|us|µs|ms|s|m|h))+$`}
	}
	return schema
}

func orVariable(schema map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{schema, map[string]any{"type": "string", "pattern": variablePattern}}}
}

func objectSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	for field := range t.Fields() {
		property := schemaOf(field.Type, field.Tag)
		property["description"] = description(field)
		properties[keyName(field)] = property
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

// description is what a key means, with its bounds.
func description(field reflect.StructField) string {
	doc := field.Tag.Get("doc")
	if b, ok := boundsOf(field.Type, field.Tag); ok {
		if span := b.leastText + " to " + b.mostText; !strings.Contains(doc, span) {
			doc += " From " + span + "."
		}
	}
	return doc
}
