package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

// varied is a model that gives another answer each time, so that an answer that was kept is known by its text, and a tenant
// whose answers are kept.
const varied = `
models:
  m:
    backends: [{name: echo, protocol: echo, echo: {vary: true}}]
tenants:
  default: {cache: {mode: on, ttl: 10m}}
`

// cachedOps is a request of each op that may be kept, without its text, and where the text of the answer is.
var cachedOps = map[string]struct{ path, body, unary, stream string }{
	"chat":       {"/v1/chat/completions", `{"model":"m","temperature":0,"messages":[{"role":"user","content":"TEXT"}]STREAM}`, "choices.0.message.content", "choices.0.delta.content"},
	"completion": {"/v1/completions", `{"model":"m","temperature":0,"prompt":"TEXT"STREAM}`, "choices.0.text", "choices.0.text"},
	"messages":   {"/v1/messages", `{"model":"m","temperature":0,"max_tokens":99,"messages":[{"role":"user","content":"TEXT"}]STREAM}`, "content.0.text", "delta.text"},
	"responses":  {"/v1/responses", `{"model":"m","temperature":0,"input":"TEXT"STREAM}`, "output.0.content.0.text", "delta"},
	"embedding":  {"/v1/embeddings", `{"model":"m","input":"TEXT"}`, "data.0.embedding", ""},
}

// cached is an answer with what the cache did for it.
type cached struct{ text, did, id string }

func (p *process) cached(t *testing.T, op, text string, stream bool, header ...string) cached {
	t.Helper()
	o := cachedOps[op]
	add := ""
	if stream {
		add = `,"stream":true`
	}
	r := p.messages(t.Context(), t, o.path, strings.NewReplacer("TEXT", text, "STREAM", add).Replace(o.body), header...)
	if r.status != http.StatusOK {
		t.Fatalf("%s %s: status %d: %s", op, text, r.status, r.body)
	}
	c := cached{did: r.header.Get(schemas.HeaderCache)}
	if c.did == "MISS" || c.did == "REFRESH" { // the result comes after the entry
		becomes(t, "the result of "+r.header.Get("X-Request-Id"), func() bool {
			status, _ := get(t, "http://"+p.HTTP+"/v1/streams/"+r.header.Get("X-Request-Id")+"/result")
			return status == http.StatusOK
		})
	}
	if age := r.header.Get(schemas.HeaderAge); (age != "") != (c.did == "HIT") {
		t.Errorf("%s: Llm-Cache is %q and Age %q", op, c.did, age)
	}
	if !stream {
		c.text, c.id = gjson.Get(r.body, o.unary).String(), gjson.Get(r.body, "id").Str
		return c
	}
	ended := false
	for line := range strings.SplitSeq(r.body, "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		if id := gjson.Get(data, "message.id").Str + gjson.Get(data, "response.id").Str; id != "" {
			c.id = id
		}
		if id := gjson.Get(data, "id").Str; id != "" {
			c.id = id
		}
		ended = ended || gjson.Get(data, "choices.0.finish_reason").Str == "stop" || gjson.Get(data, "type").Str == "message_stop" || gjson.Get(data, "type").Str == "response.completed"
		if kind := gjson.Get(data, "type").Str; kind == "" || kind == "content_block_delta" || kind == "response.output_text.delta" {
			c.text += gjson.Get(data, o.stream).Str
		}
	}
	if !ended {
		t.Errorf("%s: the stream has no end: %s", op, r.body)
	}
	return c
}

