package router

import (
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

const (
	// queueEventEvery is how often it is told that requests wait for a model.
	queueEventEvery = 10 * time.Second
	// refuseBeyond is how much longer than the time to its deadline a request must be predicted to wait to be refused: a
	// prediction is no promise, and to wait in vain costs less than to be sent away for nothing.
	refuseBeyond = 1.25
)

// question is one about a request that may wait.
type question struct {
	id     schemas.Identity
	answer func(*schemas.Waiting)
}

// tellPlace answers a question if the request waits here.
func (l *loop) tellPlace(q question) {
	for _, it := range l.held.with(q.id) {
		if it.place == nil {
			continue
		}
		lane := l.queue.models[it.model()]
		wait, place := l.forecast(lane, it)
		wait = max(wait, l.books.wait(it.req.Tenant))
		q.answer(&schemas.Waiting{V: schemas.Version, Place: place, Queued: lane.count, WaitMS: wait.Milliseconds()})
		return
	}
}

// forecast is how long a request has yet to wait, 0 while nobody knows, and its place among those of its tenant and class.
func (l *loop) forecast(lane *classes, it *item) (wait time.Duration, place int) {
	before := int64(0)
	for e := it.place.Prev(); e != nil; e = e.Prev() {
		before += e.Value.(*item).cost
		place++
	}
	return l.pace(it.model()).takes(lane.ahead(it.class, it.req.Tenant, before)), place + 1
}

// forecastNew is how long a request would wait that joined the queue now, 0 while nobody knows.
func (l *loop) forecastNew(model, tenant string, in class) time.Duration {
	lane := l.queue.models[model]
	if lane == nil {
		return 0
	}
	return l.pace(model).takes(lane.ahead(in, tenant, lane.lines[in].tokensOf(tenant)))
}

// inVain is the refusal of a request that would wait beyond its deadline, nil when it may yet make it.
func (l *loop) inVain(it *item, now time.Time) *schemas.Error {
	left := it.deadline.Sub(l.clock.at(now))
	wait := l.forecastNew(it.model(), it.req.Tenant, classOf(it.req.Priority))
	if wait.Seconds() <= left.Seconds()*refuseBeyond {
		return nil
	}
	return schemas.Errorf(schemas.CodeOverloaded,
		"the request would wait about %s for the model, and its deadline is in %s: send it again later, or give it a later %s",
		wait.Round(time.Second), left.Round(100*time.Millisecond), schemas.HeaderDeadline).WithRetryAfter((wait - left).Round(time.Second))
}

// pace is that of a model.
func (l *loop) pace(model string) *pace {
	p := l.paces[model]
	if p == nil {
		p = &pace{}
		l.paces[model] = p
	}
	return p
}

// watchQueue learns the pace of the models that requests wait for, and tells operators about them.
func (l *loop) watchQueue(now time.Time) {
	for model, lane := range l.queue.models {
		if lane.idle() { // who waits for the limits of a tenant says nothing of what the workers can do
			l.pace(model).rest()
		} else {
			l.pace(model).wait(now)
		}
		if now.Sub(l.told[model]) >= queueEventEvery {
			l.told[model] = now
			l.tellQueue(model, lane, now)
		}
	}
	for model, p := range l.paces {
		if l.queue.has(model) {
			continue
		}
		p.rest()
		if _, was := l.told[model]; was {
			delete(l.told, model)
			l.tellQueue(model, nil, now)
		}
		if !l.known(model, now) {
			delete(l.paces, model)
		}
	}
}

// tellQueue publishes an event about the requests that wait for a model.
func (l *loop) tellQueue(model string, lane *classes, now time.Time) {
	e := schemas.QueueEvent{V: schemas.Version, Model: model, By: l.cfg.Name, Time: time.Now().UTC()}
	if lane != nil {
		e.Queued, e.WaitMS = lane.count, l.forecastNew(model, "", classNormal).Milliseconds()
		for it := range lane.heads() {
			wait, _ := l.forecast(lane, it)
			e.Requests = append(e.Requests, schemas.WaitingRequest{
				Tenant: it.req.Tenant, Request: it.req.Request, Priority: it.class.priority(),
				WaitedMS: max(now.Sub(it.arrived).Milliseconds(), 0), WaitMS: wait.Milliseconds(),
			})
		}
		slices.SortFunc(e.Requests, func(a, b schemas.WaitingRequest) int { return int(b.WaitedMS - a.WaitedMS) })
		e.Requests = e.Requests[:min(len(e.Requests), schemas.QueueEventRequests)]
	}
	l.bus.Event(schemas.EventQueue, e.Encode())
}
