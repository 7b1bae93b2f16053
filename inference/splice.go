package inference

import (
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// splicer joins a run to what is visible of those before it. It is made anew for every call.
type splicer interface {
	// blank reports whether nothing is visible but that an answer began, so that any other may take its place.
	blank() bool

	// seen is the text that is visible; false when there is none that could be gone on with.
	seen() (openai.Seen, bool)

	// goOn makes it join a run that goes on from what is visible instead of beginning again: exactly from there, or, as
	// servers do that are given text, from there but for the white space at the end.
	goOn(exact bool)

	// events are what is not visible yet of those of the run.
	events(said) said
}

// chunkSplicer joins runs that are said in chunks.
type chunkSplicer struct {
	*openai.Splicer
	left   *openai.Chunk // what is left of an event that was spliced
	before *spending     // of a run that goes on
}

func newChunkSplicer(visible seen, before *spending) (splicer, error) {
	s, err := openai.NewSplicer(visible)
	return &chunkSplicer{s, &openai.Chunk{}, before}, err
}

func (s *chunkSplicer) blank() bool               { return s.Blank() }
func (s *chunkSplicer) seen() (openai.Seen, bool) { return s.Seen() }
func (s *chunkSplicer) goOn(exact bool)           { s.GoOn(exact) }

func (s *chunkSplicer) events(generate said) said {
	return func(yield func(Event, error) bool) {
		for event, err := range generate {
			if err == nil {
				event, err = s.next(event)
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
		if err := s.Done(); err != nil {
			yield(Event{}, diverged(err))
		}
	}
}

// next takes from an event what readers have seen; what is left may be nothing.
func (s *chunkSplicer) next(event Event) (Event, error) {
	if len(event.Data) == 0 {
		if s.before != nil && event.Chunk.Usage != "" { // nobody but the pipeline wants to know
			*s.left = *event.Chunk
			s.left.Usage = s.before.plus(event.Chunk.Usage)
			event.Chunk = s.left
		}
		return event, nil
	}
	data, keep, err := s.Next(event.Data)
	if err != nil {
		return Event{}, diverged(err)
	}
	data = s.before.added(data, event.Chunk)
	if event.Data = data; !keep {
		event.Data = nil
		s.forget(event.Chunk)
		s.left.Usage = s.before.plus(s.left.Usage)
	} else if err := s.left.Peek(data); err != nil {
		return Event{}, diverged(err)
	}
	event.Chunk = s.left
	return event, nil
}

// forget keeps of an event that readers have seen how its choices ended and what it cost.
func (s *chunkSplicer) forget(c *openai.Chunk) {
	*s.left = openai.Chunk{Usage: c.Usage, Model: c.Model, Choices: s.left.Choices[:0]}
	for i := range c.Choices {
		s.left.Choices = append(s.left.Choices, openai.Choice{Index: c.Choices[i].Index, Finish: c.Choices[i].Finish})
	}
}

// messageSplicer joins runs of a server that speaks the messages dialect itself.
type messageSplicer struct {
	*anthropic.Splicer
	before *spending // of a run that goes on
	left   openai.Chunk
	choice [1]openai.Choice
}

func newMessageSplicer(visible seen, before *spending) (splicer, error) {
	s, err := anthropic.NewSplicer(visible)
	return &messageSplicer{Splicer: s, before: before}, err
}

func (s *messageSplicer) blank() bool               { return s.Blank() }
func (s *messageSplicer) seen() (openai.Seen, bool) { return s.Seen() }
func (s *messageSplicer) goOn(bool)                 { s.GoOn(s.before.prompt, s.before.output) }

func (s *messageSplicer) events(generate said) said {
	return func(yield func(Event, error) bool) {
		for event, err := range generate {
			if err != nil {
				yield(event, err)
				return
			}
			if !s.pass(event, yield) {
				return
			}
		}
		if err := s.Done(); err != nil {
			yield(Event{}, diverged(err))
		}
	}
}

// pass passes on what is left of an event. All of it leaves together.
func (s *messageSplicer) pass(event Event, yield func(Event, error) bool) bool {
	var made [][]byte
	if len(event.Data) > 0 {
		var err error
		if made, err = s.Next(event.Data); err != nil {
			yield(Event{}, diverged(err))
			return false
		}
	}
	if len(made) == 0 {
		s.say(event.Chunk, nil)
		return yield(Event{Chunk: &s.left, LeftOut: event.LeftOut, More: event.More}, nil)
	}
	for i, data := range made {
		s.say(event.Chunk, data)
		if !yield(Event{Data: data, Chunk: &s.left, LeftOut: event.LeftOut, More: event.More || i < len(made)-1}, nil) {
			return false
		}
		event.LeftOut = 0
	}
	return true
}

// say says of an event what is left of it.
func (s *messageSplicer) say(c *openai.Chunk, left []byte) {
	s.left = *c
	s.left.Usage = s.before.plus(c.Usage)
	if len(c.Choices) == 0 {
		return
	}
	s.choice[0] = c.Choices[0]
	s.left.Choices = s.choice[:]
	if s.choice[0].Content != "" || s.choice[0].Reasoning != "" {
		delta := gjson.GetBytes(left, "delta")
		s.choice[0].Content, s.choice[0].Reasoning = delta.Get("text").Str, delta.Get("thinking").Str
	}
}

func diverged(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeStreamDiverged, "the answer was cut and the model, run again, said something else; send the request again").WithCause(err)
}
