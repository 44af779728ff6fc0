package plugin

import (
	"context"
	"sync"
	"time"
)

// flights joins equal reads that are under way at the same time into one. Unlike singleflight's, a read goes on as long
// as anybody waits for it and is cancelled when the last one has left.
type flights struct {
	timeout time.Duration // of one read, whoever waits

	mu    sync.Mutex
	calls map[string]*flight
}

type flight struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	value   any
	err     error
}

func newFlights(timeout time.Duration) *flights {
	return &flights{timeout: timeout, calls: map[string]*flight{}}
}

// do gives the result of read, or of an equal read under way, which is then shared.
func (f *flights) do(ctx context.Context, key string, read func(context.Context) (any, error)) (value any, shared bool, err error) {
	f.mu.Lock()
	c, shared := f.calls[key]
	if !shared {
		var readCtx context.Context
		c = &flight{done: make(chan struct{})}
		readCtx, c.cancel = context.WithTimeout(context.WithoutCancel(ctx), f.timeout)
		f.calls[key] = c
		go func() {
			c.value, c.err = read(readCtx)
			f.forget(key, c)
			close(c.done)
			c.cancel()
		}()
	}
	c.waiters++
	f.mu.Unlock()

	select {
	case <-c.done:
		return c.value, shared, c.err
	case <-ctx.Done():
		f.mu.Lock()
		c.waiters--
		if c.waiters == 0 {
			if f.calls[key] == c {
				delete(f.calls, key) // whoever comes now must not join what is being cancelled
			}
			c.cancel()
		}
		f.mu.Unlock()
		return nil, shared, ctx.Err()
	}
}

func (f *flights) forget(key string, c *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[key] == c {
		delete(f.calls, key)
	}
}
