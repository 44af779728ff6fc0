package cache

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stoppedClock is a clock that a test sets.
type stoppedClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stoppedClock) NowNano() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.UnixNano()
}

func (c *stoppedClock) Tick(time.Duration) <-chan time.Time { return nil }

func (c *stoppedClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestMemoryExpiresAndEvicts(t *testing.T) {
	clock := &stoppedClock{now: time.Date(2026, 11, 5, 12, 0, 0, 0, time.UTC)}
	cache := newMemory(64<<10, clock)
	defer cache.Close()
	ctx := t.Context()
	cache.Set(ctx, "short", []byte("1"), time.Second)
	cache.Set(ctx, "long", []byte("2"), time.Minute)
	for _, c := range []struct {
		after       time.Duration
		short, long bool
	}{{0, true, true}, {999 * time.Millisecond, true, true}, {2 * time.Millisecond, false, true}, {time.Minute, false, false}} {
		clock.forward(c.after)
		_, short := cache.Get(ctx, "short")
		_, long := cache.Get(ctx, "long")
		assert.Equal(t, []bool{c.short, c.long}, []bool{short, long}, "after %s", c.after)
	}
	for i := range 1000 {
		cache.Set(ctx, fmt.Sprint(i), make([]byte, 1000), time.Minute)
	}
	cache.entries.CleanUp()
	require.LessOrEqual(t, cache.entries.WeightedSize(), uint64(64<<10))
	require.Positive(t, cache.entries.EstimatedSize())

	require.Panics(t, func() { NewMemory(0) }, "0 is not unlimited")
}
