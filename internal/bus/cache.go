package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// noticeTTL is for how many seconds LLM_CACHE holds what only says that entries are gone.
const noticeTTL = 5

// KeepAnswer writes an entry of the second-level cache, which every router hears of at once and the server forgets when its
// time is over. It tries once, for at most 2.5 s: an entry that is lost only costs a run.
func (b *Bus) KeepAnswer(ctx context.Context, e *schemas.CacheEntry) error {
	return wrap("keep an answer in the cache", b.putCached(ctx, schemas.CacheSubject(e.Tenant, e.Key), e.TTL, e.Encode()))
}

func (b *Bus) putCached(ctx context.Context, subject string, ttl int, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	_, err := publish(ctx, b.control, &nats.Msg{
		Subject: subject, Header: nats.Header{schemas.HeaderNatsTTL: {strconv.Itoa(ttl) + "s"}}, Data: data,
	})
	return err
}

// CachedAnswer reads an entry from LLM_CACHE, or [ErrNotFound], and when it was stored by the server's clock. Any replica may
// answer. It tries once, for as long as ctx allows.
func (b *Bus) CachedAnswer(ctx context.Context, tenant, key string) (data []byte, stored time.Time, err error) {
	subject := "$JS.API.DIRECT.GET." + schemas.StreamCache + "." + schemas.CacheSubject(tenant, key)
	reply, err := b.control.request(ctx, &nats.Msg{Subject: subject})
	if err != nil {
		return nil, stored, wrap("read from the cache", err)
	}
	switch status := header(reply.Header, "Status"); {
	case status == "404", status == "" && len(reply.Data) == 0:
		return nil, stored, ErrNotFound
	case status != "":
		return nil, stored, fmt.Errorf("read from the cache: %s %s", status, header(reply.Header, "Description"))
	}
	stored, err = time.Parse(time.RFC3339Nano, header(reply.Header, schemas.HeaderNatsTime))
	return reply.Data, stored, wrap("read from the cache", err)
}

// DropAnswer removes an entry from LLM_CACHE and from every router that is connected. It is erased when it returns nil.
func (b *Bus) DropAnswer(ctx context.Context, tenant, key string) error {
	subject := schemas.CacheSubject(tenant, key)
	if err := b.purge(ctx, schemas.StreamCache, subject, 0); err != nil {
		return err
	}
	return wrap("tell that an entry of the cache is gone", b.putCached(ctx, subject, noticeTTL, nil))
}

// PurgeCache removes all entries of a tenant, or of one namespace of it, from LLM_CACHE and from every router that is
// connected. An answer that is still being given may be kept afterwards.
func (b *Bus) PurgeCache(ctx context.Context, tenant, namespaceToken string) error {
	if err := b.purge(ctx, schemas.StreamCache, schemas.CacheSpace(tenant, namespaceToken), 0); err != nil {
		return err
	}
	return wrap("tell that entries of the cache are gone", b.putCached(ctx, schemas.CachePurgedSubject(tenant, namespaceToken), noticeTTL, nil))
}

// CacheNews is what routers hear of the cache.
type CacheNews struct {
	Tenant string
	Key    string // empty: entries of the tenant were purged
	Data   []byte // the entry; empty: it is gone
}

// OnCache calls fn for every entry that is written or removed, until stop is called. It is a hint, heard at most once; gap
// is called when some may have been missed. Calls of fn do not overlap; neither may block.
func (b *Bus) OnCache(fn func(CacheNews), gap func()) (stop func(), err error) {
	unheard := b.onGap(gap)
	unlisten, err := b.listen(schemas.CacheAll, func(msg *nats.Msg) {
		if tenant, key, ok := schemas.ParseCacheSubject(msg.Subject); ok {
			fn(CacheNews{Tenant: tenant, Key: key, Data: msg.Data})
		}
	})
	if err != nil {
		unheard()
		return nil, err
	}
	return func() { unlisten(); unheard() }, nil
}

// onGap calls fn whenever the connection that hints come by was lost, or gave some up, until stop is called.
func (b *Bus) onGap(fn func()) (stop func()) {
	b.gapMu.Lock()
	defer b.gapMu.Unlock()
	b.gapNext++
	id := b.gapNext
	b.gaps[id] = fn
	return func() {
		b.gapMu.Lock()
		defer b.gapMu.Unlock()
		delete(b.gaps, id)
	}
}

func (b *Bus) gap() {
	b.gapMu.Lock()
	defer b.gapMu.Unlock()
	for _, fn := range b.gaps {
		fn()
	}
}

// forgetAnswer removes the cache entry that an erased request had to do with.
func (b *Bus) forgetAnswer(ctx context.Context, tenant, key string) error {
	if schemas.ValidateCacheKey(key) != nil {
		return nil // none, or nothing of ours
	}
	err := b.DropAnswer(ctx, tenant, key)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
