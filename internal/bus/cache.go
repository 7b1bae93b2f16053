package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// noticeTTL is for how many seconds LLM_CACHE holds what only says that an entry is gone.
const noticeTTL = 5

// PurgeMark is the fence for an answer of the tenant that is begun now, for [Bus.KeepAnswer]. It makes one try, for as long as
// ctx allows. A replica that is behind gives an old one, with which nothing is kept.
func (b *Bus) PurgeMark(ctx context.Context, tenant string) (uint64, error) {
	reply, err := b.directGet(ctx, schemas.CachePurgedSubject(tenant))
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	mark, err := strconv.ParseUint(header(reply.Header, schemas.HeaderNatsSequence), 10, 64)
	return mark, wrap("read the mark of the last purge", err)
}

// KeepAnswer writes an entry of the second-level cache, which every router hears of at once and the server forgets when its
// time is over, unless entries of the tenant were purged since mark: then it returns [ErrFenced]. It takes at most 2.5 s and
// sends once more only what the server put off, because another entry of the tenant was being written (on replicated
// streams). An entry that is lost only costs a run.
func (b *Bus) KeepAnswer(ctx context.Context, e *schemas.CacheEntry, mark uint64) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	msg := cacheMessage(schemas.CacheSubject(e.Tenant, e.Key), e.TTL, e.Encode())
	msg.Header[schemas.HeaderExpectedOf] = []string{schemas.CachePurgedSubject(e.Tenant)}
	msg.Header[schemas.HeaderExpectedSeq] = []string{strconv.FormatUint(mark, 10)}
	for {
		_, err := publish(ctx, b.control, msg)
		switch {
		case answered(err, codeWrongLastSequence):
			return ErrFenced
		case !answered(err, codeInFlight):
			return wrap("keep an answer in the cache", err)
		}
		if err := sleep(ctx, inFlightWait/2+rand.N(inFlightWait)); err != nil {
			return wrap("keep an answer in the cache", err)
		}
	}
}

// inFlightWait is about how long a replicated write is under way.
const inFlightWait = 4 * time.Millisecond

func cacheMessage(subject string, ttl int, data []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{schemas.HeaderNatsTTL: {strconv.Itoa(ttl) + "s"}}, Data: data}
}

func (b *Bus) putCached(ctx context.Context, subject string, ttl int, data []byte) (sequence uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	acked, err := publish(ctx, b.control, cacheMessage(subject, ttl, data))
	return acked.Sequence, err
}

// CachedAnswer reads an entry from LLM_CACHE, or [ErrNotFound], and when it was stored by the server's clock. Any replica may
// answer. It tries once, for as long as ctx allows.
func (b *Bus) CachedAnswer(ctx context.Context, tenant, key string) (data []byte, stored time.Time, err error) {
	reply, err := b.directGet(ctx, schemas.CacheSubject(tenant, key))
	if err != nil {
		return nil, stored, err
	}
	if len(reply.Data) == 0 {
		return nil, stored, ErrNotFound // only a word that it is gone
	}
	stored, err = time.Parse(time.RFC3339Nano, header(reply.Header, schemas.HeaderNatsTime))
	return reply.Data, stored, wrap("read from the cache", err)
}

// directGet reads the last message of a subject of LLM_CACHE from any replica, or [ErrNotFound].
func (b *Bus) directGet(ctx context.Context, subject string) (*nats.Msg, error) {
	reply, err := b.control.request(ctx, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + schemas.StreamCache + "." + subject})
	if err != nil {
		return nil, wrap("read from the cache", err)
	}
	switch status := header(reply.Header, "Status"); status {
	case "":
		return reply, nil
	case "404":
		return nil, ErrNotFound
	default:
		return nil, fmt.Errorf("read from the cache: %s %s", status, header(reply.Header, "Description"))
	}
}

// DropAnswer removes an entry from LLM_CACHE and from every router that is connected. It is erased when it returns nil.
func (b *Bus) DropAnswer(ctx context.Context, tenant, key string) error {
	subject := schemas.CacheSubject(tenant, key)
	if err := b.purge(ctx, schemas.StreamCache, subject, 0); err != nil {
		return err
	}
	_, err := b.putCached(ctx, subject, noticeTTL, nil)
	return wrap("tell that an entry of the cache is gone", err)
}

// PurgeCache removes all entries of a tenant, or of one namespace of it, from LLM_CACHE and from every router that is
// connected, and says how many the stream had; one that was dropped in the last five seconds counts too. Answers of the
// tenant that are still being given are not kept afterwards. When it fails, what is left is removed by calling it again.
func (b *Bus) PurgeCache(ctx context.Context, tenant, namespaceToken string) (removed uint64, err error) {
	mark := schemas.CachePurgedSubject(tenant)
	// First the fence, then the entries before it, then a word to who may have read one of them in between.
	fence, err := b.putCached(ctx, mark, schemas.MaxCacheTTL, nil)
	if err != nil {
		return 0, wrap("fence the answers that are under way off the cache", err)
	}
	if removed, err = b.purgeBefore(ctx, schemas.StreamCache, schemas.CacheSpace(tenant, namespaceToken), fence); err != nil {
		return 0, err
	}
	_, err = b.putCached(ctx, mark, schemas.MaxCacheTTL, nil)
	return removed, wrap("tell that entries of the cache are gone", err)
}

// purgeBefore erases the messages of a subject, which may have wildcards, that are before a sequence, and counts them. The
// library's own call tells no number.
func (b *Bus) purgeBefore(ctx context.Context, stream, subject string, sequence uint64) (purged uint64, err error) {
	query, err := json.Marshal(map[string]any{"filter": subject, "seq": sequence})
	if err != nil {
		return 0, err
	}
	reply, err := b.control.RequestWithContext(ctx, "$JS.API.STREAM.PURGE."+stream, query)
	if err != nil {
		return 0, fmt.Errorf("erase from %s: %w", stream, err)
	}
	if e := apiError(reply.Data); e != nil {
		return 0, fmt.Errorf("erase from %s: %w", stream, e)
	}
	return gjson.GetBytes(reply.Data, "purged").Uint(), nil
}

// CacheNews is what routers hear of the cache.
type CacheNews struct {
	Tenant string
	Key    string // empty: entries of the tenant were purged
	Data   []byte // the entry; empty: it is gone
}

// OnCache calls fn for every entry that was stored or removed, in the order of the stream, until stop is called. It is a hint,
// heard at most once; gap is called when some may have been missed. Calls of fn do not overlap; neither may block.
func (b *Bus) OnCache(fn func(CacheNews), gap func()) (stop func(), err error) {
	unheard := b.onGap(gap)
	unlisten, err := b.listen(schemas.CachedAll, func(msg *nats.Msg) {
		if tenant, key, ok := schemas.ParseCachedSubject(msg.Subject); ok {
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
