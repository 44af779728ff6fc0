package executor

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const slow = 250 * time.Millisecond

// hand is a clock that the test sets.
type hand struct{ at time.Time }

func newHand() *hand { return &hand{time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (h *hand) now() time.Time { return h.at }

// fill takes every free place.
func fill(t *testing.T, l *limiter) {
	t.Helper()
	for n, limit := l.state(); n < limit; n, limit = l.state() {
		require.NoError(t, l.acquire(t.Context()))
	}
}

func limitOf(l *limiter) int { _, limit := l.state(); return limit }

func inFlightOf(l *limiter) int { n, _ := l.state(); return n }

func TestLimiterKeepsItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(5, 5, 5, slow, time.Now)
		var under, most atomic.Int64
		var done sync.WaitGroup
		for range 50 {
			done.Go(func() {
				for range 20 {
					if !assert.NoError(t, l.acquire(t.Context())) {
						return
					}
					n := under.Add(1)
					for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
					}
					took := rand.N(10 * time.Millisecond)
					time.Sleep(took)
					under.Add(-1)
					l.observe(took, false)
					l.release()
				}
			})
		}
		done.Wait()
		assert.Equal(t, int64(5), most.Load(), "every place is used, and none more")
		assert.Zero(t, inFlightOf(l))
	})
}

// Whatever the responses are, no caller gets a place above the current bound, and every caller gets one in the end.
func TestLimiterKeepsItsBoundWhileItMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(16, 4, 32, slow, time.Now)
		var most atomic.Int64
		var done sync.WaitGroup
		for range 100 {
			done.Go(func() {
				for range 20 {
					if !assert.NoError(t, l.acquire(t.Context())) {
						return
					}
					l.mu.Lock()
					for n := int64(l.inFlight); n > most.Load(); {
						most.Store(n)
					}
					l.mu.Unlock()
					took := rand.N(slow * 5 / 4)
					time.Sleep(took)
					l.observe(took, rand.N(50) == 0)
					l.release()
				}
			})
		}
		done.Wait()
		assert.LessOrEqual(t, most.Load(), int64(32))
		assert.GreaterOrEqual(t, limitOf(l), 4)
		assert.Zero(t, inFlightOf(l))
		assert.Empty(t, l.waiting)
	})
}

func TestLimiterGrowsByOnePerRoundOfGoodResponses(t *testing.T) {
	l := newLimiter(16, 4, 20, slow, newHand().now)
	fill(t, l)
	for range 15 {
		l.observe(slow, false) // just not slow
	}
	assert.Equal(t, 16, limitOf(l), "not before the round is over")
	for range 3 {
		l.observe(time.Millisecond, false)
	}
	assert.Equal(t, 17, limitOf(l))
	for range 1000 {
		fill(t, l)
		l.observe(time.Millisecond, false)
	}
	assert.Equal(t, 20, limitOf(l), "and never above its most")
}

// A bound that is not reached says nothing about the capacity of the cluster.
func TestLimiterDoesNotGrowUnlessItIsReached(t *testing.T) {
	l := newLimiter(16, 4, 128, slow, newHand().now)
	for range 14 {
		require.NoError(t, l.acquire(t.Context()))
	}
	for range 1000 {
		l.observe(time.Millisecond, false)
	}
	assert.Equal(t, 16, limitOf(l))
}

func TestLimiterDecreasesByAFifth(t *testing.T) {
	for name, c := range map[string]struct {
		took    time.Duration
		tooMuch bool
		want    int
	}{
		"slow":              {slow + 1, false, 80},
		"too much":          {time.Millisecond, true, 80},
		"slow and too much": {time.Second, true, 80},
		"just not slow":     {slow, false, 100},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(100, 4, 128, slow, newHand().now)
			l.observe(c.took, c.tooMuch)
			assert.Equal(t, c.want, limitOf(l))
		})
	}
}

