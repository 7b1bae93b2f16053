package ingest

import (
	"strconv"
	"strings"

	"github.com/weir-llm/weir/schemas"
)

// setCache says in the headers of an answer what the cache did for it. The names are in the canonical form of both doors.
func setCache(h map[string][]string, n *schemas.CacheNote) {
	h[schemas.HeaderCache] = []string{string(n.Status)}
	if n.Status == schemas.CacheHit {
		h[schemas.HeaderAge] = []string{strconv.Itoa(n.Age)}
	}
	if n.Reason != "" {
		h[schemas.HeaderCacheReason] = []string{n.Reason}
	}
}

// tellCache tells the caller what a frame says that the cache did, if it does and the status is not out.
func (c *call) tellCache(f *schemas.Frame) {
	if f.Cache != nil && c.status == 0 {
		setCache(c.w.Header(), f.Cache)
	}
}

func (e *eventStream) tellCache(f *schemas.Frame) {
	if f.Cache == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open {
		setCache(e.c.w.Header(), f.Cache)
	}
}

// tellCache puts it into the next message with events.
func (i *inbox) tellCache(f *schemas.Frame) {
	if f.Cache == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	setCache(i.header, f.Cache)
}

// toldCache keeps it out of the messages that follow. i.mu is held.
func (i *inbox) toldCache() {
	for _, name := range [...]string{schemas.HeaderCache, schemas.HeaderAge, schemas.HeaderCacheReason} {
		delete(i.header, name)
	}
}

// cacheControl adds what HTTP's own header says of the cache to the request's.
func (a *asked) cacheControl() error {
	if len(a.control) == 0 {
		return nil
	}
	said, err := schemas.CacheControl(strings.Join(a.header[schemas.HeaderCache], ","), a.control)
	if err == nil && said != "" {
		a.header[schemas.HeaderCache] = []string{said}
	}
	return err
}
