package echo_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func backend(t testing.TB, config echo.Config) *echo.Backend {
	t.Helper()
	config.Name = "echo"
	b, err := echo.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request has a question of five words, and more members.
func request(members string) *inference.GenerateRequest {
	body := `{` + members + `"model":"e","messages":[{"role":"system","content":"be kind"},{"role":"user","content":"one two three\nfour \"five\""}]}`
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "r1"}, Op: schemas.OpChat, Body: []byte(body),
		Stream: strings.Contains(members, `"stream":true`), Attempt: 1, Try: 1,
	}
}

// generate collects the events a caller sees, all of them put together, and the error.
func generate(ctx context.Context, b inference.Backend, r *inference.GenerateRequest) (events []string, answer *openai.Answer, err *schemas.Error) {
	answer = &openai.Answer{}
	for event, e := range b.Generate(ctx, r) {
		if e != nil {
			return events, answer, schemas.AsError(e)
		}
		if answer.Add(event.Chunk); len(event.Data) > 0 {
			events = append(events, string(event.Data))
		}
	}
	return events, answer, nil
}

func TestStream(t *testing.T) {
	t.Parallel()
	const head = `{"object":"chat.completion.chunk","id":"chatcmpl-1eba04e597a7b527b2af40c8","created":1700000000,"model":"e","choices":[`
	events, _, err := generate(t.Context(), backend(t, echo.Config{}), request(`"stream":true,"stream_options":{"include_usage":true},"max_tokens":3,`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		head + `{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"content":"echo: "},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"content":"one "},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{"content":"two "},"finish_reason":null}]}`,
		head + `{"index":0,"delta":{},"finish_reason":"length"}]}`,
		head + `],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}`,
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const text = "echo: one two three\nfour \"five\""
	for _, test := range []struct {
		name, members string
		dials         echo.Dials
		content       string
		finish        []string
		completion    int64
	}{
		{"once", "", echo.Dials{}, text, []string{"stop"}, 6},
		{"cut by max_tokens", `"max_tokens":2,`, echo.Dials{}, "echo: one ", []string{"length"}, 2},
		{"newer limit counts", `"max_tokens":2,"max_completion_tokens":1,`, echo.Dials{}, "echo: ", []string{"length"}, 1},
		{"limit above", `"max_tokens":200,`, echo.Dials{}, text, []string{"stop"}, 6},
		{"short", "", echo.Dials{Tokens: 2}, "echo: one ", []string{"stop"}, 2},
		{"long", "", echo.Dials{Tokens: 8}, text + "echo: one ", []string{"stop"}, 8},
		{"dial in the body", `"x_echo":{"tokens":1},`, echo.Dials{Tokens: 8}, "echo: ", []string{"stop"}, 1},
		{"other dial in the body", `"x_echo":{"cut":null},`, echo.Dials{Tokens: 1, Cut: new(0)}, "echo: ", []string{"stop"}, 1},
		{"two choices", `"n":2,`, echo.Dials{Tokens: 1}, "echo: ", []string{"stop", "stop"}, 2},
	} {
		for _, stream := range []string{"", `"stream":true,`} {
			_, answer, err := generate(t.Context(), backend(t, echo.Config{Dials: test.dials}), request(stream+test.members))
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			var got openai.Chunk
			if err := got.Peek(answer.Encode(nil)); err != nil {
				t.Fatal(err)
			}
			for _, choice := range got.Choices {
				if choice.Content != test.content {
					t.Errorf("%s %s: choice %d is %q, want %q", test.name, stream, choice.Index, choice.Content, test.content)
				}
			}
			if diff := cmp.Diff(test.finish, answer.Reasons()); diff != "" {
				t.Errorf("%s %s: reasons (-want +got):\n%s", test.name, stream, diff)
			}
			if usage := answer.Usage(); usage == nil || usage.PromptTokens != 7 || usage.CompletionTokens != test.completion || usage.TotalTokens != 7+test.completion {
				t.Errorf("%s %s: usage %+v", test.name, stream, usage)
			}
		}
	}
}

func TestSameRequestSameBytes(t *testing.T) {
	t.Parallel()
	first, _, err1 := generate(t.Context(), backend(t, echo.Config{}), request(`"stream":true,`))
	again := request(`"stream":true,`)
	again.Attempt, again.Try = 3, 2
	second, _, err2 := generate(t.Context(), backend(t, echo.Config{}), again)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the second run differs (-first +second):\n%s", diff)
	}
	other := request(`"stream":true,`)
	other.Identity.Request = "r2"
	if third, _, _ := generate(t.Context(), backend(t, echo.Config{}), other); third[0] == first[0] {
		t.Error("another request has the same id")
	}
	varied := request(`"stream":true,"x_echo":{"vary":true},`)
	_, a, _ := generate(t.Context(), backend(t, echo.Config{}), varied)
	_, b, _ := generate(t.Context(), backend(t, echo.Config{}), varied)
	if string(a.Encode(nil)) == string(b.Encode(nil)) {
		t.Error("vary gave the same text twice")
	}
}

func TestCreatedComesFromTheID(t *testing.T) {
	t.Parallel()
	r := request("")
	r.Identity.Request = "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
	events, _, _ := generate(t.Context(), backend(t, echo.Config{}), r)
	if !strings.Contains(events[0], `"created":1469922850,`) {
		t.Errorf("created is not the time of the id: %s", events[0])
	}
}

func TestContentInParts(t *testing.T) {
	t.Parallel()
	r := request("")
	r.Body = []byte(`{"model":"e","messages":[{"role":"user","content":[{"type":"text","text":"a "},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"b"}]}]}`)
	_, answer, err := generate(t.Context(), backend(t, echo.Config{}), r)
	if err != nil || !strings.Contains(string(answer.Encode(nil)), `"echo: a b"`) {
		t.Errorf("%s, %v", answer.Encode(nil), err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, dials string
		try         int
		code        schemas.Code
		events      int // with the opening one
	}{
		{"fail", `{"fail":"rate_limit_exceeded","retry_after_ms":1500}`, 1, schemas.CodeRateLimit, 0},
		{"cut", `{"cut":2}`, 1, schemas.CodeUpstreamInterrupted, 3},
		{"cut at once", `{"cut":0}`, 1, schemas.CodeUpstreamInterrupted, 1},
		{"cut before the end", `{"tokens":4,"cut":4}`, 1, schemas.CodeUpstreamInterrupted, 5},
		{"garbage", `{"garbage":1}`, 1, schemas.CodeUpstreamError, 2},
		{"second try", `{"cut":2,"faulty_tries":2}`, 2, schemas.CodeUpstreamInterrupted, 3},
		{"third try", `{"cut":2,"faulty_tries":2}`, 3, "", 8},
		{"dials of the wrong kind", `{"tokens":"many"}`, 1, schemas.CodeInvalidValue, 0},
		{"dials out of range", `{"tokens":-1}`, 1, schemas.CodeInvalidValue, 0},
		{"code that is none", `{"fail":"no_such_code"}`, 1, schemas.CodeInvalidValue, 0},
	} {
		r := request(`"stream":true,"x_echo":` + test.dials + `,`)
		r.Try = test.try
		events, _, err := generate(t.Context(), backend(t, echo.Config{}), r)
		switch {
		case test.code == "" && err != nil, test.code != "" && (err == nil || err.Code != test.code), len(events) != test.events:
			t.Errorf("%s: %d events, then %v; want %d, then %s", test.name, len(events), err, test.events, test.code)
		case test.code == schemas.CodeRateLimit && err.RetryAfter != 1500*time.Millisecond:
			t.Errorf("%s: retry after %v", test.name, err.RetryAfter)
		}
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"", `"stream":true,`} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if _, _, err := generate(t.Context(), backend(t, echo.Config{Dials: echo.Dials{IntervalMS: 20}}), request(stream)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != 120*time.Millisecond {
				t.Errorf("six tokens took %v", took)
			}
		})
	}
}

func TestStallEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	for name, members := range map[string]string{"stalled": `"stream":true,"x_echo":{"stall":1},`, "slow": `"stream":true,"x_echo":{"interval_ms":60000},`, "unary": `"x_echo":{"stall":1},`} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(schemas.Errorf(schemas.CodeShutdown, "stopping")) })
			if _, _, err := generate(ctx, backend(t, echo.Config{}), request(members)); err == nil || err.Code != schemas.CodeShutdown {
				t.Errorf("%s: %v", name, err)
			}
			r := request(members)
			r.Deadline = time.Now().Add(time.Second)
			if _, _, err := generate(t.Context(), backend(t, echo.Config{}), r); err == nil || err.Code != schemas.CodeDeadline {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	b := backend(t, echo.Config{})
	if !b.Capabilities().Deterministic || backend(t, echo.Config{Deterministic: new(false)}).Capabilities().Deterministic {
		t.Error("Deterministic is not what was configured")
	}
	if _, err := echo.New(echo.Config{}); err == nil {
		t.Error("no name was accepted")
	}
	if _, err := echo.New(echo.Config{Name: "e", Dials: echo.Dials{Tokens: -1}}); err == nil {
		t.Error("a negative dial was accepted")
	}
}

func BenchmarkToken(b *testing.B) {
	backend := backend(b, echo.Config{Dials: echo.Dials{Tokens: 1000}})
	r := request(`"stream":true,`)
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range backend.Generate(b.Context(), r) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What the echo model says behind any beginning of an answer is the rest of it, in as many tokens as are left.
func TestGoingOn(t *testing.T) {
	t.Parallel()
	b := backend(t, echo.Config{Continue: inference.ContinueText})
	for _, members := range []string{``, `"x_echo":{"tokens":9},`, `"x_echo":{"vary":true},`, `"max_tokens":4,`} {
		stream := `"stream":true,"stream_options":{"include_usage":true},` + members
		events, whole, err := generate(t.Context(), b, request(stream))
		if err != nil {
			t.Fatal(err)
		}
		said, tokens := "", 0
		for _, event := range events[1 : len(events)-2] {
			said += gjson.Get(event, "choices.0.delta.content").Str
			tokens++
			r := request(stream)
			r.Resume = &inference.Resume{Text: strings.TrimSpace(said)}
			_, rest, err := generate(t.Context(), b, r)
			if err != nil {
				t.Fatalf("behind %q: %v", said, err)
			}
			text := gjson.GetBytes(rest.Encode(nil), "choices.0.message.content").Str
			if want := gjson.GetBytes(whole.Encode(nil), "choices.0.message.content").Str; r.Resume.Text+text != want && strings.TrimSpace(want) != r.Resume.Text {
				t.Errorf("%s: %q goes on with %q, want %q", members, r.Resume.Text, text, want)
			}
			for path, more := range map[string]int{"usage.completion_tokens": tokens, "usage.total_tokens": 0} {
				if got, want := gjson.GetBytes(rest.Encode(nil), path).Int(), gjson.GetBytes(whole.Encode(nil), path).Int(); got+int64(more) != want {
					t.Errorf("%s behind %d tokens: %s is %d, want %d less than %d", members, tokens, path, got, more, want)
				}
			}
		}
		r := request(stream)
		r.Resume = &inference.Resume{Text: "something else"}
		if _, _, err := generate(t.Context(), b, r); !strings.Contains(members, "vary") && (err == nil || err.Code != schemas.CodeUnsupported) {
			t.Errorf("behind something else: %v", err)
		}
	}
}
