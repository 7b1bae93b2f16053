package inference

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Midstream is what a model does about an answer that was cut after readers have seen some of it. The zero value is the
// default.
type Midstream struct {
	// Order is which ways are tried, and in which order: schemas.ModeContinue and schemas.ModeSplice. Default both, in that
	// order. Empty but not nil is none: such an answer ends with an error.
	Order []schemas.Mode

	Max int // attempts to go on in one worker; default 2. What a worker takes over from a dead one does not count.
}

func (m Midstream) withDefaults() Midstream {
	if m.Order == nil {
		m.Order = []schemas.Mode{schemas.ModeContinue, schemas.ModeSplice}
	}
	if m.Max == 0 {
		m.Max = 2
	}
	return m
}

// Validate reports a setting that cannot be meant.
func (m Midstream) Validate() error {
	for i, mode := range m.Order {
		if mode != schemas.ModeContinue && mode != schemas.ModeSplice || slices.Contains(m.Order[:i], mode) {
			return errors.New("midstream: order may hold continue and splice, each once")
		}
	}
	if m.Max < 0 {
		return errors.New("midstream: max is negative: leave it out for 2, or leave order empty to try nothing")
	}
	return nil
}

// way is how an answer goes on from what is visible.
type way string

// The ways.
const (
	byClosing way = "closing" // it is all there but its end
	byBlank   way = "blank"   // nothing but its beginning is visible, which any run has
	byTokens  way = "tokens"  // the backend takes the token ids so far
	byText    way = "text"    // the backend takes the text so far
	byRepeat  way = "repeat"  // the backend says the same again
)

// spent is a way that got no further with a backend.
type spent struct {
	way     way
	backend string
}

// goOn plans an attempt to go on from what is visible.
func (r *run) goOn() plan {
	if r.request != nil && r.request.Stream {
		if p, ok := r.wayOn(); ok {
			return p
		}
	}
	return plan{refuse: workerLost()}
}

// workerLost is what the caller is told of an answer that another worker had begun and that nobody can go on with.
func workerLost() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the worker was lost in the middle of the answer and the model cannot continue it; send the request again")
}

func (r *run) wayOn() (plan, bool) {
	closing, certain := r.closing()
	if certain {
		return closing, true
	}
	if p, ok := r.goneOn(); ok {
		return p, true
	}
	return closing, closing.closing != nil
}

// goneOn plans a call that goes on.
func (r *run) goneOn() (plan, bool) {
	if p, ok := r.with(plan{mode: schemas.ModeSplice, way: byBlank, tell: r.tellable()}, r.blank); ok {
		return p, true
	}
	if !r.request.Continuable() {
		return plan{}, false
	}
	for _, mode := range r.m.midstream.Order {
		var p plan
		ok := false
		switch mode {
		case schemas.ModeContinue:
			if p, ok = r.fromTokens(); !ok {
				p, ok = r.fromText()
			}
		case schemas.ModeSplice:
			if r.request.Greedy() {
				p, ok = r.with(plan{mode: schemas.ModeSplice, way: byRepeat}, func(c Capabilities) bool { return c.Deterministic && r.joins(c) })
			}
		}
		if ok {
			return p, true
		}
	}
	return plan{}, false
}

// with gives a plan the backends that are able to carry it out. One that has just been cut off is left out when there is
// another, and fallback models may continue an answer but not repeat it.
func (r *run) with(p plan, able func(Capabilities) bool) (plan, bool) {
	ours := r.able(p.way, r.m, able)
	if others := slices.DeleteFunc(slices.Clone(ours), func(b Backend) bool { return b.Name() == r.cutOff }); len(others) > 0 {
		ours = others
	}
	p.backends = ours
	if p.way == byBlank || p.way == byText {
		for _, m := range r.m.fallback {
			p.backends = append(p.backends, r.able(p.way, m, able)...)
		}
	}
	return p, len(p.backends) > 0
}

func (r *run) able(way way, m *model, able func(Capabilities) bool) (all []Backend) {
	for _, slot := range m.backends {
		if !slices.Contains(r.spent, spent{way, slot.Backend.Name()}) && able(slot.Backend.Capabilities()) {
			all = append(all, slot.Backend)
		}
	}
	return all
}

