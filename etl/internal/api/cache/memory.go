package cache

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"
)

// Memory is a cache in the memory of one process, bounded in bytes.
type Memory struct{ entries *otter.Cache[string, entry] }

type entry struct {
	value []byte
	ttl   time.Duration
}

// entryOverhead is about how many bytes an entry takes beside its key and value.
const entryOverhead = 100

// NewMemory makes a cache of so many bytes, at least one. Close it.
func NewMemory(maxBytes uint64) *Memory { return newMemory(maxBytes, nil) }

func newMemory(maxBytes uint64, clock otter.Clock) *Memory {
	return &Memory{otter.Must(&otter.Options[string, entry]{
		MaximumWeight:    maxBytes,
		Weigher:          func(key string, e entry) uint32 { return uint32(len(key) + len(e.value) + entryOverhead) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration { return e.Value.ttl }),
		Clock:            clock,
	})}
}

// Get implements Cache.
func (c *Memory) Get(_ context.Context, key string) ([]byte, bool) {
	e, ok := c.entries.GetIfPresent(key)
	return e.value, ok
}

// Set implements Cache.
func (c *Memory) Set(_ context.Context, key string, value []byte, ttl time.Duration) {
	c.entries.Set(key, entry{value, ttl})
}

// Close ends the background work of the cache.
func (c *Memory) Close() { c.entries.StopAllGoroutines() }
