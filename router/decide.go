package router

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// action is what becomes of a request that was understood.
type action int

const (
	dispatchNow   action = iota // its model has room and nobody waits before it
	waitForRoom                 // in the queue, until there is room or its deadline passes
	waitForLimits               // in the queue, until its tenant's limits allow it and there is room
	answerNow                   // with the verdict's error
)

type verdict struct {
	action action
	err    *schemas.Error // of answerNow
}

// decide is the policy for a request that can be read and is neither cancelled nor too late: whatever says that it runs,
// waits or is answered without a worker stands here, in the order in which it applies.
func (l *loop) decide(it *item, now time.Time) verdict {
	if !l.known(it.model(), now) {
		return verdict{answerNow, l.unknown(it.model())}
	}
	if err := l.out(it, now); err != nil {
		return verdict{answerNow, err}
	}
	it.cost = l.learnt.cost(it.model(), it.estimate)
	atGate := false
	if l.books != nil {
		if it.retried > 0 { // in case the event that it was put off did not come here
			l.books.release(it.req.Identity)
		}
		err := l.books.refuse(it, now)
		if err != nil {
			return verdict{answerNow, err}
		}
		atGate = l.books.gated(it)
	}
	free := !l.queue.ready(it.model()) && l.roomFor(it.model(), now) > 0
	if free && !atGate {
		return verdict{action: dispatchNow}
	}
	if it.retried == 0 { // one that was held has been promised to wait
		if err := l.crowded(it); err != nil {
			return verdict{answerNow, err}
		}
		if err := l.inVain(it, now); err != nil && !free {
			return verdict{answerNow, err}
		}
	}
	if atGate {
		return verdict{action: waitForLimits}
	}
	return verdict{action: waitForRoom}
}

func expired() *schemas.Error {
	return schemas.Errorf(schemas.CodeDeadline, "the deadline passed before a worker had room; send the request again, or give it a later %s", schemas.HeaderDeadline)
}

// known reports whether requests for the model may wait: it is configured, or a worker serves it, or the router has not
// listened long enough to say that none does.
func (l *loop) known(model string, now time.Time) bool {
	if l.configured.has(model) || l.fleet.serves(model) || now.Sub(l.began) < workerGone {
		return true
	}
	l.configured.refresh()
	return l.configured.has(model)
}

// modelsShown bounds the list of models in an error.
const modelsShown = 20

func (l *loop) unknown(model string) *schemas.Error {
	names := maps.Clone(l.configured.names)
	for token := range l.fleet.advertised {
		if name, err := schemas.DecodeModel(token); err == nil {
			names[token] = name
		}
	}
	list := slices.Sorted(maps.Values(names))
	more := ""
	if len(list) > modelsShown {
		more = fmt.Sprintf(" and %d more", len(list)-modelsShown)
		list = list[:modelsShown]
	}
	exist := "there is none yet: configure a model or start a worker"
	if len(list) > 0 {
		exist = "use " + strings.Join(list, ", ") + more
	}
	name, err := schemas.DecodeModel(model)
	if err != nil {
		name = model
	}
	return schemas.Errorf(schemas.CodeModelNotFound, "the model %q does not exist; %s", name, exist).WithParam("model")
}

// catalog is the configured models.
type catalog struct {
	load  func() []string
	names map[string]string // by token
}

func newCatalog(load func() []string) *catalog {
	c := &catalog{load: load}
	c.refresh()
	return c
}

func (c *catalog) refresh() {
	c.names = make(map[string]string)
	for _, name := range c.load() {
		if token, err := schemas.EncodeModel(name); err == nil {
			c.names[token] = name
		}
	}
}

func (c *catalog) has(model string) bool {
	_, ok := c.names[model]
	return ok
}
