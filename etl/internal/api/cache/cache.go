// Package cache stores responses for a while: in the memory of the process, or in a Redis that processes share.
package cache

import (
	"context"
	"time"
)

// Cache stores values until their time to live ends. A cache that is unavailable, slow or full finds nothing and stores
// nothing: it never fails a read. Neither side may change a value.
type Cache interface {
	Get(ctx context.Context, key string) ([]byte, bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

func name(c Cache) string {
	switch c.(type) {
	case nil:
		return "none"
	case *Memory:
		return "memory"
	case *Redis:
		return "redis"
	default:
		return "other"
	}
}
