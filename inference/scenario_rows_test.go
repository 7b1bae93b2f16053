package inference_test

import (
	"testing"
)

// rows are the ways in which providers fail that the fault provider must play, and where each is played: by its name in
// [scenarios], or by a test of its own. Each is seen from the caller (text, code, time, finish reason, usage) and from the
// provider (calls, the gap between them, bytes sent, whether the caller left).
func rows() map[string][]any {
	return map[string][]any{
		"429 with Retry-After":    {"429 with Retry-After", "429 for longer than we wait", "429, another backend", "429, a fallback"},
		"429 without Retry-After": {"429 without Retry-After"},
		"500 once":                {"500 once"},
		"503 for ever":            {"503 for ever", "503 for ever, more backends", "503 for ever, a fallback", "503 for ever, two fallbacks", TestWhatIsWaitedFor},
		"reset before headers":    {"reset before headers", "reset before headers for ever"},
		"no answer at all":        {"no answer at all", "no answer, another backend", "no answer, a fallback", "stream without an event"},
		"slow first token":        {"slow first token", TestHedgedRequest},
		"stream cut at two thirds": {
			"stream cut at two thirds, nobody can go on", TestCutAnswersGoOn, TestAnswerThatIsCutGoesOn, TestMessageThatIsCutGoesOn, TestAnswerOfOllamaGoesOn,
		},
		"stream stalled":                  {"stream stalled, nobody can go on", TestCutAnswersGoOn},
		"malformed event":                 {"malformed first event", TestCutAnswersGoOn},
		"no [DONE]":                       {"no end mark"},
		"context length":                  {"context length", "context length, a larger fallback", "context length, no larger fallback"},
		"content filter":                  {"content filter", "filtered answer"},
		"a fallback that rejects prefill": {"a fallback that rejects prefill", "only a fallback that rejects prefill"},
		"flapping for a minute":           {TestFlapping}, // and a whole minute of it in simulated time, TestFlappingForAMinute
		"failover accounting":             {TestFailoverAccounting},
		"trickle of one byte a second":    {"trickle, another backend", "trickle that is in time"}, // and at that pace, TestTrickleOfAByteASecond of upstream
		"duplicate events":                {"end twice", "beginning twice"},
		"split UTF-8":                     {"split UTF-8"},
		"an endless stream":               {"endless stream"},
		"a chunk of 10 MB":                {"a chunk of 10 MB"},
		"gRPC status codes":               {TestStatusesOfGRPC},
		"a goaway":                        {TestGoAway},
	}
}

func TestEveryRowIsPlayed(t *testing.T) {
	t.Parallel()
	all, used := scenarios(), map[string]bool{"all is well": true, "no account": true}
	for row, played := range rows() {
		for _, by := range played {
			name, ok := by.(string)
			if !ok {
				continue
			}
			if _, ok := all[name]; !ok {
				t.Errorf("row %q is to be played by %q, which is not there", row, name)
			}
			used[name] = true
		}
	}
	for name := range all {
		if !used[name] {
			t.Errorf("scenario %q belongs to no row", name)
		}
	}
}
