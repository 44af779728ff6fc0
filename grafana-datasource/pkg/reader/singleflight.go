package reader

import (
	"context"
	"sync"
	"time"
)

// singleflight merges equal concurrent calls into one. Unlike golang.org/x/sync/singleflight it cancels a call once its
// last waiter has gone, and keeps it running as long as any waiter is left.
type singleflight struct {
	timeout time.Duration // of one call

	mu    sync.Mutex
	calls map[string]*call
}

type call struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	value   any
	err     error
}

func newSingleflight(timeout time.Duration) *singleflight {
	return &singleflight{timeout: timeout, calls: map[string]*call{}}
}

// do returns the result of fn, or the shared result of an equal call in progress.
func (s *singleflight) do(ctx context.Context, key string, fn func(context.Context) (any, error)) (value any, shared bool, err error) {
	s.mu.Lock()
	c, shared := s.calls[key]
	if !shared {
		var callCtx context.Context
		c = &call{done: make(chan struct{})}
		callCtx, c.cancel = context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		s.calls[key] = c
		go func() {
			c.value, c.err = catching(callCtx, fn)
			s.mu.Lock()
			s.forget(key, c)
			s.mu.Unlock()
			close(c.done)
			c.cancel()
		}()
	}
	c.waiters++
	s.mu.Unlock()

	select {
	case <-c.done:
		return c.value, shared, c.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.waiters--; c.waiters == 0 {
			s.forget(key, c) // a new caller must not join a canceled call
			c.cancel()
		}
		return nil, shared, ctx.Err()
	}
}

func catching(ctx context.Context, fn func(context.Context) (any, error)) (value any, err error) {
	defer CatchPanic(&err)
	return fn(ctx)
}

// forget removes a call. The caller holds the lock.
func (s *singleflight) forget(key string, c *call) {
	if s.calls[key] == c {
		delete(s.calls, key)
	}
}