// joins reports whether what a backend says can be joined to what is visible.
func (r *run) joins(c Capabilities) bool {
	d := dialectOf(r.op, c)
	if !d.spliceable() {
		return false
	}
	_, err := d.splicer(r.chain.whole().Events(), nil)
	if err == nil {
		_, err = d.listener(r.work.Identity, r.request, r.chain.whole().Events())
	}
	return err == nil
}

func (r *run) blank(c Capabilities) bool {
	d := dialectOf(r.op, c)
	if !d.spliceable() {
		return false
	}
	s, err := d.splicer(r.chain.whole().Events(), nil)
	return err == nil && s.blank() && r.joins(c)
}

// seen is what readers have of the answer, as a backend with these capabilities would see it; false when it is more than
// text that goes on.
func (r *run) seen(c Capabilities) (openai.Seen, bool) {
	d := dialectOf(r.op, c)
	if !d.spliceable() || r.thinks(c) {
		return openai.Seen{}, false
	}
	s, err := d.splicer(r.chain.whole().Events(), nil)
	if err != nil {
		return openai.Seen{}, false
	}
	seen, ok := s.seen()
	if !ok || seen.Finish != "" || strings.HasSuffix(seen.Content, "\uFFFD") { // a rune that was cut stays cut
		return openai.Seen{}, false
	}
	return seen, true
}

// thinks reports whether a backend with these capabilities would be asked to think first, and in a dialect in which that
// means that it cannot be given the beginning of its answer.
func (r *run) thinks(c Capabilities) bool {
	return r.op == schemas.OpMessages && c.Speaks(r.op) && anthropic.Thinks(r.request.Body)
}

// fromText plans to give a backend the text so far. Reasoning is no text of the answer, and a model that is given only the
// answer would not go on with what it thought of.
func (r *run) fromText() (plan, bool) {
	var text openai.Seen
	p, ok := r.with(plan{mode: schemas.ModeContinue, way: byText}, func(c Capabilities) bool {
		if c.Continue < ContinueText {
			return false
		}
		seen, ok := r.seen(c)
		if !ok || seen.Reasoning != "" || openai.Given(seen.Content) == "" || openai.Straddles(seen.Content, openai.Stops(r.request.Body)) || !r.joins(c) {
			return false
		}
		text = seen
		return true
	})
	if !ok {
		return plan{}, false
	}
	p.before = r.told().cost()
	p.resume = &Resume{Text: openai.Given(text.Content), Tokens: int(p.before.output), Origin: r.origin(text)}
	return p, true
}

// fromTokens plans to give a backend the token ids so far. Where strings end an answer the server holds text back, so that
// ids and text are apart by an unknown length. An answer that has reached its limit needs no call.
func (r *run) fromTokens() (plan, bool) {
	if r.op != schemas.OpChat && r.op != schemas.OpCompletion || len(openai.Stops(r.request.Body)) > 0 {
		return plan{}, false
	}
	told := r.told()
	if !told.whole() {
		return plan{}, false
	}
	seen, ok := r.seen(Capabilities{})
	if !ok || seen.Content == "" { // reasoning goes on, which only the chat endpoint tells from the answer
		return plan{}, false
	}
	p, ok := r.with(plan{mode: schemas.ModeContinue, way: byTokens, tell: true}, func(c Capabilities) bool {
		return c.Continue == ContinueTokens && r.vocabulary(c) == told.vocabulary && dialectOf(r.op, c) == dialect(native{r.op})
	})
	if !ok {
		return plan{}, false
	}
	p.before = &spending{prompt: int64(len(told.prompt)), output: int64(len(told.output))}
	if limit := r.request.MaxTokens; limit > 0 && len(told.output) >= limit {
		return r.close(plan{mode: schemas.ModeContinue, way: byClosing, before: p.before}, seen, "length"), true
	}
	p.resume = &Resume{IDs: slices.Concat(told.prompt, told.output), Tokens: len(told.output), Origin: r.origin(seen)}
	return p, true
}

