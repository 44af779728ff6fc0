package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
)

// MemoryCache is the cache of one process, bounded in bytes.
type MemoryCache struct{ entries *otter.Cache[string, entry] }

type entry struct {
	value []byte
	keep  time.Duration
}

// entryOverhead is about what an entry takes in bytes beside its key and value.
const entryOverhead = 100

// NewMemoryCache makes a cache of so many bytes. Close it.
func NewMemoryCache(maxBytes uint64) (*MemoryCache, error) { return newMemoryCache(maxBytes, nil) }

func newMemoryCache(maxBytes uint64, clock otter.Clock) (*MemoryCache, error) {
	if maxBytes == 0 {
		return nil, errors.New("make cache of 0 bytes: give it some, or leave it out")
	}
	entries, err := otter.New(&otter.Options[string, entry]{
		MaximumWeight:    maxBytes,
		Weigher:          func(key string, e entry) uint32 { return uint32(len(key) + len(e.value) + entryOverhead) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration { return e.Value.keep }),
		Clock:            clock,
	})
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &MemoryCache{entries}, nil
}

// Get implements Cache.
func (c *MemoryCache) Get(_ context.Context, key string) ([]byte, bool) {
	e, ok := c.entries.GetIfPresent(key)
	return e.value, ok
}

// Set implements Cache.
func (c *MemoryCache) Set(_ context.Context, key string, value []byte, ttl time.Duration) {
	c.entries.Set(key, entry{value, ttl})
}

// Close ends the cache's work in the background.
func (c *MemoryCache) Close() { c.entries.StopAllGoroutines() }
