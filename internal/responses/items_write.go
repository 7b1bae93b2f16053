package responses

import (
	"strings"

	"github.com/tidwall/gjson"
)

// event is the name of the events about the text of a part, less their last word.
func (k partKind) event() string {
	switch k {
	case partRefusal:
		return "response.refusal"
	case partReasoning:
		return "response.reasoning_text"
	case partSummary:
		return "response.reasoning_summary_text"
	}
	return "response.output_text"
}

// partEvent is the name of the events about a part itself, less their last word.
func (k partKind) partEvent() string {
	if k == partSummary {
		return "response.reasoning_summary_part"
	}
	return "response.content_part"
}

// indexName is the member of an event that says which part it is about.
func (k partKind) indexName() string {
	if k == partSummary {
		return "summary_index"
	}
	return "content_index"
}

// append writes the part as it stands.
func (pt *part) append(dst []byte) []byte {
	switch pt.kind {
	case partRefusal:
		return append(appendString(append(dst, `{"type":"refusal","refusal":`...), pt.text), '}')
	case partReasoning:
		return append(appendString(append(dst, `{"type":"reasoning_text","text":`...), pt.text), '}')
	case partSummary:
		return append(appendString(append(dst, `{"type":"summary_text","text":`...), pt.text), '}')
	}
	dst = appendString(append(dst, `{"type":"output_text","text":`...), pt.text)
	dst = append(append(dst, `,"annotations":[],"logprobs":[`...), pt.logProbs...)
	return append(dst, "]}"...)
}

// append writes the item as it stands.
func (it *item) append(dst []byte) []byte {
	dst = append(append(dst, `{"id":"`...), it.id...)
	switch it.kind {
	case itemMessage:
		dst = it.appendStatus(append(dst, `","type":"message","role":"assistant"`...))
		dst = it.appendParts(append(dst, `,"content":[`...), partText, partRefusal)
	case itemReasoning:
		dst = it.appendStatus(append(dst, `","type":"reasoning"`...))
		dst = it.appendParts(append(dst, `,"summary":[`...), partSummary)
		dst = it.appendParts(append(dst, `],"content":[`...), partReasoning)
	case itemCall:
		dst = it.appendStatus(append(dst, `","type":"function_call"`...))
		dst = appendString(append(dst, `,"call_id":`...), it.callID)
		dst = appendString(append(dst, `,"name":`...), it.name)
		dst = appendString(append(dst, `,"arguments":`...), it.arguments)
		return append(dst, '}')
	}
	return append(dst, "]}"...)
}

func (it *item) appendStatus(dst []byte) []byte {
	return append(append(append(dst, `,"status":"`...), it.status...), '"')
}

func (it *item) appendParts(dst []byte, kinds ...partKind) []byte {
	first := true
	for _, pt := range it.parts {
		for _, kind := range kinds {
			if pt.kind != kind {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			dst, first = pt.append(dst), false
		}
	}
	return dst
}

// inside is what stands between the brackets of a JSON array.
func inside(array gjson.Result) string {
	if !array.IsArray() {
		return ""
	}
	return strings.TrimSpace(array.Raw[1 : len(array.Raw)-1])
}
