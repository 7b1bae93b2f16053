package cache_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const greedy = `{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]}`

func request(t testing.TB, op schemas.Op, body string) *cache.Request {
	t.Helper()
	parsed, err := openai.ParseRequest(op, []byte(body), openai.Policy{})
	if err != nil {
		t.Fatalf("the body %s is not a request: %v", body, err)
	}
	return &cache.Request{Tenant: "acme", Op: op, Revision: "r1", Parsed: parsed}
}

func key(t testing.TB, op schemas.Op, body string) cache.Key {
	t.Helper()
	k, reason := cache.KeyOf(request(t, op, body))
	if reason != "" {
		t.Fatalf("%s has no key: %s", body, reason)
	}
	return k
}

// with adds members to the greedy request.
func with(members string) string { return greedy[:len(greedy)-1] + "," + members + "}" }

func TestOneKeyForEqualRequests(t *testing.T) {
	want := key(t, schemas.OpChat, greedy)
	for name, body := range map[string]string{
		"order of members":   `{"messages":[{"content":"hi","role":"user"}],"temperature":0,"model":"m"}`,
		"white space":        strings.ReplaceAll(greedy, ",", " ,\n "),
		"spelling of text":   strings.Replace(greedy, `"hi"`, `"\u0068i"`, 1),
		"spelling of number": strings.Replace(greedy, `0,`, `0.0e1,`, 1),
		"stream":             with(`"stream":true`),
		"stream options":     with(`"stream":true,"stream_options":{"include_usage":true}`),
		"user":               with(`"user":"u1"`),
		"metadata":           with(`"metadata":{"a":"b"}`),
		"safety":             with(`"safety_identifier":"x"`),
		"not stored":         with(`"store":false`),
		"prompt cache":       with(`"prompt_cache_key":"x","prompt_cache_retention":"24h"`),
		"service tier":       with(`"service_tier":"flex"`),
		"operator's members": with(`"priority":1,"cache_salt":"x","session_id":"y"`),
	} {
		if got := key(t, schemas.OpChat, body); got.String() != want.String() {
			t.Errorf("%s: another key for %s", name, body)
		}
	}
}