func TestCacheOverHTTP(t *testing.T) {
	t.Parallel()
	serve := serveModel(t, varied)
	for op := range cachedOps {
		t.Run(op, func(t *testing.T) {
			streams := []bool{false, true}
			if op == "embedding" {
				streams = streams[:1]
			}
			for _, first := range streams { // what the entry is made from
				text := "one two three four five six seven eight nine ten äöü " + map[bool]string{true: "streamed", false: "whole"}[first]
				made := serve.cached(t, op, text, first)
				if made.did != "MISS" || made.text == "" {
					t.Fatalf("the first: %+v", made)
				}
				for _, second := range streams { // how it is said again
					again := serve.cached(t, op, text, second)
					if again.did != "HIT" || again.text != made.text || again.id == made.id && op != "embedding" {
						t.Errorf("made by a stream: %t, said as one: %t: got %+v, want the text of %+v", first, second, again, made)
					}
				}
				renewed := serve.cached(t, op, text, first, "Cache-Control", "no-cache")
				if renewed.did != "REFRESH" || renewed.text == made.text && op != "embedding" {
					t.Errorf("renewed: %+v, as before: %+v", renewed, made)
				}
				becomes(t, "the renewed answer", func() bool {
					again := serve.cached(t, op, text, first)
					return again.did == "HIT" && again.text == renewed.text
				})
				if off := serve.cached(t, op, text, first, "Cache-Control", "no-store"); off.did != "BYPASS" {
					t.Errorf("no-store: %+v", off)
				}
				if other := serve.cached(t, op, text, first, "Llm-Cache-Namespace", "u1"); other.did != "MISS" {
					t.Errorf("in another namespace: %+v", other)
				}
			}
		})
	}
}

func TestCacheDirectivesThatAreWrong(t *testing.T) {
	t.Parallel()
	serve := serveModel(t, varied)
	for _, header := range [][]string{
		{"Llm-Cache", "yes"}, {"Llm-Cache", "on, off"}, {"Llm-Cache-TTL", "0"}, {"Llm-Cache-TTL", "86401"}, {"Llm-Cache-TTL", "1h"},
		{"Llm-Cache-Namespace", strings.Repeat("x", 129)}, {"Llm-Cache-Namespace", "ü"}, {"Cache-Control", "max-age=x"},
		{"Cache-Control", "only-if-cached, no-cache"}, {"Llm-Cache", "refresh", "Cache-Control", "only-if-cached"},
	} {
		for op, kind := range map[string]string{"chat": "invalid_request_error", "messages": "invalid_request_error", "responses": "invalid_request_error"} {
			o := cachedOps[op]
			r := serve.messages(t.Context(), t, o.path, strings.NewReplacer("TEXT", "x", "STREAM", "").Replace(o.body), header...)
			if r.status != http.StatusBadRequest || gjson.Get(r.body, "error.type").Str != kind {
				t.Errorf("%s with %q: status %d: %s", op, header, r.status, r.body)
			}
		}
	}
	for _, op := range []string{"chat", "messages"} {
		o := cachedOps[op]
		r := serve.messages(t.Context(), t, o.path, strings.NewReplacer("TEXT", "never asked", "STREAM", "").Replace(o.body), "Cache-Control", "only-if-cached")
		if r.status != http.StatusGatewayTimeout || !strings.Contains(r.body, "not_cached") || r.header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s only if cached: status %d: %s", op, r.status, r.body)
		}
	}
}

