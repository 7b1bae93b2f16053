package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/inference/triton"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// leaf is a key that holds one value, or a list of them.
type leaf struct {
	key   string // such as models.x.backends[0].weight
	field reflect.StructField
	typ   reflect.Type           // of the value
	file  func(value any) []byte // a configuration with the value and nothing else
}

// leaves are all keys below a struct.
func leaves(t reflect.Type, key string, wrap func(any) any) (all []leaf) {
	for field := range t.Fields() {
		name, typ := join(key, keyName(field)), field.Type
		inner := func(v any) any { return wrap(map[string]any{keyName(field): v}) }
		for {
			outer := inner
			switch typ.Kind() {
			case reflect.Pointer:
				typ = typ.Elem()
				continue
			case reflect.Map:
				typ, name = typ.Elem(), name+".x"
				inner = func(v any) any { return outer(map[string]any{"x": v}) }
				continue
			case reflect.Slice:
				typ, name = typ.Elem(), name+"[0]"
				inner = func(v any) any { return outer([]any{v}) }
				continue
			}
			break
		}
		if typ.Kind() == reflect.Struct {
			all = append(all, leaves(typ, name, inner)...)
			continue
		}
		all = append(all, leaf{name, field, typ, func(v any) []byte {
			data, err := yaml.Marshal(inner(v))
			if err != nil {
				panic(err)
			}
			return data
		}})
	}
	return all
}

func configLeaves() []leaf {
	return leaves(reflect.TypeFor[Config](), "", func(v any) any { return v })
}

// check is what is wrong with the value of the key.
func (l leaf) check(value any) (problems []string) {
	var cfg Config
	found := newFindings()
	decodeFile("weir.yaml", l.file(value), nil, &cfg, found)
	for _, e := range found.mistakes {
		problems = append(problems, e.Key+": "+e.Problem)
	}
	return problems
}

func compileConfigSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := json.Marshal(configSchema())
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("urn:weir:config", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("urn:weir:config")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaAndCheckAgree tries each key at its bounds and beyond them, and with words that it does not know.
func TestSchemaAndCheckAgree(t *testing.T) {
	t.Parallel()
	schema := compileConfigSchema(t)
	tried := 0
	for _, l := range configLeaves() {
		try := func(value any, fits bool) {
			t.Helper()
			tried++
			problems := l.check(value)
			if (len(problems) == 0) != fits {
				t.Errorf("%s: %v: check says %q, want it to fit: %v", l.key, value, problems, fits)
			}
			var document any
			if err := yaml.Unmarshal(l.file(value), &document); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(document); (err == nil) != fits {
				t.Errorf("%s: %v: the schema says %v, want it to fit: %v", l.key, value, err, fits)
			}
		}
		for _, word := range wordsOf(l.field.Tag) {
			if n, err := strconv.Atoi(word); err == nil {
				try(n, true)
				try(n+1, slices.Contains(wordsOf(l.field.Tag), strconv.Itoa(n+1)))
				continue
			}
			try(word, true)
			try(word+"x", false)
		}
		b, ok := boundsOf(l.field.Type, l.field.Tag)
		if !ok {
			continue
		}
		switch l.typ {
		case reflect.TypeFor[Duration]():
			try(b.leastText, true)
			try(b.mostText, true)
			try("0s", b.least <= 0)
			for _, beyond := range []int64{b.least - 1, b.most + 1} { // which a schema cannot say
				if got := l.check(time.Duration(beyond).String()); len(got) != 1 || !strings.Contains(got[0], l.key+": ") {
					t.Errorf("%s: %s: check says %q", l.key, time.Duration(beyond), got)
				}
			}
		case reflect.TypeFor[Amount]():
			try(&yaml.Node{Kind: yaml.ScalarNode, Value: b.leastText}, true)
			try(b.most/int64(schemas.MoneyUnit), true)
			try(b.most/int64(schemas.MoneyUnit)+1, false)
			try(0, b.least <= 0)
			try(-1, false)
		default:
			try(b.least, true)
			try(b.least-1, false)
			try(b.most, true)
			try(b.most+1, false)
			try(math.MinInt32, false)
		}
	}
	if tried < 150 {
		t.Errorf("only %d values were tried", tried)
	}
}

// TestEveryNumberHasBounds, or is one of a few.
func TestEveryNumberHasBounds(t *testing.T) {
	for _, l := range configLeaves() {
		number := l.typ.Kind() >= reflect.Int && l.typ.Kind() <= reflect.Float64
		_, ok := boundsOf(l.field.Type, l.field.Tag)
		if number && !ok && wordsOf(l.field.Tag) == nil && l.typ != reflect.TypeFor[Percent]() {
			t.Errorf("%s has no bounds: give it the tags min and max", l.key)
		}
		if !number && ok {
			t.Errorf("%s has bounds and is no number", l.key)
		}
	}
}

// TestBoundsAreThoseOfTheStages: a tag cannot name a constant.
func TestBoundsAreThoseOfTheStages(t *testing.T) {
	got := map[string]string{}
	for _, l := range configLeaves() {
		if b, ok := boundsOf(l.field.Type, l.field.Tag); ok {
			got[l.key] = fmt.Sprint(b.least, " ", b.most)
		} else if words := wordsOf(l.field.Tag); words != nil {
			got[l.key] = strings.Join(words, " ")
		}
	}
	for key, want := range map[string]string{
		"tenants.x.weight":                  fmt.Sprint(1, " ", router.MaxWeight),
		"models.x.backends[0].weight":       fmt.Sprint(1, " ", balance.MaxWeight),
		"cache.memory_mb":                   fmt.Sprint(cache.MinMemoryMB, " ", cache.MaxMemoryMB),
		"cache.max_entry_bytes":             fmt.Sprint(1, " ", schemas.MaxCacheEntryBytes),
		"cache.ttl":                         fmt.Sprint(int64(time.Second), " ", int64(schemas.MaxCacheTTL*time.Second)),
		"tenants.x.cache.ttl":               fmt.Sprint(int64(time.Second), " ", int64(schemas.MaxCacheTTL*time.Second)),
		"ingest.max_body_bytes":             fmt.Sprint(1, " ", schemas.MaxBodyBytes),
		"router.active":                     fmt.Sprint(1, " ", schemas.Partitions),
		"router.partitions[0]":              fmt.Sprint(0, " ", schemas.Partitions-1),
		"models.x.timeouts.total":           fmt.Sprint(int64(time.Millisecond), " ", int64(schemas.MaxRunTime)),
		"models.x.backends[0].protocol":     strings.Join(protocols(), " "),
		"models.x.backends[0].template":     strings.Join(triton.Templates(), " "),
		"models.x.midstream.order[0]":       strings.Join([]string{string(schemas.ModeContinue), string(schemas.ModeSplice), midstreamError}, " "),
		"tenants.x.coalesce":                "cached on off",
		"models.x.count_tokens":             countEstimate + " " + countExact,
		"tenants.x.max_queue_wait":          fmt.Sprint(int64(100*time.Millisecond), " ", int64(schemas.MaxRunTime)),
		"ingest.detached_max":               fmt.Sprint(int64(time.Millisecond), " ", int64(schemas.MaxRunTime)),
		"models.x.backends[0].on_malformed": "fail skip",
	} {
		if diff := cmp.Diff(want, got[key]); diff != "" {
			t.Errorf("%s (-want +got)\n%s", key, diff)
		}
	}
}

// TestBoundsInHandWrittenForms are those of values that are a time or a word.
func TestBoundsInHandWrittenForms(t *testing.T) {
	for text, fits := range map[string]bool{
		"month": true, "1m": true, "59s": false, "8784h": true, "8784h1s": false, "90000h": false, "-1h": false, "": false,
	} {
		if _, err := parseWindow(text); (err == nil) != fits {
			t.Errorf("window %q: %v", text, err)
		}
	}
	for text, fits := range map[string]bool{"p95": true, "1ns": true, "0s": false, "1h": true, "1h1ns": false, "-1s": false} {
		if _, err := (Hedge{After: text}).config(); (err == nil) != fits {
			t.Errorf("hedge after %q: %v", text, err)
		}
	}
}