func TestAnotherKey(t *testing.T) {
	seen := map[string]string{}
	add := func(name string, r *cache.Request) {
		t.Helper()
		k, reason := cache.KeyOf(r)
		if reason != "" {
			t.Fatalf("%s: no key: %s", name, reason)
		}
		if other, there := seen[k.String()]; there {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[k.String()] = name
	}
	add("the request", request(t, schemas.OpChat, greedy))
	for name, change := range map[string]func(*cache.Request){
		"another tenant":          func(r *cache.Request) { r.Tenant = "umbrella" },
		"a namespace":             func(r *cache.Request) { r.Namespace = "u1" },
		"tenant and namespace":    func(r *cache.Request) { r.Tenant, r.Namespace = "acm", "e" },
		"another revision":        func(r *cache.Request) { r.Revision = "r2" },
		"a version of a protocol": func(r *cache.Request) { r.Header = schemas.Header{schemas.HeaderAnthropicVersion: {"2023-06-01"}} },
		"a beta of a protocol":    func(r *cache.Request) { r.Header = schemas.Header{schemas.HeaderAnthropicBeta: {"2023-06-01"}} },
	} {
		r := request(t, schemas.OpChat, greedy)
		change(r)
		add(name, r)
	}
	for name, body := range map[string]string{
		"another text":      strings.Replace(greedy, "hi", "ho", 1),
		"a space more":      strings.Replace(greedy, "hi", "hi ", 1),
		"another model":     strings.Replace(greedy, `"m"`, `"M"`, 1),
		"a limit":           with(`"max_tokens":5`),
		"another limit":     with(`"max_completion_tokens":5`),
		"a seed":            with(`"seed":1`),
		"an unknown member": with(`"x_new":null`),
		"unlike in case":    with(`"USER":"u"`),
		"composed é":        strings.Replace(greedy, "hi", "\u00e9", 1),
		"decomposed é":      strings.Replace(greedy, "hi", "e\u0301", 1),
		"inline image":      strings.Replace(greedy, `"hi"`, `[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]`, 1),
		"quotes a member":   strings.Replace(greedy, "hi", `\"url\":\"http://x\"`, 1),
	} {
		add(name, request(t, schemas.OpChat, body))
	}
	add("another op", request(t, schemas.OpMessages, `{"model":"m","temperature":0,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`))
	add("a completion", request(t, schemas.OpCompletion, `{"model":"m","temperature":0,"prompt":"hi"}`))
	add("a response", request(t, schemas.OpResponses, `{"model":"m","temperature":0,"input":"hi"}`))
	add("an embedding", request(t, schemas.OpEmbedding, `{"model":"m","input":"hi"}`))
	add("an encoding", request(t, schemas.OpEmbedding, `{"model":"m","input":"hi","encoding_format":"base64"}`))
}

func TestReasons(t *testing.T) {
	content := func(part string) string { return strings.Replace(greedy, `"hi"`, "["+part+"]", 1) }
	response := func(members string) string { return `{"model":"m","temperature":0,"input":"hi",` + members + `}` }
	message := func(members string) string {
		return `{"model":"m","temperature":0,"max_tokens":5,"messages":[{"role":"user","content":"hi"}],` + members + `}`
	}
	for name, c := range map[string]struct {
		op   schemas.Op
		body string
		want cache.Reason
	}{
		"no temperature":    {schemas.OpChat, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, cache.ReasonSampling},
		"a temperature":     {schemas.OpChat, strings.Replace(greedy, ":0", ":0.1", 1), cache.ReasonSampling},
		"two answers":       {schemas.OpChat, with(`"n":2`), cache.ReasonChoices},
		"one answer":        {schemas.OpChat, with(`"n":1`), ""},
		"two prompts":       {schemas.OpCompletion, `{"model":"m","temperature":0,"prompt":["a","b"]}`, cache.ReasonChoices},
		"tools":             {schemas.OpChat, with(`"tools":[{"type":"function"}]`), cache.ReasonTools},
		"no tools":          {schemas.OpChat, with(`"tools":[]`), ""},
		"functions":         {schemas.OpChat, with(`"functions":[{"name":"f"}]`), cache.ReasonTools},
		"servers of tools":  {schemas.OpMessages, message(`"mcp_servers":[{"url":"x"}]`), cache.ReasonTools},
		"log probs":         {schemas.OpChat, with(`"logprobs":true`), cache.ReasonLogProbs},
		"search":            {schemas.OpChat, with(`"web_search_options":{"user_location":null}`), cache.ReasonSearch},
		"audio":             {schemas.OpChat, with(`"audio":{"voice":"x"}`), cache.ReasonAudio},
		"modalities":        {schemas.OpChat, with(`"modalities":["text", "audio"]`), cache.ReasonAudio},
		"text only":         {schemas.OpChat, with(`"modalities":["text"]`), ""},
		"store":             {schemas.OpChat, with(`"store":true`), cache.ReasonStore},
		"a stored response": {schemas.OpResponses, response(`"store":true`), ""},
		"background":        {schemas.OpResponses, response(`"background":true`), cache.ReasonBackground},
		"foreground":        {schemas.OpResponses, response(`"background":false`), ""},
		"a conversation":    {schemas.OpResponses, response(`"conversation":"c1"`), cache.ReasonReference},
		"thinking":          {schemas.OpMessages, message(`"thinking":{"type":"enabled","budget_tokens":1024}`), cache.ReasonThinking},
		"no thinking":       {schemas.OpMessages, message(`"thinking":{ "type" : "disabled" }`), ""},
		"count":             {schemas.OpCountTokens, message(`"x":1`), cache.ReasonOp},
		"image elsewhere":   {schemas.OpChat, content(`{"type":"image_url","image_url":{"url":"https://x/y.png"}}`), cache.ReasonReference},
		"image hidden":      {schemas.OpChat, content(`{"type":"image_url","image_url":{ "ur\u006c" : "HTTPS://x/y.png"}}`), cache.ReasonReference},
		"second image": {schemas.OpChat,
			content(`{"image_url":{"url":"data:x"}},{"image_url":{"url":"http://x"}}`), cache.ReasonReference},
		"responses image": {schemas.OpResponses, `{"model":"m","temperature":0,"input":[{"image_url":"http://x"}]}`, cache.ReasonReference},
		"file":            {schemas.OpChat, content(`{"type":"file","file":{"file_id":"f1"}}`), cache.ReasonReference},
		"2^53":            {schemas.OpChat, with(`"seed":9007199254740992`), cache.ReasonNumber},
		"rounded to 2^53": {schemas.OpChat, with(`"seed":9007199254740993`), cache.ReasonNumber},
		"below 2^53":      {schemas.OpChat, with(`"seed":9007199254740991`), ""},
		"negative":        {schemas.OpChat, with(`"x":{"y":[-9007199254740993]}`), cache.ReasonNumber},
		"exponent":        {schemas.OpChat, with(`"x":1e300`), cache.ReasonNumber},
		"beyond doubles":  {schemas.OpChat, with(`"x":1e999`), cache.ReasonNumber},
		"digits in text":  {schemas.OpChat, with(`"x":"\"90071992547409930000"`), ""},
		"long fraction":   {schemas.OpChat, with(`"x":0.12345678901234567`), ""},
		"stream options":  {schemas.OpChat, with(`"stream":true,"stream_options":{"x":9007199254740993}`), cache.ReasonNumber},
		"lone surrogate":  {schemas.OpChat, with(`"x":"\ud800"`), cache.ReasonBody},
	} {
		parsed, err := openai.ParseRequest(c.op, []byte(c.body), openai.Policy{})
		if err != nil {
			// What the door refuses must have no key either, whoever asks.
			parsed = &openai.Request{Model: "m", N: 1, Temperature: new(float64), Body: []byte(c.body)}
		}
		k, got := cache.KeyOf(&cache.Request{Tenant: "acme", Op: c.op, Parsed: parsed})
		if got != c.want || k.IsZero() != (got != "") {
			t.Errorf("%s: %s gives reason %q, want %q", name, c.body, got, c.want)
		}
	}
}

func TestRefusesWhatIsNotCanonical(t *testing.T) {
	for _, body := range []string{
		`{"model":"m","a":1,"a":2}`, `{"model":"m","a":{"b":1,"b":2}}`, "{\"model\":\"m\",\"a\":\"\xff\"}", `{"model":"m"} {}`, `{"model":`, `[]`, ``,
	} {
		parsed := &openai.Request{Model: "m", N: 1, Temperature: new(float64), Body: []byte(body)}
		if k, reason := cache.KeyOf(&cache.Request{Tenant: "acme", Op: schemas.OpChat, Parsed: parsed}); reason != cache.ReasonBody || !k.IsZero() {
			t.Errorf("%q gives reason %q, want %q", body, reason, cache.ReasonBody)
		}
	}
}

func TestSampledAnswersMayBeKept(t *testing.T) {
	r := request(t, schemas.OpChat, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	r.Sampled = true
	if _, reason := cache.KeyOf(r); reason != "" {
		t.Errorf("reason %q although sampled answers may be kept", reason)
	}
}

func TestFlightIsSplitByHowAnAnswerIsStreamed(t *testing.T) {
	flights := map[string]string{}
	for name, body := range map[string]string{
		"unary":      greedy,
		"stream":     with(`"stream":true`),
		"with usage": with(`"stream":true,"stream_options":{"include_usage":true}`),
	} {
		flight := key(t, schemas.OpChat, body).Flight()
		if other, there := flights[flight]; there {
			t.Errorf("%s shares a run with %s", name, other)
		}
		flights[flight] = name
	}
	for _, body := range []string{with(`"stream":false`), with(`"user":"u2"`)} {
		if flights[key(t, schemas.OpChat, body).Flight()] != "unary" {
			t.Errorf("%s does not share the run of an equal request", body)
		}
	}
	if flights[key(t, schemas.OpChat, with(`"stream_options":{ "include_usage" : true },"stream":true`)).Flight()] != "with usage" {
		t.Error("the same stream options written otherwise do not share a run")
	}
}

func TestKeyIsTheEndOfASubject(t *testing.T) {
	r := request(t, schemas.OpChat, greedy)
	r.Namespace = "a user > with.* anything"
	k, _ := cache.KeyOf(r)
	namespace, digest, _ := strings.Cut(k.String(), ".")
	if namespace != cache.NamespaceToken(r.Namespace) || len(namespace) != 16 || len(digest) != 64 || strings.ContainsAny(digest, ".*> ") {
		t.Errorf("key is %q", k)
	}
	if plain := key(t, schemas.OpChat, greedy).String(); !strings.HasPrefix(plain, "_.") {
		t.Errorf("key without a namespace is %q", plain)
	}
}

func BenchmarkKeyOf2KB(b *testing.B) {
	r := request(b, schemas.OpChat, strings.Replace(greedy, "hi", strings.Repeat("the quick brown fox ", 100), 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, reason := cache.KeyOf(r); reason != "" {
			b.Fatal(reason)
		}
	}
}
