package responses

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// begin opens an event and reports whether it is written at all.
func (p *Player) begin(kind string) bool {
	p.writing = p.next > p.after
	if p.writing {
		p.out = append(append(p.out, "event: "...), kind...)
		p.out = append(append(p.out, "\ndata: {\"type\":\""...), kind...)
		p.out = append(p.out, `","sequence_number":`...)
		p.out = strconv.AppendInt(p.out, p.next, 10)
	}
	p.next++
	return p.writing
}

// close ends an event.
func (p *Player) close() { p.out = append(p.out, "}\n\n"...) }

// lifecycle writes an event that carries the response as it stands.
func (p *Player) lifecycle(kind string) {
	if p.begin(kind) {
		p.out = p.AppendResponse(append(p.out, `,"response":`...))
		p.close()
	}
}

// of begins an event about an item.
func (p *Player) of(kind string, it *item) bool {
	if !p.begin(kind) {
		return false
	}
	p.out = append(append(append(p.out, `,"item_id":"`...), it.id...), '"')
	p.number("output_index", it.index)
	return true
}

func (p *Player) number(name string, n int) {
	p.out = append(append(append(p.out, `,"`...), name...), `":`...)
	p.out = strconv.AppendInt(p.out, int64(n), 10)
}

// AppendResponse writes the response object as it stands.
func (p *Player) AppendResponse(dst []byte) []byte {
	dst = append(append(append(dst, `{"id":"`...), idPrefix...), p.id...)
	dst = append(dst, `","object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, p.created, 10)
	dst = append(append(append(dst, `,"status":"`...), p.status...), `","error":`...)
	if p.failure == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendString(append(dst, `{"code":`...), p.failure.Code)
		dst = append(appendString(append(dst, `,"message":`...), p.failure.Message), '}')
	}
	dst = append(dst, `,"incomplete_details":`...)
	if reason := p.incomplete(); reason != "" && p.status == statusIncomplete {
		dst = append(append(append(dst, `{"reason":"`...), reason...), `"}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = p.AppendOutput(append(dst, `,"output":`...))
	dst = append(p.appendUsage(append(dst, `,"usage":`...)), p.request.echo...)
	return append(dst, '}')
}

// AppendOutput writes the array of what the model said so far.
func (p *Player) AppendOutput(dst []byte) []byte {
	dst = append(dst, '[')
	for i, it := range p.items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = it.append(dst)
	}
	return append(dst, ']')
}

// appendUsage writes the usage of a chat in the words of a response. Only a response that has ended has one.
func (p *Player) appendUsage(dst []byte) []byte {
	if p.usage == "" || p.status == statusInProgress {
		return append(dst, "null"...)
	}
	usage := gjson.Parse(p.usage)
	number := func(name, path string) {
		dst = append(dst, name...)
		dst = strconv.AppendInt(dst, usage.Get(path).Int(), 10)
	}
	number(`{"input_tokens":`, "prompt_tokens")
	number(`,"input_tokens_details":{"cached_tokens":`, "prompt_tokens_details.cached_tokens")
	number(`},"output_tokens":`, "completion_tokens")
	number(`,"output_tokens_details":{"reasoning_tokens":`, "completion_tokens_details.reasoning_tokens")
	number(`},"total_tokens":`, "total_tokens")
	return append(dst, '}')
}
