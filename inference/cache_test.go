package inference_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// TestOnlyAWholeAnswerIsKept orders every answer kept and lets all but one go wrong.
func TestOnlyAWholeAnswerIsKept(t *testing.T) {
	t.Parallel()
	const usage = `,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	good := strings.TrimSuffix(string(unary("hi")), "}") + usage
	for name, c := range map[string]struct {
		backend *fake
		kept    bool
	}{
		"whole":          {&fake{whole: []byte(good)}, true},
		"length":         {&fake{whole: []byte(strings.Replace(good, `"stop"`, `"length"`, 1))}, false},
		"content_filter": {&fake{whole: []byte(strings.Replace(good, `"stop"`, `"content_filter"`, 1))}, false},
		"tool_calls":     {&fake{whole: []byte(strings.Replace(good, `"stop"`, `"tool_calls"`, 1))}, false},
		"left out":       {&fake{whole: []byte(good), leftOut: 1}, false},
		"failed": {&fake{gate: func(context.Context, int, int) error {
			return schemas.Errorf(schemas.CodeInvalidValue, "no")
		}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.worker("w1", c.backend)
			w := work("r1", 1, whole)
			w.Cache = &schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.k", TTL: 60}
			p.dispatch(w)
			p.ended(w.Identity) // the result comes after the entry
			_, _, err := p.bus.CachedAnswer(t.Context(), "acme", "_.k")
			if err != nil && !errors.Is(err, bus.ErrNotFound) || (err == nil) != c.kept {
				t.Errorf("kept: %t (%v), want %t", err == nil, err, c.kept)
			}
		})
	}
}

// TestAPurgeDuringAnAnswerKeepsItOut purges while the model is asked.
func TestAPurgeDuringAnAnswerKeepsItOut(t *testing.T) {
	t.Parallel()
	p := setup(t)
	good := strings.TrimSuffix(string(unary("hi")), "}") + `,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	p.worker("w1", &fake{whole: []byte(good), gate: func(ctx context.Context, _, _ int) error { _, err := p.bus.PurgeCache(ctx, "acme", ""); return err }})
	w := work("r1", 1, whole)
	w.Cache = &schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.k", TTL: 60}
	p.dispatch(w)
	p.ended(w.Identity)
	if _, _, err := p.bus.CachedAnswer(t.Context(), "acme", "_.k"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("an answer from before a purge: %v, want none", err)
	}
}