// vocabulary is what the token ids of a backend mean.
func (r *run) vocabulary(c Capabilities) string {
	if c.Vocabulary != "" {
		return c.Vocabulary
	}
	return r.m.name
}

// tellable reports whether token ids would be of use if the answer were cut.
func (r *run) tellable() bool {
	return r.request != nil && r.request.Stream && r.request.Continuable() && (r.op == schemas.OpChat || r.op == schemas.OpCompletion)
}

// origin has what chunks are made with when nobody else makes them.
func (r *run) origin(seen openai.Seen) openai.Origin {
	o := seen.Origin
	if o.ID == "" {
		o.ID = strconv.Quote("chatcmpl-" + r.work.Request.Request)
	}
	if o.Created == "" {
		o.Created = strconv.FormatInt(r.work.Accepted.Unix(), 10)
	}
	if o.Model == "" {
		o.Model = strconv.Quote(openai.Model(r.request.Body))
	}
	return o
}

// closing plans the end of an answer that readers have but for its end. It is not certain to be the best way while the
// caller waits for a usage that only another run can tell.
func (r *run) closing() (p plan, certain bool) {
	switch r.op {
	case schemas.OpChat, schemas.OpCompletion:
		return r.closingChunks()
	case schemas.OpMessages:
		return r.closingMessage()
	}
	return plan{}, false
}

// closingMessage plans the end of a message, whose last event but one tells how it ended and what it cost.
func (r *run) closingMessage() (p plan, certain bool) {
	end, stopped, ok := anthropic.Ending(r.chain.whole().Events())
	if !ok {
		return plan{}, false
	}
	event := Event{Chunk: end}
	if !stopped {
		event.Data = anthropic.StopEvent()
	}
	return plan{mode: schemas.ModeContinue, way: byClosing, closing: []Event{event}}, true
}

func (r *run) closingChunks() (p plan, certain bool) {
	var ending openai.Endings
	var c openai.Chunk
	var seen openai.Seen
	for _, event := range r.chain.whole().Events() {
		if c.Peek(event) != nil {
			return plan{}, false
		}
		ending.Add(&c)
		if seen.Usage = seen.Usage || c.UsageOnly(); len(c.Choices) > 0 {
			seen.Origin = c.Origin()
		}
	}
	if !ending.Whole(r.request.N) {
		return plan{}, false
	}
	p = plan{mode: schemas.ModeContinue, way: byClosing, closing: []Event{{Chunk: finished(ending.Reasons())}}}
	if cost := r.told().cost(); cost.prompt >= 0 {
		p.closing = append(p.closing, r.usageEvent(cost, seen))
		return p, true
	}
	return p, seen.Usage || !r.request.IncludeUsage
}

// close plans the end of an answer that lacks its finish reason, which follows from what there is.
func (r *run) close(p plan, seen openai.Seen, finish string) plan {
	chunk := finished([]string{finish})
	p.closing = []Event{{Data: r.chunk(seen, chunk), Chunk: chunk}, r.usageEvent(p.before, seen)}
	return p
}

// usageEvent tells what the answer cost, and the caller too if it asked for it and does not know.
func (r *run) usageEvent(u *spending, seen openai.Seen) Event {
	told := schemas.Usage{PromptTokens: u.prompt, CompletionTokens: u.output, TotalTokens: u.prompt + u.output}
	data, err := told.MarshalJSON()
	if err != nil {
		return Event{Chunk: &openai.Chunk{}}
	}
	event := Event{Chunk: &openai.Chunk{Usage: string(data)}}
	if r.request.IncludeUsage && !seen.Usage {
		event.Data = r.chunk(seen, event.Chunk)
	}
	return event
}

func (r *run) chunk(seen openai.Seen, c *openai.Chunk) []byte {
	if r.op == schemas.OpCompletion {
		return openai.AppendTextChunk(nil, r.origin(seen), c)
	}
	return openai.AppendChatChunk(nil, r.origin(seen), c)
}

// finished says how the choices of an answer ended.
func finished(reasons []string) *openai.Chunk {
	c := &openai.Chunk{}
	for i, reason := range reasons {
		c.Choices = append(c.Choices, openai.Choice{Index: i, Finish: reason})
	}
	return c
}
