package responses

import (
	"encoding/json"
	"strconv"

	"github.com/tidwall/gjson"
)

// itemKind is what an output item is.
type itemKind int

const (
	itemMessage itemKind = iota
	itemReasoning
	itemCall
)

// item is one element of a response's output.
type item struct {
	kind   itemKind
	id     string
	index  int // in the output
	status string
	closed bool

	parts []*part // of a message or of reasoning

	callID, name string
	arguments    []byte
}

// partKind is what a part of an item's content is.
type partKind int

const (
	partText partKind = iota
	partRefusal
	partReasoning
	partSummary
)

// part is a piece of an item's content.
type part struct {
	kind     partKind
	index    int // among the parts of its item
	text     []byte
	logProbs []byte // elements
	closed   bool
}

// add opens an item.
func (p *Player) add(kind itemKind, prefix string) *item {
	it := &item{kind: kind, index: len(p.items), status: statusInProgress}
	it.id = prefix + p.id + "_" + strconv.Itoa(it.index)
	p.items = append(p.items, it)
	return it
}

func (p *Player) added(it *item) {
	if p.begin("response.output_item.added") {
		p.number("output_index", it.index)
		p.out = it.append(append(p.out, `,"item":`...))
		p.close()
	}
}

// say adds text to the part that it belongs to, which it opens when it must.
func (p *Player) say(kind partKind, text, logProbs string) {
	pt := p.partOf(kind)
	pt.text = append(pt.text, text...)
	var elements string
	if logProbs != "" {
		elements = inside(gjson.Get(logProbs, "content"))
		if len(pt.logProbs) > 0 && elements != "" {
			pt.logProbs = append(pt.logProbs, ',')
		}
		pt.logProbs = append(pt.logProbs, elements...)
	}
	if p.of(pt.kind.event()+".delta", p.text) {
		p.number(pt.kind.indexName(), pt.index)
		p.out = appendString(append(p.out, `,"delta":`...), text)
		if pt.kind == partText {
			p.out = append(append(append(p.out, `,"logprobs":[`...), elements...), ']')
		}
		p.close()
	}
}

// partOf gives the open part of a kind.
func (p *Player) partOf(kind partKind) *part {
	wanted := itemMessage
	if kind == partReasoning || kind == partSummary {
		wanted = itemReasoning
	}
	if p.text != nil && p.text.kind != wanted {
		p.closeItem(p.text)
	}
	if p.text == nil {
		p.closeCalls(false)
		prefix := "msg_"
		if wanted == itemReasoning {
			prefix = "rs_"
		}
		p.text = p.add(wanted, prefix)
		p.added(p.text)
	}
	it := p.text
	if n := len(it.parts); n > 0 {
		if last := it.parts[n-1]; last.kind == kind {
			return last
		}
		p.closePart(it, it.parts[n-1])
	}
	pt := &part{kind: kind, index: len(it.parts)}
	it.parts = append(it.parts, pt)
	if p.of(kind.partEvent()+".added", it) {
		p.number(kind.indexName(), pt.index)
		p.out = pt.append(append(p.out, `,"part":`...))
		p.close()
	}
	return pt
}

// call adds to a tool call. The calls of a chat may come in turns, so one that is begun stays open while more of its
// arguments may come.
func (p *Player) call(position int, delta gjson.Result) {
	if index := delta.Get("index"); index.Type == gjson.Number {
		position = int(index.Num)
	}
	id, name, arguments := delta.Get("id").Str, delta.Get("function.name").Str, delta.Get("function.arguments").Str
	it := p.calls[position]
	another := it != nil && id != it.callID && id+name != ""
	switch {
	case it == nil, another && (it.closed || it.whole()): // some servers give every call the same place
		it = p.addCall(position, id, name)
	case it.closed:
		return // white space behind its arguments
	case it.name == "":
		it.name = name
	}
	if arguments == "" {
		return
	}
	it.arguments = append(it.arguments, arguments...)
	if p.of("response.function_call_arguments.delta", it) {
		p.out = appendString(append(p.out, `,"delta":`...), arguments)
		p.close()
	}
}

func (p *Player) addCall(position int, id, name string) *item {
	if p.text != nil {
		p.closeItem(p.text)
	}
	p.closeCalls(false)
	it := p.add(itemCall, "fc_")
	it.callID, it.name = id, name
	if id == "" { // some servers give none
		it.callID = "call_" + p.id + "_" + strconv.Itoa(it.index)
	}
	if p.calls == nil {
		p.calls = make(map[int]*item)
	}
	p.calls[position], p.running = it, append(p.running, it)
	p.added(it)
	return it
}

// whole reports whether the arguments of a call are an object that has its end. They may nest as deep as a model likes,
// and the check does not go down with them.
func (it *item) whole() bool {
	return len(it.arguments) > 0 && it.arguments[0] == '{' && json.Valid(it.arguments)
}

// closeCalls closes the tool calls whose arguments are whole, or all of them.
func (p *Player) closeCalls(all bool) {
	still := p.running[:0]
	for _, it := range p.running {
		if all || it.whole() {
			p.closeItem(it)
		} else {
			still = append(still, it)
		}
	}
	p.running = still
}

func (p *Player) closeAll() {
	if p.text != nil {
		p.closeItem(p.text)
	}
	p.closeCalls(true)
}

func (p *Player) closeItem(it *item) {
	if it == p.text {
		p.text = nil
		p.closePart(it, it.parts[len(it.parts)-1])
	}
	if it.kind == itemCall && p.of("response.function_call_arguments.done", it) {
		p.out = appendString(append(p.out, `,"name":`...), it.name)
		p.out = appendString(append(p.out, `,"arguments":`...), it.arguments)
		p.close()
	}
	it.closed, it.status = true, statusCompleted
	if p.incomplete() != "" {
		it.status = statusIncomplete
	}
	if p.begin("response.output_item.done") {
		p.number("output_index", it.index)
		p.out = it.append(append(p.out, `,"item":`...))
		p.close()
	}
}

func (p *Player) closePart(it *item, pt *part) {
	if pt.closed {
		return
	}
	pt.closed = true
	if p.of(pt.kind.event()+".done", it) {
		p.number(pt.kind.indexName(), pt.index)
		name := `,"text":`
		if pt.kind == partRefusal {
			name = `,"refusal":`
		}
		p.out = appendString(append(p.out, name...), pt.text)
		if pt.kind == partText {
			p.out = append(append(append(p.out, `,"logprobs":[`...), pt.logProbs...), ']')
		}
		p.close()
	}
	if p.of(pt.kind.partEvent()+".done", it) {
		p.number(pt.kind.indexName(), pt.index)
		p.out = pt.append(append(p.out, `,"part":`...))
		p.close()
	}
}
