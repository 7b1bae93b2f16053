package responses

import "github.com/tidwall/gjson"

// addTools converts function tools. Tools that a vendor would run beside its models are none that we could.
func (c *converter) addTools(list gjson.Result) (err error) {
	if !given(list) {
		return nil
	}
	if !list.IsArray() {
		return invalid("tools", "must be an array")
	}
	b := []byte{'['}
	list.ForEach(func(_, tool gjson.Result) bool {
		at := element("tools", c.tools)
		if kind := tool.Get("type"); kind.Str != "function" {
			err = unsupported(at, "is of type %.40q: only \"function\" tools can be used here; run other tools yourself and offer them as functions", kind.String())
			return false
		}
		if name := tool.Get("name"); name.Type != gjson.String || name.Str == "" {
			err = invalid(at+".name", "must be the name of the function")
			return false
		}
		if c.tools > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"type":"function","function":`...), without(tool, "type")...), '}')
		c.tools++
		return true
	})
	if err == nil && c.tools > 0 {
		c.add("tools", string(append(b, ']')))
	}
	return err
}

// toolChoice converts what may be said of tools. Chat completions refuse it where there are none, responses do not.
func (c *converter) toolChoice() error {
	if c.tools > 0 && given(c.parallel) {
		c.add("parallel_tool_calls", c.parallel.Raw)
	}
	switch kind := c.choice.Get("type").Str; {
	case !given(c.choice):
	case c.choice.Type == gjson.String:
		if c.tools > 0 || c.choice.Str != "auto" && c.choice.Str != "none" {
			c.add("tool_choice", c.choice.Raw)
		}
	case kind == "function":
		c.add("tool_choice", string(chosenFunction(c.choice)))
	case kind == "allowed_tools":
		return c.allowedTools()
	default:
		return unsupported("tool_choice", "must be \"none\", \"auto\", \"required\", a function or allowed_tools: only \"function\" tools can be used here")
	}
	return nil
}

func (c *converter) allowedTools() (err error) {
	b := []byte(`{"type":"allowed_tools","allowed_tools":{"mode":`)
	if mode := c.choice.Get("mode"); mode.Type == gjson.String {
		b = append(b, mode.Raw...)
	} else {
		b = append(b, `"auto"`...)
	}
	b = append(b, `,"tools":[`...)
	i := 0
	c.choice.Get("tools").ForEach(func(_, tool gjson.Result) bool {
		if tool.Get("type").Str != "function" {
			err = unsupported(element("tool_choice.tools", i), "is no \"function\" tool, and no other can be used here")
			return false
		}
		if i++; i > 1 {
			b = append(b, ',')
		}
		b = append(b, chosenFunction(tool)...)
		return true
	})
	c.add("tool_choice", string(append(b, "]}}"...)))
	return err
}

func chosenFunction(tool gjson.Result) []byte {
	return append(append([]byte(`{"type":"function","function":`), without(tool, "type")...), '}')
}
