package inference

import (
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// told is what the frames of a chain tell another backend to go on from, and what the answer cost so far.
type told struct {
	vocabulary     string
	prompt, output []int64
	total          int   // token ids of the whole prompt
	missing        bool  // some text has no ids
	spoken         int64 // tokens, as far as events tell
	usage          *schemas.Usage
	asked          int64 // tokens of the prompt, as the beginning of a message tells them; 0 = it does not
}

// told reads the chain.
func (r *run) told() *told {
	if r.op == schemas.OpMessages {
		return r.toldByMessage()
	}
	t := &told{}
	var c openai.Chunk
	shown := 0 // ids whose text is visible
	for _, f := range r.chain.whole().Frames {
		switch {
		case f.Start != nil && f.Start.Mode != schemas.ModeContinue: // a run of its own
			*t, shown = told{spoken: t.spoken}, 0
		case f.Kind == schemas.KindDelta && f.Count > 0:
			shown = t.frame(f, &c, shown)
		}
	}
	t.output = t.output[:shown] // a rune that is not whole yet: its text would be lost
	return t
}

// toldByMessage reads a chain of events of the messages dialect. A server of the dialect says in the first what the prompt
// takes, and puts several tokens into an event; what was translated begins with an estimate, and has mostly one.
func (r *run) toldByMessage() *told {
	t, bytes := &told{missing: true}, 0
	var e anthropic.Event
	var begun anthropic.Answer
	var c openai.Chunk
	for _, event := range r.chain.whole().Events() {
		if e.Peek(event) != nil {
			continue
		}
		begun.Add(&e)
		if begun.Note(&e, &c); speaks(&c) {
			t.spoken++
			bytes += len(c.Choices[0].Content) + len(c.Choices[0].Reasoning)
		}
	}
	if begun.ID() != messageID(r.work.Identity) {
		t.asked = begun.Asked()
		t.spoken = max(t.spoken, int64(float64(bytes)/bytesPerToken))
	}
	return t
}

func (t *told) frame(f *schemas.Frame, c *openai.Chunk, shown int) int {
	t.promptOf(f)
	if f.Usage != "" {
		if u := (&schemas.Usage{}); u.UnmarshalJSON([]byte(f.Usage)) == nil {
			t.usage = u
		}
	}
	groups := t.groups(f)
	for i, event := range f.Events() {
		speaks := c.Peek(event) == nil && speaks(c)
		if speaks {
			t.spoken++
		}
		if groups == nil {
			t.missing = t.missing || speaks
			continue
		}
		if t.output = append(t.output, groups[i-f.Index]...); speaks {
			shown = len(t.output)
		}
	}
	return shown
}

func (t *told) promptOf(f *schemas.Frame) {
	if f.Prompt == "" {
		return
	}
	part, err := schemas.ParsePrompt(f.Prompt)
	if err == nil {
		t.vocabulary, t.total = part.Vocabulary, part.Total
		t.prompt, err = schemas.AppendTokenIDs(t.prompt, part.IDs)
	}
	t.missing = t.missing || err != nil
}

// groups are the ids of the frame's events, or nil.
func (t *told) groups(f *schemas.Frame) (all [][]int64) {
	if f.TokenIDs == "" {
		return nil
	}
	for ids, err := range schemas.ParseTokenIDs(f.TokenIDs) {
		if err != nil {
			return nil
		}
		all = append(all, ids)
	}
	if len(all) != f.Count {
		return nil
	}
	return all
}

// whole reports whether there are ids of everything.
func (t *told) whole() bool {
	return !t.missing && len(t.output) > 0 && t.total > 0 && len(t.prompt) == t.total
}

// cost is what the answer cost so far: as the server told, or as many tokens as it sent events.
func (t *told) cost() *spending {
	if t.usage != nil {
		return &spending{prompt: t.usage.PromptTokens, output: max(t.usage.CompletionTokens, t.spoken)}
	}
	if t.asked > 0 {
		return &spending{prompt: t.asked, output: t.spoken}
	}
	return &spending{prompt: -1, output: t.spoken}
}

const (
	maxTokenIDs   = 24 << 10 // bytes of token ids in the headers of a frame; more ends their recording
	maxPromptPart = 24 << 10 // of those of the prompt, which follow in the next frame
	maxUsage      = 4 << 10
)

// recorder gathers for each frame what another backend could go on from. It is off in its zero value.
type recorder struct {
	on         bool
	vocabulary string
	before     *spending

	ids    []byte // of the frame's events
	groups int    // events that ids has a place for
	some   bool   // there are ids
	early  []byte // of what was said before the next event

	written bool   // a frame
	prompt  string // not recorded yet
	total   int
	usage   string
}

// begin listens to an attempt, whose calls may be told to tell.
func (t *recorder) begin(on bool, before *spending) {
	ids, early := t.ids[:0], t.early[:0]
	*t = recorder{}
	t.on, t.before, t.ids, t.early = on, before, ids, early
}

// note takes what an event tells that was added as the count-th of its frame, or as none.
func (t *recorder) note(told *openai.Running, count int, added bool) {
	if !t.on || told == nil && !t.some && len(t.early) == 0 {
		return
	}
	if told == nil {
		told = &openai.Running{}
	}
	if told.Prompt != "" && !t.written && t.before == nil { // what a call before this one told became of no use
		t.prompt, t.total, t.vocabulary = told.Prompt, 1+commas(told.Prompt), told.Vocabulary
		t.early = t.early[:0]
	}
	if told.Usage != "" {
		t.usage = t.before.plus(told.Usage)
	}
	if told.TokenIDs != "" {
		if len(t.early) > 0 {
			t.early = append(t.early, ',')
		}
		t.early = append(t.early, told.TokenIDs...)
	}
	if !added {
		return
	}
	for ; t.groups < count; t.groups++ {
		if t.groups > 0 {
			t.ids = append(t.ids, ';')
		}
	}
	t.some = t.some || len(t.early) > 0
	t.ids = append(t.ids, t.early...)
	t.early = t.early[:0]
}

func commas(s string) (n int) {
	for i := range len(s) {
		if s[i] == ',' {
			n++
		}
	}
	return n
}

// put puts what was gathered into a frame, and begins the next.
func (t *recorder) put(f *schemas.Frame) {
	if !t.on {
		return
	}
	t.written = true
	if t.on = len(t.ids) <= maxTokenIDs && len(t.early) <= maxTokenIDs; t.on && t.some {
		f.TokenIDs = string(t.ids)
	}
	if len(t.usage) <= maxUsage && gjson.Valid(t.usage) {
		f.Usage = t.usage
	}
	if t.on && t.prompt != "" {
		part := t.prompt
		if len(part) > maxPromptPart {
			cut := maxPromptPart
			for part[cut] != ',' { // ids are short
				cut--
			}
			part = part[:cut]
		}
		t.prompt = t.prompt[min(len(part)+1, len(t.prompt)):]
		f.Prompt = schemas.Prompt{Vocabulary: t.vocabulary, Total: t.total, IDs: part}.String()
	}
	t.ids, t.groups, t.some = t.ids[:0], 0, false
}
