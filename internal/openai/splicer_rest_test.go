package openai

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// What a run that goes on says is joined to what readers have; one that does not go on is found out before they see it.
func TestSplicerGoesOn(t *testing.T) {
	t.Parallel()
	const long = "It was the best of times, it was the worst of times"
	for name, c := range map[string]struct {
		seen  string
		exact bool
		said  []string
		want  string
		err   bool
	}{
		"as it is":                   {"one two", false, []string{" three"}, " three", false},
		"white space again":          {"one two ", false, []string{" three"}, "three", false},
		"white space in two":         {"one two\n\n", false, []string{"\n", "\nthree"}, "three", false},
		"other white space":          {"one two ", false, []string{"\nthree"}, "", true},
		"no white space":             {"one two ", false, []string{"three"}, "", true},
		"the end at once":            {"one two ", false, nil, "", false},
		"exact, without white space": {"one two ", true, []string{"three"}, "three", false},
		"exact, the same again":      {long, true, []string{long}, long, false},
		"the beginning again":        {long, false, []string{long[:30], long[30:]}, "", true},
		"a short beginning again":    {"one two", false, []string{" one", " two"}, " one two", false},
		"words of the beginning":     {long, false, []string{"It was", " not"}, "It was not", false},
		"a refrain":                  {long + "." + long + ".", false, []string{long[:30], long[30:], "."}, long + ".", false},
		"they are the end":           {long, false, []string{"It was"}, "It was", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := NewSplicer(func(yield func(uint64, []byte) bool) {
				_ = yield(0, fmt.Appendf(nil, `{"id":"a","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`)) &&
					yield(1, fmt.Appendf(nil, `{"id":"a","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q}}]}`, c.seen))
			})
			if err != nil {
				t.Fatal(err)
			}
			if seen, ok := s.Seen(); !ok || seen.Content != c.seen || seen.Origin.ID != `"a"` {
				t.Fatalf("seen %+v", seen)
			}
			s.GoOn(c.exact)
			events := []string{`{"id":"b","created":2,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`}
			for _, text := range c.said {
				events = append(events, fmt.Sprintf(`{"id":"b","created":2,"model":"m","choices":[{"index":0,"delta":{"content":%q}}]}`, text))
			}
			events = append(events, `{"id":"b","created":2,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
			got, finish := "", ""
			for _, event := range events {
				data, keep, err := s.Next([]byte(event))
				if err != nil {
					if !c.err || !errors.Is(err, ErrDiverged) || got != "" {
						t.Errorf("after %q: %v", got, err)
					}
					return
				}
				if !keep {
					continue
				}
				if gjson.GetBytes(data, "id").Str != "a" || gjson.GetBytes(data, "choices.0.delta.role").Exists() {
					t.Errorf("readers are shown %s", data)
				}
				got += gjson.GetBytes(data, "choices.0.delta.content").Str
				finish = gjson.GetBytes(data, "choices.0.finish_reason").Str
			}
			if c.err || got != c.want || finish != "stop" || s.Done() != nil {
				t.Errorf("got %q that ends with %q, %v; want %q", got, finish, s.Done(), c.want)
			}
		})
	}
}

func TestRestOfRequests(t *testing.T) {
	t.Parallel()
	const chat = `{"model":"m","max_tokens":10,"temperature":0.5,"stream":true,"stop":null,"user":"u","messages":[{"role":"user","content":"hi"}],"tools":[],"min_tokens":4}`
	body, err := RestOfChat([]byte(chat), "a \"b\"", 3)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"add_generation_prompt":false,"continue_final_message":true,"model":"m","max_tokens":7,"temperature":0.5,"stream":true,"stop":null,"user":"u","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a \"b\""}],"tools":[],"min_tokens":1}`; string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if got, want := string(RestOfTokens([]byte(chat), []int64{1, 2}, 3)), `{"add_special_tokens":false,"prompt":[1,2],"model":"m","temperature":0.5,"stream":true,"stop":null,"user":"u","min_tokens":1,"max_tokens":7}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(RestOfTokens([]byte(`{"model":"m","messages":[]}`), []int64{1}, 3)); !strings.HasSuffix(got, `"max_tokens":null}`) {
		t.Errorf("without a limit it has one: %s", got)
	}
	for _, own := range []string{
		`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`, `{"messages":[{"role":"user","content":"a"}],"continue_final_message":false}`,
	} {
		if _, err := RestOfChat([]byte(own), "x", 0); err == nil {
			t.Errorf("%s was gone on with", own)
		}
	}
	body, err = RestOfCompletion([]byte(`{"prompt":"a","max_tokens":1}`), "b", 3)
	if err != nil || string(body) != `{"prompt":"ab","max_tokens":1}` {
		t.Errorf("%s, %v", body, err)
	}
	for _, own := range []string{`{"prompt":[1,2]}`, `{"prompt":"a","suffix":"b"}`, `{"prompt":"a","echo":true}`} {
		if _, err := RestOfCompletion([]byte(own), "x", 0); err == nil {
			t.Errorf("%s was gone on with", own)
		}
	}
	for text, want := range map[string]bool{"ab": false, "a<": true, "a<end": true, "abz": true, "a<end>": true, "<en d": false} {
		if got := Straddles(text, Stops([]byte(`{"stop":["<end>x","zz"]}`))); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
