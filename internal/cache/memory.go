package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"github.com/allegro/bigcache/v3"

	"github.com/weir-llm/weir/schemas"
)

// Limits of a [Memory].
const (
	// DefaultMemoryMB is what entries may take, and MinMemoryMB and MaxMemoryMB are what it may be set to.
	DefaultMemoryMB = 64
	MinMemoryMB     = 8
	MaxMemoryMB     = 16 << 10

	// shards is how many parts a memory has. The least part is twice the largest entry.
	shards = 16
	// heads is what is before an entry: when it was stored and when it ends, on the clock of the Memory.
	heads = 16

	// maxPurged bounds how many tenants a Memory knows to be purged, before it forgets everything and begins anew.
	maxPurged = 4096
)

// MemoryConfig is that of a [Memory].
type MemoryConfig struct {
	MB       int // for entries; 0 = DefaultMemoryMB
	MaxEntry int // bytes, beyond which an entry is not kept; 0 = schemas.MaxCacheEntryBytes

	// Now is a clock that never goes back; optional. Its zero is of no meaning.
	Now func() time.Duration
}

// Memory is the first level: entries in the memory of one process, in a ring that new entries push old ones out of. An entry
// ends on the second, on a clock that nobody can set. It takes at most MB for entries and about a quarter of that for the
// index; a small part of it until it is used. It is safe for concurrent use.
type Memory struct {
	cfg  MemoryConfig
	seed maphash.Seed

	mu         sync.RWMutex
	ring       *bigcache.BigCache
	generation uint64            // of all
	purged     map[string]uint64 // by tenant: the generation since which its entries are valid; none = since the ring was made
}

// NewMemory makes an empty one.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	if cfg.MB == 0 {
		cfg.MB = DefaultMemoryMB
	}
	if cfg.MaxEntry == 0 {
		cfg.MaxEntry = schemas.MaxCacheEntryBytes
	}
	if cfg.MB < MinMemoryMB || cfg.MB > MaxMemoryMB {
		return nil, fmt.Errorf("cache: %d MB of memory: use %d to %d", cfg.MB, MinMemoryMB, MaxMemoryMB)
	}
	if cfg.MaxEntry < 1 || cfg.MaxEntry > schemas.MaxCacheEntryBytes {
		return nil, fmt.Errorf("cache: entries of at most %d bytes: use 1 to %d", cfg.MaxEntry, schemas.MaxCacheEntryBytes)
	}
	if cfg.Now == nil {
		began := time.Now()
		cfg.Now = func() time.Duration { return time.Since(began) } // by the monotonic clock
	}
	m := &Memory{cfg: cfg, seed: maphash.MakeSeed()}
	return m, m.Reset()
}

// Sum64 is a hash that nobody outside can make collide.
func (m *Memory) Sum64(key string) uint64 { return maphash.String(m.seed, key) }

// Reset forgets everything, and leaves the memory of it to the garbage collector.
func (m *Memory) Reset() error {
	ring, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: shards, HardMaxCacheSize: m.cfg.MB, Hasher: m,
		// The age of entries is told by what is stored with them; the ring only makes room. Without a CleanWindow it has no
		// goroutine, and so nothing to be closed.
		LifeWindow: 2 * schemas.MaxCacheTTL * time.Second,
		// What a shard begins with: ten entries of this size.
		MaxEntriesInWindow: 10 * shards, MaxEntrySize: 512,
	})
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ring, m.purged = ring, make(map[string]uint64)
	m.generation++
	return nil
}

// Purge forgets the entries of a tenant and of nobody else: they are looked for under other names from now on. Their bytes stay
// in the ring, where nothing finds them, until others are written over them.
func (m *Memory) Purge(tenant string) error {
	if !m.purge(tenant) {
		return m.Reset()
	}
	return nil
}

// purge reports whether there was room to remember it.
func (m *Memory) purge(tenant string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.purged[tenant]; !known && len(m.purged) == maxPurged {
		return false
	}
	m.generation++
	m.purged[tenant] = m.generation
	return true
}

// Generation changes whenever something was removed. What was read from elsewhere before is not to be put in afterwards.
func (m *Memory) Generation() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.generation
}

// Put keeps an encoded entry that was stored elsewhere an age ago and ends at ttl, unless something was removed since the
// generation, or is there that was stored later: what is read from elsewhere may be overtaken by what is heard. It reports
// whether it did: one that is too large, over, damaged, of another version or of another request is not kept.
func (m *Memory) Put(generation uint64, tenant, key string, entry []byte, age, ttl time.Duration) bool {
	if len(entry) > m.cfg.MaxEntry || age >= ttl {
		return false
	}
	if _, err := schemas.DecodeCacheEntry(tenant, key, entry); err != nil { // so that no hit pays for it
		return false
	}
	stored := m.cfg.Now() - age
	b := make([]byte, heads, heads+len(entry))
	binary.BigEndian.PutUint64(b, uint64(stored))
	binary.BigEndian.PutUint64(b[8:], uint64(stored+ttl))
	m.mu.Lock()
	defer m.mu.Unlock()
	if generation != m.generation {
		return false
	}
	name := m.name(tenant, key)
	if there, err := m.ring.Get(name); err == nil && storedAt(there) > stored {
		return false
	}
	return m.ring.Set(name, append(b, entry...)) == nil
}

// storedAt is when what is in the ring was stored elsewhere, by the clock of the Memory.
func storedAt(b []byte) time.Duration { return time.Duration(binary.BigEndian.Uint64(b)) }

// Get is the entry of a tenant under a key, and its age. One that is over is none.
func (m *Memory) Get(tenant, key string) (*schemas.CacheEntry, time.Duration, bool) {
	m.mu.RLock()
	b, err := m.ring.Get(m.name(tenant, key)) // a copy
	m.mu.RUnlock()
	if err != nil || len(b) < heads {
		return nil, 0, false
	}
	now := m.cfg.Now()
	stored, end := storedAt(b), time.Duration(binary.BigEndian.Uint64(b[8:]))
	if now >= end {
		return nil, 0, false
	}
	e, err := schemas.ReadCacheEntry(b[heads:])
	if err != nil {
		return nil, 0, false
	}
	return e, max(now-stored, 0), true
}

// Drop forgets an entry. Its bytes stay in the ring until others are written over them, where nothing finds them.
func (m *Memory) Drop(tenant, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	err := m.ring.Delete(m.name(tenant, key))
	if errors.Is(err, bigcache.ErrEntryNotFound) {
		return nil
	}
	return err
}

// Size is how many entries there are, those that are over or purged included, and what has been taken for them in bytes.
func (m *Memory) Size() (entries, bytes int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ring.Len(), m.ring.Capacity()
}

// name is what an entry is called in the ring. m.mu is held.
func (m *Memory) name(tenant, key string) string {
	since, purged := m.purged[tenant]
	if !purged {
		return tenant + "." + key
	}
	return tenant + "." + key + "." + strconv.FormatUint(since, 36)
}
