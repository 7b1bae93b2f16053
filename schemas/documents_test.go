package schemas_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/schematest"
	"github.com/weir-llm/weir/schemas"
)

func load(t *testing.T) *schematest.Document {
	t.Helper()
	d, err := schematest.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// literals are the strings of the package's sources.
func literals(t *testing.T) (all []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, text)
			}
			return true
		})
	}
	return all
}

// fixed is what a subject begins with before its first variable token.
func fixed(subject string) string {
	if i := strings.IndexAny(subject, "*>{"); i >= 0 {
		subject = subject[:i]
	}
	return subject
}

func TestEverySubjectIsDescribed(t *testing.T) {
	t.Parallel()
	described, used := map[string]bool{}, map[string]bool{}
	for _, c := range load(t).Channels {
		described[fixed(c.Address)] = true
	}
	for _, text := range literals(t) {
		if text == schemas.BackendDomain { // no subject, for all that it looks like one
			continue
		}
		if strings.HasPrefix(text, "llm.") || strings.HasPrefix(text, "_INBOX") {
			used[fixed(text)] = true
		}
	}
	for subject := range used {
		if !described[subject] {
			t.Errorf("asyncapi.yaml has no channel for %s…", subject)
		}
	}
	for subject := range described {
		if !used[subject] {
			t.Errorf("asyncapi.yaml has a channel for %s…, which no constant names", subject)
		}
	}
	if len(used) < 15 {
		t.Errorf("only %d subjects were found: %v", len(used), used)
	}
}

// properties are the members that the header schemas describe.
func properties(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("jsonschema/*.headers.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, file := range files {
		var schema struct {
			Properties map[string]struct{ Description string }
		}
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &schema)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for name, p := range schema.Properties {
			all[name] = all[name] || p.Description != ""
		}
	}
	return all
}

func TestEveryHeaderIsDescribed(t *testing.T) {
	t.Parallel()
	described := properties(t)
	found := 0
	for _, text := range literals(t) {
		ours := strings.HasPrefix(text, "Llm-") || strings.HasPrefix(text, "Nats-") || text == schemas.HeaderTraceParent || text == schemas.HeaderTraceState
		if !ours || text == schemas.HeaderPrefix {
			continue
		}
		if found++; !described[text] {
			t.Errorf("no schema under jsonschema describes the header %s", text)
		}
	}
	for _, name := range append(schemas.RequestHeaders(), schemas.HeaderPrefer) {
		if !described[name] {
			t.Errorf("no schema under jsonschema describes the header %s", name)
		}
	}
	if found < 30 {
		t.Errorf("only %d headers were found", found)
	}
}

func TestEveryErrorCodeIsDescribed(t *testing.T) {
	t.Parallel()
	syntax, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("jsonschema/error.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(syntax, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
			return true
		}
		if codes++; !bytes.Contains(data, []byte(spec.Values[0].(*ast.BasicLit).Value)) {
			t.Errorf("error.schema.json does not have the code %s among its examples", spec.Values[0].(*ast.BasicLit).Value)
		}
		return true
	})
	if codes < 20 {
		t.Errorf("only %d codes were found", codes)
	}
}

func TestSchemaFiles(t *testing.T) {
	t.Parallel()
	for name := range load(t).Schemas {
		data, err := os.ReadFile(filepath.Join("jsonschema", name))
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			Schema, ID, Title, Description string
			Type                           string
			AdditionalProperties           *bool
		}
		// The names that begin with a dollar sign, without it.
		if err := json.Unmarshal(bytes.ReplaceAll(data, []byte(`"$`), []byte(`"`)), &head); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if head.Schema != "https://json-schema.org/draft/2020-12/schema" || head.ID != "https://github.com/weir-llm/weir/schemas/v1/"+name || head.Title == "" || head.Description == "" {
			t.Errorf("%s: %+v", name, head)
		}
		if bytes.Contains(data, []byte(`"additionalProperties": false`)) {
			t.Errorf("%s: a later version could add nothing", name)
		}
	}
}

// golden is a message as it was written once (see testdata).
func golden(t *testing.T, name string) (schemas.Header, []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "v1", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	head, payload, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		head, payload, _ = bytes.Cut(data, []byte("\n"))
	}
	header := schemas.Header{}
	for line := range strings.Lines(string(head)) {
		if key, value, ok := strings.Cut(textproto.TrimString(line), ": "); ok {
			header[key] = []string{value}
		}
	}
	if name == "work" { // its body is shorter than any that gets past a door
		payload = bytes.Replace(payload, []byte(`"messages":[]`), []byte(`"messages":[{"role":"user","content":"hi"}]`), 1)
	}
	return header, payload
}

