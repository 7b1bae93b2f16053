package responses

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// Continue gives the body of a request that goes on from an earlier response: the earlier input, then what the model said
// (an array of items, as [Player.AppendOutput] writes it), then its own input. Since the earlier input begins with what
// came before in the same way, one response is the whole conversation. Instructions are not carried over.
func Continue(earlier, output, body []byte) []byte {
	out := make([]byte, 0, len(earlier)+len(output)+len(body))
	out = append(out, '{')
	gjson.ParseBytes(body).ForEach(func(name, value gjson.Result) bool {
		if len(out) > 1 {
			out = append(out, ',')
		}
		switch name.Str {
		case "input":
			out = append(out, `"input":[`...)
			items := appendItems(nil, gjson.GetBytes(earlier, "input"))
			items = appendItems(items, gjson.ParseBytes(output))
			out = append(append(out, appendItems(items, value)...), ']')
		case "previous_response_id":
			out = append(append(out, `"`+memberContinues+`":`...), value.Raw...)
		default:
			out = append(append(append(out, name.Raw...), ':'), value.Raw...)
		}
		return true
	})
	return append(out, '}')
}

// appendItems adds the items of an input to a list, with commas between them.
func appendItems(list []byte, input gjson.Result) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	if input.Type == gjson.String {
		return append(append(append(list, `{"role":"user","content":`...), input.Raw...), '}')
	}
	items := inside(input)
	if items == "" && len(list) > 0 {
		return list[:len(list)-1]
	}
	return append(list, items...)
}

// InputItems are the items of a request's input in the form in which the API lists them: each with an id, and messages
// with parts. The items have ids of their own that follow from the request's.
func InputItems(request string, body []byte) (items [][]byte, ids []string) {
	input := gjson.GetBytes(oneLine(body), "input")
	if input.Type == gjson.String {
		input = gjson.Parse(`[{"role":"user","content":` + input.Raw + `}]`)
	}
	i := 0
	input.ForEach(func(_, item gjson.Result) bool {
		id := item.Get("id").Str
		if id == "" {
			id = "in_" + request + "_" + strconv.Itoa(i)
		}
		items, ids = append(items, inputItem(id, item)), append(ids, id)
		i++
		return true
	})
	return items, ids
}

func inputItem(id string, item gjson.Result) []byte {
	b := appendString([]byte(`{"id":`), id)
	kind := item.Get("type")
	if !kind.Exists() {
		b = append(b, `,"type":"message"`...)
	}
	message := !kind.Exists() || kind.Str == "message"
	if message && !item.Get("status").Exists() {
		b = append(b, `,"status":"completed"`...)
	}
	item.ForEach(func(name, value gjson.Result) bool {
		if name.Str == "id" {
			return true
		}
		b = append(append(append(b, ','), name.Raw...), ':')
		if name.Str == "content" && message && value.Type == gjson.String {
			part := "input_text"
			if item.Get("role").Str == "assistant" {
				part = "output_text"
			}
			b = append(append(b, `[{"type":"`+part+`","text":`...), value.Raw...)
			b = append(b, "}]"...)
			return true
		}
		b = append(b, value.Raw...)
		return true
	})
	return append(b, '}')
}
