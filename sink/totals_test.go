package sink_test

import (
	"testing"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// A request that failed saved nothing, whoever it was to share an answer with; and what it was given cost it nothing.
func TestWhatFailedSavedNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status                schemas.Status
		cache                 schemas.CacheStatus
		failed, saved, tokens int64
	}{
		{schemas.StatusCompleted, "", 0, 0, 5},
		{schemas.StatusFailed, "", 1, 0, 5},
		{schemas.StatusCompleted, schemas.CacheCoalesced, 0, 1, 0},
		{schemas.StatusCompleted, schemas.CacheHit, 0, 1, 0},
		{schemas.StatusFailed, schemas.CacheCoalesced, 1, 0, 0},
		{schemas.StatusCancelled, schemas.CacheCoalesced, 1, 0, 0},
		{schemas.StatusDeleted, schemas.CacheHit, 0, 1, 0},
	} {
		d := sink.DayOf(&schemas.Result{Status: c.status, Cache: c.cache, Usage: &schemas.Usage{PromptTokens: 2, CompletionTokens: 3, TotalTokens: 5}})
		if d.Failed != c.failed || d.Saved != c.saved || d.Prompt+d.Completion != c.tokens || d.Requests != 1 {
			t.Errorf("%s and %q of the cache: failed %d, saved %d, %d tokens; want %d, %d, %d", c.status, c.cache, d.Failed, d.Saved, d.Prompt+d.Completion, c.failed, c.saved, c.tokens)
		}
	}
}