// samples are the golden messages, by the subject on which each travels and the kind that it is there.
var samples = map[string][2]string{
	"request":            {"llm.requests.acme.gpt-4=2E1", "request"},
	"request-object":     {"llm.queue.2.acme.gpt-4=2E1", "request"},
	"work":               {"llm.work.gpt-4=2E1", "work"},
	"work-cost":          {"llm.work.gpt-4=2E1", "work"},
	"frame-accepted":     {"llm.chunks.acme.r", "accepted"},
	"frame-start":        {"llm.replies.acme.r", "start"},
	"frame-start-again":  {"llm.replies.acme.r", "start"},
	"frame-follow":       {"llm.replies.acme.r", "start"},
	"frame-delta":        {"llm.replies.acme.r", "delta"},
	"frame-delta-object": {"llm.replies.acme.r", "delta"},
	"frame-end":          {"llm.replies.acme.r", "end"},
	"frame-end-unary":    {"llm.replies.acme.r", "response"},
	"frame-error":        {"llm.replies.acme.r", "error"},
	"frame-end-stream":   {"llm.replies.acme.r", "streamed"},
	"cache-entry":        {"llm.cache.acme._.k", "entry"},
	"work-cache":         {"llm.work.gpt-4=2E1", "work"},
	"result":             {"llm.results.acme.r", "result"},
	"heartbeat":          {"llm.workers.worker-1", "heartbeat"},
	"heartbeat-figures":  {"llm.workers.worker-1", "heartbeat"},
	"backend-event":      {"llm.events.backend", "backend"},
	"work-held":          {"llm.retry.hold.1.acme.r.gpt-4=2E1", "held"},
	"retry-event":        {"llm.events.retry", "retry"},
	"takeover":           {"llm.events.takeover", "takeover"},
	"queue-event":        {"llm.events.queue", "queue"},
	"router-beat":        {"llm.routers.router-1", "heartbeat"},
}

func TestWrittenMessagesAreDescribed(t *testing.T) {
	t.Parallel()
	d := load(t)
	for name, want := range samples {
		header, payload := golden(t, name)
		kinds, err := d.Check(want[0], header, payload)
		if err != nil || !slices.Equal(kinds, want[1:]) {
			t.Errorf("%s is taken for %v, want %s: %v", name, kinds, want[1], err)
		}
	}
}

