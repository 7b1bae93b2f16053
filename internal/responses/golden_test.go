package responses

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenCase is a file of sections, each after a line `-- name --`.
type goldenCase struct {
	path  string
	order []string
	parts map[string]string
}

func goldenCases(t testing.TB, folder string) map[string]*goldenCase {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases in testdata/%s: %v", folder, err)
	}
	cases := make(map[string]*goldenCase)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		c, name := &goldenCase{path: path, parts: make(map[string]string)}, "comment"
		c.order = []string{name}
		for line := range strings.Lines(string(data)) {
			if title, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok {
				name = strings.TrimSuffix(title, " --")
				c.order = append(c.order, name)
				continue
			}
			c.parts[name] += line
		}
		cases[strings.TrimSuffix(filepath.Base(path), ".txt")] = c
	}
	return cases
}

// wants compares a section, or writes it anew.
func (c *goldenCase) wants(t *testing.T, name, got string) {
	t.Helper()
	if !*update {
		if diff := cmp.Diff(c.parts[name], got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		return
	}
	if c.parts[name] = got; got == "" {
		return
	}
	if !strings.Contains(strings.Join(c.order, "\n"), name) {
		c.order = append(c.order, name)
	}
	var text strings.Builder
	text.WriteString(c.parts["comment"])
	for _, name := range c.order[1:] {
		text.WriteString("-- " + name + " --\n" + c.parts[name])
	}
	if err := os.WriteFile(c.path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *goldenCase) lines(name string) []string {
	return strings.Split(strings.TrimSpace(c.parts[name]), "\n")
}

// TestEvents plays the chunks of each case. The section ending holds an error object, or nothing for an answer that is
// whole.
func TestEvents(t *testing.T) {
	t.Parallel()
	for name, c := range goldenCases(t, "events") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := NewPlayer("r1", parse(t, c.parts["body"]), FromStart)
			var out []byte
			for _, f := range c.frames() {
				out = appendFrame(t, p, out, f)
			}
			c.wants(t, "events", string(out))
			c.wants(t, "response", string(p.AppendResponse(nil))+"\n")
		})
	}
}

// frames are the chain of a case, with one chunk in each frame.
func (c *goldenCase) frames() []*schemas.Frame { return framesOf(c.lines("chunks"), c.ending(), one) }

func (c *goldenCase) ending() *schemas.Frame {
	if text := strings.TrimSpace(c.parts["ending"]); text != "" {
		return &schemas.Frame{Kind: schemas.KindError, Data: []byte(text)}
	}
	return &schemas.Frame{Kind: schemas.KindEnd, Data: []byte(`{"status":"completed","attempts":1}`)}
}

// TestConvert converts the body of each case. A case with a section error is refused so.
func TestConvert(t *testing.T) {
	t.Parallel()
	for name, c := range goldenCases(t, "convert") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, body := range c.lines("bodies") {
				chat, err := toChat([]byte(body))
				got := ""
				if err != nil {
					got = string(schemas.AsError(err).Encode())
				} else {
					got = string(chat.Body)
				}
				want := ""
				if list := c.lines("chats"); i < len(list) {
					want = list[i]
				}
				if !*update && got != want {
					t.Errorf("body %d: %s\n got %s\nwant %s", i, body, got, want)
				}
			}
			if *update {
				var all strings.Builder
				for _, body := range c.lines("bodies") {
					if chat, err := toChat([]byte(body)); err != nil {
						all.WriteString(string(schemas.AsError(err).Encode()) + "\n")
					} else {
						all.WriteString(string(chat.Body) + "\n")
					}
				}
				c.wants(t, "chats", all.String())
			}
		})
	}
}

// toChat does what the door and the worker do with a body.
func toChat(body []byte) (*openai.Request, error) {
	parsed, err := openai.ParseRequest(schemas.OpResponses, body, openai.Policy{})
	if err != nil {
		return nil, err
	}
	if _, err := Parse(parsed.Body); err != nil {
		return nil, err
	}
	return ToChat(parsed, openai.Policy{})
}

// member is a string member of an object.
func member(object, name string) string { return gjson.Get(object, name).Str }
