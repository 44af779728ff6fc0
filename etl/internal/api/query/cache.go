package query

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Cache keeps answers for a while. A cache that is away, slow or full finds nothing and keeps nothing: it fails no read.
// The values are not to be changed by either side.
type Cache interface {
	Get(ctx context.Context, key string) ([]byte, bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// cacheName is a cache's label in metrics.
func cacheName(c Cache) string {
	switch c.(type) {
	case nil:
		return "none"
	case *MemoryCache:
		return "memory"
	case *RedisCache:
		return "redis"
	default:
		return "other"
	}
}

// keyVersion is part of every key. It changes with the form of what is kept, since processes of two versions may share
// a cache.
const keyVersion = "1"

// maxKept is the longest answer in bytes that is kept.
const maxKept = 4 << 20

func hashKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "fleet-etl:read:" + keyVersion + ":" + kind + ":" + hex.EncodeToString(sum[:])
}

func generationKey(fleet string) string { return hashKey("generation", fleet) }

// cacheKey names an answer. The token's fleet is part of it, so that nobody is ever given another's.
func (q *query) cacheKey(route, generation string) string {
	return hashKey("page", q.scope, route, q.id, q.given, strconv.Itoa(q.limit), q.page, string(q.form), generation)
}

// joined gives a page from the cache, else from the read of an equal request that is under way, else from a read. The
// read goes on when the request that began it goes away, since others may wait for it; it has the time of a request.
func (a *API) joined(ctx context.Context, key string, keep time.Duration, load func(context.Context, Store) (page, error)) (page, error) {
	type result struct {
		page page
		err  error
	}
	done := make(chan result, 1)
	a.running.Go(func() {
		value, err, _ := a.flights.Do(key, func() (_ any, err error) {
			defer func() {
				if cause := recover(); cause != nil { // here it would end the process
					err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
				}
			}()
			ctx, cancel := context.WithTimeout(a.life, a.Limits.Timeout)
			defer cancel()
			return a.cached(ctx, key, keep, load)
		})
		p, _ := value.(page)
		done <- result{p, err}
	})
	select {
	case r := <-done:
		return r.page, r.err
	case <-ctx.Done():
		return page{}, ctx.Err()
	}
}

func (a *API) cached(ctx context.Context, key string, keep time.Duration, load func(context.Context, Store) (page, error)) (page, error) {
	if a.Cache != nil {
		value, found := a.Cache.Get(ctx, key)
		p, readable := decodePage(value)
		a.metrics.cache(found && readable)
		if found && readable {
			return p, nil
		}
	}
	store, leave, err := a.reach(ctx)
	if err != nil {
		return page{}, err
	}
	defer leave()
	p, err := load(ctx, store)
	if err == nil && a.Cache != nil && len(p.body) <= maxKept {
		a.Cache.Set(ctx, key, p.encode(), keep)
	}
	return p, err
}

// encode writes a page for the cache: two texts, each behind its length, and the body.
func (p page) encode() []byte {
	b := make([]byte, 0, len(p.next)+len(p.etag)+len(p.body)+2*binary.MaxVarintLen32)
	for _, text := range []string{p.next, p.etag} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, p.body...)
}

// decodePage reads what encode wrote; false for anything else that a shared cache may hold.
func decodePage(b []byte) (p page, ok bool) {
	for _, text := range []*string{&p.next, &p.etag} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return page{}, false
		}
		*text = string(b[size : size+int(n)])
		b = b[size+int(n):]
	}
	p.body = b
	return p, p.etag != ""
}