// What is wrong in one place is refused.
func TestWrongMessagesAreRefused(t *testing.T) {
	t.Parallel()
	d := load(t)
	type change = func(schemas.Header, []byte) []byte
	header := func(name, value string) change {
		return func(h schemas.Header, payload []byte) []byte {
			if h[name] = []string{value}; value == "" {
				delete(h, name)
			}
			return payload
		}
	}
	replace := func(old, with string) change {
		return func(_ schemas.Header, payload []byte) []byte {
			changed := bytes.Replace(payload, []byte(old), []byte(with), 1)
			if bytes.Equal(changed, payload) {
				panic("the payload has no " + old)
			}
			return changed
		}
	}
	for name, changes := range map[string][]change{
		"request": {
			header("Llm-Request-Id", "a.b"), header("Llm-Deadline", "soon"), header("Llm-Priority", "high"), header("Llm-Op", "sing"), header("Llm-On-Disconnect", "maybe"),
			header("Llm-Object", "x"), header("traceparent", "1-2"), replace("{", "["), replace(`"model"`, `"modell"`), replace(`"messages"`, `"message"`), replace(`[{"role":"user"`, `[{"rol":"user"`),
			replace(`"gpt-4.1"`, `4`),
		},
		"work":              {header("Llm-Tenant", ""), header("Llm-Dispatch", "0"), header("Llm-Accepted", ""), header("Llm-Tenant", "a b")},
		"work-cost":         {header("Llm-Cost", "0"), header("Llm-Cost", "many")},
		"frame-accepted":    {header("Llm-Body-Hash", "xyz"), header("Llm-Frame", "accepted 0 W0 0 1"), header("Llm-Frame", ""), func(schemas.Header, []byte) []byte { return []byte("{}") }},
		"frame-start":       {header("Llm-Mode", "again"), header("Llm-Work", ""), header("Llm-V", "0"), header("Llm-Frame", "start x W 0 0")},
		"frame-start-again": {header("Llm-Redelivered", "0"), header("Llm-Redelivered", "twice")},
		"frame-error-heir":  {header("Llm-Heir", "a.b")},
		"work-shared":       {header("Llm-Shared", "yes")},
		"frame-follow":      {header("Llm-Leader", "a.b"), header("Llm-Mode", "chase"), header("Llm-Cache", "coalesced")},
		"frame-delta": {
			header("Llm-Frame", "delta 1 W"), header("Llm-Frame", "gamma 1 W 0 2"), replace(`{"choices"`, `{"error":{},"choices"`), replace("{\"choices\":[]}\n", "7\n"), replace("\n", "\n\n"),
			replace(`"choices"`, `"choice"`),
		},
		"frame-end":        {replace(`"status":"completed"`, `"status":"done"`), replace(`"attempts":2`, `"attempts":"2"`), replace(`"prompt_tokens":3`, `"prompt_tokens":-3`), header("Llm-Frame", "end 1 W 0 2")},
		"frame-end-stream": {header("Llm-Frame", "end 0 W 0 1"), header("Llm-Cache", "hit"), replace("\n", "\n\n")},
		"cache-entry":      {replace(`"v":1`, `"v":0`), replace(`"ttl":60`, `"ttl":0`), replace(`"answer":{`, `"answers":{`), replace(`"crc32c"`, `"crc"`)},
		"work-cache":       {header("Llm-Cache-Key", "miss")},
		"frame-end-unary":  {replace(`"choices"`, `"choice"`)},
		"frame-error":      {replace(`"error"`, `"err"`), replace(`"code"`, `"cod"`), replace(`rate_limit_exceeded`, `Rate limit`), header("Llm-Frame", "error 1 W 0 1")},
		"result":           {replace(`"tenant":"acme"`, `"tenant":"a.b"`), replace(`"status":"completed"`, `"status":"done"`), replace(`"accepted":"2026`, `"accepted":"26`), replace(`"attempts"`, `"attempt"`), replace(`"encoding":"zstd"`, `"encoding":"gzip"`)},
		"heartbeat-figures": {
			replace(`"repeatable":[43`, `"repeatable":["43"`), replace(`"est_tokens":1700`, `"est_tokens":-1`), replace(`"limit":8`, `"limit":"8"`), replace(`"running":2`, `"running":-2`),
			replace(`"tenant":"acme"`, `"tenant":"a.b"`),
		},
		"backend-event": {replace(`"state":"open"`, `"state":"ajar"`), replace(`"for_ms":5000`, `"for_ms":-1`), replace(`"backend":"vllm-1"`, `"backend":""`), replace(`"model"`, `"mode"`)},
		"queue-event":   {replace(`"queued":40`, `"queued":-1`), replace(`"priority":"normal"`, `"priority":"high"`), replace(`"by":"router-1"`, `"by":""`), replace(`"request_id":"r1"`, `"request_id":"a.b"`)},
		"takeover":      {replace(`"of":"worker"`, `"of":"sink"`), replace(`"count":3`, `"count":-3`), replace(`"by":"router-1"`, `"by":""`)},
		"retry-event": {
			replace(`"tenant":"acme"`, `"tenant":"a.b"`), replace(`"dispatch":2`, `"dispatch":1`), replace(`"at":"`, `"at":"x`), replace(`"by":"worker-1"`, `"by":""`),
		},
		"router-beat": {
			replace(`"router":"router-1"`, `"router":"a.b"`), replace(`"started":1`, `"started":-1`), replace(`"partitions":[1,3]`, `"partitions":[1,4]`), replace(`"eligible"`, `"eligble"`),
			replace(`"held":9`, `"held":-9`), replace(`"outstanding":2`, `"outstanding":"2"`), replace(`"waiting_ms":1200`, `"waiting_ms":-1`), replace(`"tenant":"acme"`, `"tenant":"a.b"`),
		},
		"heartbeat": {replace(`"worker":"worker-1"`, `"worker":""`), replace(`"slots":8`, `"slots":-8`), replace(`"held":[41`, `"held":["41"`), replace(`"models"`, `"model"`)},
	} {
		for i, change := range changes {
			h, payload := golden(t, name)
			h = maps.Clone(h)
			if kinds, err := d.Check(samples[name][0], h, change(h, bytes.Clone(payload))); err == nil {
				t.Errorf("%s, change %d: it is still taken for %v", name, i, kinds)
			}
		}
	}
	for _, subject := range []string{"llm.nothing.a", "llm.work", "requests.a.b", "llm.queue.9"} {
		if kinds, err := d.Check(subject, nil, nil); err == nil {
			t.Errorf("%s: taken for %v", subject, kinds)
		}
	}
}