// TestCacheForgets looks at everything that ends an entry but time, and at what outlives the memory of a router.
func TestCacheForgets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := writeConfig(t, varied)
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0", "--config", config)
	kept := serve.cached(t, "chat", "kept", false)
	named := serve.cached(t, "chat", "named", false, "Llm-Cache-Namespace", "u1")
	if err := serve.end(t); err != nil {
		t.Fatal(err)
	}

	serve = start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0", "--config", config)
	if again := serve.cached(t, "chat", "kept", true); again.did != "HIT" || again.text != kept.text {
		t.Fatalf("after a restart: %+v, want %+v", again, kept)
	}
	if again := serve.cached(t, "chat", "named", true, "Llm-Cache-Namespace", "u1"); again.did != "HIT" || again.text != named.text {
		t.Fatalf("after a restart: %+v, want %+v", again, named)
	}
	purge := func(want, tenant string, args ...string) {
		t.Helper()
		stdout, stderr, err := call(t, append([]string{"cache", "purge", "--tenant", tenant, "--data-dir", dir}, args...)...)
		if err != nil || stdout != want+"\n" {
			t.Fatalf("it said %q, want %q; %v: %s", stdout, want, err, stderr)
		}
	}
	purge("there was no cached answer of tenant nosuch to remove; what is being answered now is not kept", "nosuch")
	purge(`removed 1 cached answer of namespace "u1" of tenant default`, "default", "--namespace", "u1")
	purge(`{"purged":true,"tenant":"default","namespace":"u1","removed":0}`, "default", "--namespace", "u1", "--json")
	becomes(t, "a purged namespace", func() bool { return serve.cached(t, "chat", "named", false, "Llm-Cache-Namespace", "u1").did == "MISS" })
	if again := serve.cached(t, "chat", "kept", false); again.did != "HIT" {
		t.Errorf("of no namespace, after a purge of one: %+v", again)
	}
	purge("removed 2 cached answers of tenant default", "default")
	becomes(t, "a purged tenant", func() bool { return serve.cached(t, "chat", "kept", false).did == "MISS" })

	response := serve.respond(t, `{"model":"m","temperature":0,"input":"a secret"}`)
	becomes(t, "a result", func() bool { return serve.retrieve(t, response.ID).Status == "completed" })
	if again := serve.cached(t, "responses", "a secret", false); again.did != "HIT" {
		t.Errorf("a response again: %+v", again)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+serve.HTTP+"/v1/responses/"+response.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := caller().Do(r)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("delete: %v, %v", answer, err)
	}
	_ = answer.Body.Close()
	becomes(t, "an erased answer", func() bool { return serve.cached(t, "responses", "a secret", false).did == "MISS" })
}

func TestCacheOverNATS(t *testing.T) {
	t.Parallel()
	serve := serveModel(t, varied)
	c, err := client.Connect(t.Context(), client.Config{URL: serve.NATS})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for name, body := range map[string]string{
		"unary":  `{"model":"m","temperature":0,"messages":[{"role":"user","content":"unary"}]}`,
		"stream": `{"model":"m","temperature":0,"messages":[{"role":"user","content":"stream"}],"stream":true,"stream_options":{"include_usage":true}}`,
	} {
		first, _ := natsAnswer(t, c, "first-"+name, body)
		again, result := natsAnswer(t, c, "again-"+name, body)
		if first.text == "" || again.text != first.text {
			t.Errorf("%s: %q again is %q", name, first.text, again.text)
		}
		if result.Cache != schemas.CacheHit || result.CacheKey == "" || result.Attempts != 0 || result.Usage == nil || result.Usage.TotalTokens == 0 || result.Status != schemas.StatusCompleted {
			t.Errorf("%s: the result of a hit: %+v", name, result)
		}
		if diff := cmp.Diff(first.usage, again.usage); diff != "" {
			t.Errorf("%s: usage (-first +again):\n%s", name, diff)
		}
		if work := result.Dispatch; work != 0 || result.Worker != "" {
			t.Errorf("%s: a hit was dispatched: %+v", name, result)
		}
	}
}

type natsText struct{ text, usage string }

func natsAnswer(t *testing.T, c *client.Client, id, body string) (a natsText, result *schemas.Result) {
	t.Helper()
	for event, err := range c.Stream(t.Context(), client.Request{ID: id, Body: json.RawMessage(body)}) {
		if err != nil {
			t.Fatal(err)
		}
		a.text += gjson.GetBytes(event.Data, "choices.0.delta.content").Str + gjson.GetBytes(event.Data, "choices.0.message.content").Str
		if usage := gjson.GetBytes(event.Data, "usage"); usage.IsObject() {
			a.usage = usage.Raw
		}
	}
	becomes(t, "a result", func() bool {
		var err error
		result, err = c.Result(t.Context(), "default", id)
		return err == nil
	})
	return a, result
}
