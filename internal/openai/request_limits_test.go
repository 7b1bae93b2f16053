package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

// list is a JSON array of n times the same.
func list(n int, element string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

func TestRequestLimits(t *testing.T) {
	t.Parallel()
	messages := func(n int) string { return `{"model":"m","messages":` + list(n, `{"role":"user"}`) + `}` }
	tools := func(name string) func(n int) string {
		return func(n int) string { return with(`"` + name + `":` + list(n, `{"type":"function"}`)) }
	}
	depth := func(n int) string { return with(`"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1)) }
	for name, c := range map[string]struct {
		body  func(n int) string
		most  int
		param string
		code  schemas.Code
	}{
		"messages":  {messages, MaxMessages, "messages", schemas.CodeInvalidValue},
		"tools":     {tools("tools"), MaxTools, "tools", schemas.CodeInvalidValue},
		"functions": {tools("functions"), MaxTools, "functions", schemas.CodeInvalidValue},
		"depth":     {depth, MaxDepth, "", schemas.CodeInvalidJSON},
	} {
		if _, err := ParseRequest(schemas.OpChat, []byte(c.body(c.most)), Policy{}); err != nil {
			t.Errorf("%s at the limit: %v", name, err)
		}
		_, err := ParseRequest(schemas.OpChat, []byte(c.body(c.most+1)), Policy{})
		e := schemas.AsError(err)
		if err == nil || e.Code != c.code || e.Param != c.param || !strings.Contains(e.Message, fmt.Sprint(c.most)) {
			t.Errorf("%s beyond the limit: %v", name, err)
		}
	}
}
