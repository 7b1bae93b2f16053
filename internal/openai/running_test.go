package openai

import "testing"

func TestRunningIsReadAndDropped(t *testing.T) {
	t.Parallel()
	for event, want := range map[string]struct {
		Running
		mended string
	}{
		`{"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""},"token_ids":null}],"usage":{"prompt_tokens":3},"prompt_token_ids":[1, 2,3]}`: {
			Running{Prompt: "1,2,3", Usage: `{"prompt_tokens":3}`}, `{"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`,
		},
		`{"prompt_token_ids":[7],"id":"a","usage":null,"choices":[{"token_ids":[4,5],"index":0,"delta":{"role":"assistant","content":"x"}}]}`: {
			Running{TokenIDs: "4,5", Prompt: "7"}, `{"id":"a","choices":[{"index":0,"delta":{"role":"assistant","content":"x"}}]}`,
		},
		`{"choices":[{"index":0,"text":"x","token_ids":[4],"prompt_token_ids":[1]}],"usage":{"prompt_tokens":1}}`: {
			Running{TokenIDs: "4", Prompt: "1", Usage: `{"prompt_tokens":1}`}, `{"choices":[{"index":0,"text":"x"}]}`,
		},
		`{"choices":[],"usage":{"prompt_tokens":1}}`:                                               {mended: `{"choices":[],"usage":{"prompt_tokens":1}}`},
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"token_ids":["a;b"]}]}`: {mended: `{"choices":[{"index":0,"delta":{"role":"assistant","content":"x"}}]}`},
	} {
		var c Chunk
		if err := c.Peek([]byte(event)); err != nil {
			t.Fatal(err)
		}
		if got := c.Running(); got != want.Running {
			t.Errorf("%s\ntells %+v, want %+v", event, got, want.Running)
		}
		if got, _ := (&Mender{DropRun: true}).Mend([]byte(event), &c); string(got) != want.mended {
			t.Errorf("%s\nis mended to %s\nwant           %s", event, got, want.mended)
		}
		checkSame(t, event, event)
	}
}
