package query

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
)

// keyVersion is part of every key. Change it with the format of the values, because processes of two versions may share a
// cache.
const keyVersion = "1"

// maxCached is the longest page in bytes that is cached.
const maxCached = 4 << 20

func hashKey(kind string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "fleet-etl:read:" + keyVersion + ":" + kind + ":" + hex.EncodeToString(sum[:])
}

func generationKey(fleet string) string { return hashKey("generation", fleet) }

// pageKey names a page. The fleet of the token is part of it, so that no token receives the page of another fleet.
func pageKey(q *params.Query, generation string) string {
	return hashKey("page", append(q.Key(), generation)...)
}

// shared returns a page from the cache, from the read of an equal request in progress, or from a read of its own. The read
// continues when the request that began it ends, because others may wait for it. It has the time limit of a request.
func (a *API) shared(ctx context.Context, key string, ttl time.Duration, load func(context.Context, Store) (page, error)) (page, error) {
	type result struct {
		page page
		err  error
	}
	done := make(chan result, 1)
	a.running.Go(func() {
		value, err, _ := a.flights.Do(key, func() (_ any, err error) {
			defer func() {
				if cause := recover(); cause != nil { // in this goroutine it would end the process
					err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
				}
			}()
			ctx, cancel := context.WithTimeout(a.ctx, a.Limits.Timeout)
			defer cancel()
			return a.readThrough(ctx, key, ttl, load)
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

// readThrough returns a page from the cache, or reads and caches it.
func (a *API) readThrough(ctx context.Context, key string, ttl time.Duration, load func(context.Context, Store) (page, error)) (page, error) {
	if a.Cache != nil {
		value, found := a.Cache.Get(ctx, key)
		p, valid := decodePage(value)
		a.cached.Count(found && valid)
		if found && valid {
			return p, nil
		}
	}
	store, leave, err := a.reach(ctx)
	if err != nil {
		return page{}, err
	}
	defer leave()
	p, err := load(ctx, store)
	if err == nil && a.Cache != nil && len(p.body) <= maxCached {
		a.Cache.Set(ctx, key, p.encode(), ttl)
	}
	return p, err
}

// encode encodes a page for the cache: two texts after their length, then the body.
func (p page) encode() []byte {
	b := make([]byte, 0, len(p.next)+len(p.etag)+len(p.body)+2*binary.MaxVarintLen32)
	for _, text := range []string{p.next, p.etag} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, p.body...)
}

// decodePage reads what encode wrote. It returns false for anything else that a shared cache may contain.
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