func TestLimiterDecreasesOncePerBurst(t *testing.T) {
	clock := newHand()
	l := newLimiter(100, 4, 128, slow, clock.now)
	for range 100 {
		l.observe(time.Second, true)
	}
	assert.Equal(t, 80, limitOf(l))
	clock.at = clock.at.Add(slow - 1)
	l.observe(time.Second, true)
	assert.Equal(t, 80, limitOf(l), "still the same burst")
	clock.at = clock.at.Add(1)
	l.observe(time.Second, true)
	assert.Equal(t, 64, limitOf(l))
}

// After a decrease more writes are in flight than allowed: places that come free are not granted until there are
// fewer.
func TestLimiterWaitsForADecreaseToTakeEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 1, 10, slow, time.Now)
		fill(t, l)
		got := false
		go func() { got = l.acquire(t.Context()) == nil }()
		synctest.Wait()
		l.observe(time.Second, true)
		require.Equal(t, 8, limitOf(l))
		for range 2 {
			l.release()
			synctest.Wait()
			assert.False(t, got)
		}
		l.release()
		synctest.Wait()
		assert.True(t, got)
		assert.Equal(t, 8, inFlightOf(l))
	})
}

func TestLimiterServesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 1, 1, slow, time.Now)
		fill(t, l)
		var order []int
		for i := range 10 {
			go func() {
				if assert.NoError(t, l.acquire(t.Context())) {
					order = append(order, i) // there is one place, so one at a time
					l.release()
				}
			}()
			synctest.Wait()
		}
		assert.Empty(t, order)
		l.release()
		require.NoError(t, l.acquire(t.Context())) // comes last though it asks when a place has just come free
		assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, order)
		l.release()
	})
}

func TestLimiterThatGrowsGrantsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 1, 2, slow, time.Now)
		fill(t, l)
		got := false
		go func() { got = l.acquire(t.Context()) == nil }()
		synctest.Wait()
		require.False(t, got)
		l.observe(time.Millisecond, false)
		synctest.Wait()
		assert.True(t, got)
		assert.Equal(t, 2, inFlightOf(l))
	})
}

func TestLimiterForgetsCanceledCallers(t *testing.T) {
	for name, gone := range map[string]int{"the first in the queue": 0, "one in the middle": 1, "the last": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(1, 1, 1, slow, time.Now)
				fill(t, l)
				ctx, cancel := context.WithCancel(t.Context())
				var order []int
				var gaveUp error
				for i := range 3 {
					go func() {
						mine := t.Context()
						if i == gone {
							mine = ctx
						}
						if err := l.acquire(mine); err != nil {
							gaveUp = err
							return
						}
						order = append(order, i)
						l.release()
					}()
					synctest.Wait()
				}
				cancel()
				synctest.Wait()
				require.ErrorIs(t, gaveUp, context.Canceled)
				assert.Empty(t, order, "its place in the queue is gone")
				l.release()
				synctest.Wait()
				assert.Len(t, order, 2)
				assert.NotContains(t, order, gone)
				assert.IsIncreasing(t, order)
				assert.Zero(t, inFlightOf(l))
			})
		})
	}
}

// A caller that is canceled while it gets a place must pass the place on.
func TestLimiterLosesNoPlaceToACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 1, 1, slow, time.Now)
		fill(t, l)
		ctx, cancel := context.WithCancel(t.Context())
		var first error
		second := false
		go func() { first = l.acquire(ctx) }()
		synctest.Wait()
		go func() { second = l.acquire(t.Context()) == nil }()
		synctest.Wait()
		l.mu.Lock() // so that the first has its place by the time that it looks
		cancel()
		l.inFlight--
		l.admit()
		l.mu.Unlock()
		synctest.Wait()
		require.ErrorIs(t, first, context.Canceled)
		assert.True(t, second, "the next in the queue gets it")
		assert.Equal(t, 1, inFlightOf(l))
	})
}
