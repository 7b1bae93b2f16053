package inference_test

import (
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

func TestStreamedAnswer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: []string{"one ", "two ", "three"}})
	id := p.send("r1", greedy)
	if got := p.read(id); got.text != "one two three" || got.terminal.Kind != schemas.KindEnd {
		t.Fatalf("got %q, %+v", got.text, got.terminal)
	}
	r := p.ended(id)
	if r.Status != schemas.StatusCompleted || len(r.Tries) != 1 || r.Tries[0].Outcome != "" || len(r.FinishReasons) != 1 || r.Events.Count != 4 {
		t.Fatalf("%+v", r)
	}
	if start := p.chain(id).Start(); start.Start.Worker != "w1" || start.Start.Mode != schemas.ModeFresh || start.BodyHash != schemas.BodyHash([]byte(greedy)) {
		t.Errorf("start %+v", start)
	}
}

func TestUnaryAnswer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: []string{"one ", "two"}})
	id := p.send("r1", whole)
	got := p.read(id)
	if got.terminal.Count != 1 || string(got.terminal.Data) != string(unary("one two")) {
		t.Fatalf("%+v", got.terminal)
	}
	if r := p.ended(id); string(r.Response) != string(got.terminal.Data) || r.Events != nil || len(r.FinishReasons) != 1 {
		t.Errorf("%+v", r)
	}
	if n := len(p.chain(id).Frames); n != 2 {
		t.Errorf("a unary answer took %d frames", n)
	}
}

func TestEmbedding(t *testing.T) {
	t.Parallel()
	p := setup(t)
	const response = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,2]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}`
	p.worker("w1", &fake{whole: []byte(response)})
	w := work("r1", 1, `{"model":"m","input":"hi"}`)
	w.Op = schemas.OpEmbedding
	p.dispatch(w)
	if got := p.read(w.Identity); got.terminal.Count != 1 || string(got.terminal.Data) != response {
		t.Fatalf("%+v", got.terminal)
	}
	r := p.ended(w.Identity)
	if r.Op != schemas.OpEmbedding || string(r.Response) != response || r.Usage == nil || r.Usage.PromptTokens != 3 || len(r.Tries) != 1 || r.Tries[0].Outcome != "" {
		t.Errorf("%+v", r)
	}
}

func TestEmbeddingThatIsNone(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{whole: []byte(`[]`)}, model(func(m *inference.Model) { m.Retry.MaxTries = 1 }))
	w := work("r1", 1, `{"model":"m","input":"hi"}`)
	w.Op = schemas.OpEmbedding
	p.dispatch(w)
	if got := p.read(w.Identity); got.code() != schemas.CodeUpstreamError {
		t.Errorf("%+v", got.terminal)
	}
	p.ended(w.Identity)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: &fake{}, MaxInFlight: 1}}}}
	for name, cfg := range map[string]inference.Config{
		"no bus":      {Name: "w", Models: good},
		"no name":     {Bus: &bus.Bus{}, Models: good},
		"a bad name":  {Bus: &bus.Bus{}, Name: "a.b", Models: good},
		"no models":   {Bus: &bus.Bus{}, Name: "w"},
		"no backends": {Bus: &bus.Bus{}, Name: "w", Models: map[string]inference.Model{"m": {}}},
		"no slots":    {Bus: &bus.Bus{}, Name: "w", Models: map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: &fake{}}}}}},
		"a bad model": {Bus: &bus.Bus{}, Name: "w", Models: map[string]inference.Model{"": good["m"]}},
	} {
		if _, err := inference.New(cfg); err == nil {
			t.Errorf("%s: New accepted it", name)
		}
	}
}
