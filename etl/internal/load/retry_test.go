package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// gauge notes what it is set to.
type gauge struct {
	mu  sync.Mutex
	set []bool
}

func (g *gauge) to(up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set = append(g.set, up)
}

// unbudgeted is a retrier as a Writer makes it, but without a budget, and with its gauge and its log.
func unbudgeted() (*retrier, *gauge, *logtest.Hook) {
	logger, logged := logtest.NewNullLogger()
	g := &gauge{}
	return &retrier{
		budget: rate.NewLimiter(rate.Inf, 1), first: 20 * time.Millisecond, most: 2 * time.Second,
		store: &availability{pause: time.Second, remind: 30 * time.Second, now: time.Now, logger: logger, set: g.to},
	}, g, logged
}

func nothing(cassandra.Reason) {}

func TestWhatIsTriedAgain(t *testing.T) {
	again := map[cassandra.Reason]bool{
		cassandra.ReasonNoHosts: true, cassandra.ReasonUnavailable: true, // when the store is back

		cassandra.ReasonConnection: true, cassandra.ReasonTimeout: true, cassandra.ReasonWriteTimeout: true, cassandra.ReasonReadTimeout: true,
		cassandra.ReasonOverloaded: true, cassandra.ReasonFailure: true, cassandra.ReasonServer: true,

		cassandra.ReasonNotFound: false, cassandra.ReasonRefused: false, cassandra.ReasonUnauthorized: false,
		cassandra.ReasonCanceled: false, cassandra.ReasonOther: false,
	}
	for _, reason := range cassandra.Reasons {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want, known := again[reason]
				require.True(t, known, "a new reason: say what is to be done about it")
				r, _, _ := unbudgeted()
				var told []cassandra.Reason
				tries, err := 0, failure(reason)
				got := r.do(t.Context(), func(context.Context) error {
					if tries++; tries == 1 {
						return err
					}
					return nil
				}, func(reason cassandra.Reason) { told = append(told, reason) })
				assert.Equal(t, []cassandra.Reason{reason}, told, "each failure is told of, once")
				if want {
					assert.NoError(t, got)
					assert.Greater(t, tries, 1)
				} else {
					assert.Same(t, err, got)
					assert.Equal(t, 1, tries)
				}
			})
		})
	}
}

func TestAnErrorOfNobodyKnowsWhatIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := unbudgeted()
		tries, odd := 0, errors.New("odd")
		assert.ErrorIs(t, r.do(t.Context(), func(context.Context) error { tries++; return odd }, nothing), odd)
		assert.Equal(t, 1, tries)
	})
}

func TestPausesDoubleWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := unbudgeted()
		var at []time.Time
		require.NoError(t, r.do(t.Context(), func(context.Context) error {
			if at = append(at, time.Now()); len(at) <= 12 {
				return failure(cassandra.ReasonTimeout)
			}
			return nil
		}, nothing))
		pause := 20 * time.Millisecond
		for i := 1; i < len(at); i++ {
			got := at[i].Sub(at[i-1])
			assert.GreaterOrEqual(t, got, pause/2, "pause %d", i)
			assert.LessOrEqual(t, got, pause, "pause %d", i)
			pause = min(2*pause, 2*time.Second)
		}
		assert.Equal(t, 2*time.Second, pause, "the longest was come to")
	})
}

func TestJitterIsBetweenHalfAndWhole(t *testing.T) {
	for _, d := range []time.Duration{0, 1, 2, 3, 20 * time.Millisecond, 2 * time.Second} {
		t.Run(d.String(), func(t *testing.T) {
			least, most := d, time.Duration(0)
			for range 5000 {
				got := jitter(d)
				least, most = min(least, got), max(most, got)
			}
			assert.GreaterOrEqual(t, least, d/2)
			assert.LessOrEqual(t, most, d)
			assert.InDelta(t, d/2, least, float64(d)/100, "half is met")
			assert.InDelta(t, d, most, float64(d)/100+1, "the whole is met")
		})
	}
}

func TestCtxEndsWaitingOfEveryKind(t *testing.T) {
	for name, c := range map[string]struct {
		reason cassandra.Reason
		spend  bool // whether the budget is spent
		after  time.Duration
	}{
		"in the pause":          {cassandra.ReasonTimeout, false, 5 * time.Millisecond},
		"for the budget":        {cassandra.ReasonTimeout, true, time.Minute},
		"between two questions": {cassandra.ReasonUnavailable, false, 100 * time.Millisecond},
		"after an hour of them": {cassandra.ReasonUnavailable, false, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				r, _, _ := unbudgeted()
				if c.spend {
					r.budget = rate.NewLimiter(rate.Every(24*time.Hour), 1)
					require.True(t, r.budget.Allow())
				}
				ended := make(chan error, 1)
				go func() {
					ended <- r.do(ctx, func(context.Context) error { return failure(c.reason) }, nothing)
				}()
				time.Sleep(c.after)
				synctest.Wait()
				assert.Empty(t, ended)
				at := time.Now()
				cancel()
				require.ErrorIs(t, <-ended, context.Canceled)
				assert.Zero(t, time.Since(at), "at once")
			})
		})
	}
}

// A write that fails because ctx ended says nothing about the store.
func TestAFailureAfterTheEndIsNotTheStores(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonCanceled, cassandra.ReasonTimeout, cassandra.ReasonNoHosts, cassandra.ReasonRefused} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				r, g, _ := unbudgeted()
				err := r.do(ctx, func(context.Context) error { cancel(); return failure(reason) }, func(cassandra.Reason) { t.Error("told as a failure") })
				require.ErrorIs(t, err, context.Canceled)
				assert.Empty(t, g.set)
			})
		})
	}
}

// cluster is a store that is away until it is not.
type cluster struct {
	away   atomic.Bool
	reason cassandra.Reason

	mu    sync.Mutex
	asked map[int]int // tries while it was away, by write
	under int         // tries under way while it was away
	most  int
}

// write is a try of one write that takes a while.
func (c *cluster) write(id int) func(context.Context) error {
	return func(context.Context) error {
		if !c.away.Load() {
			return nil
		}
		c.mu.Lock()
		c.asked[id]++
		c.under++
		c.most = max(c.most, c.under)
		c.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		c.under--
		c.mu.Unlock()
		return failure(c.reason)
	}
}

func (c *cluster) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.most = map[int]int{}, 0
}

func TestOneWriteAsksWhileTheOthersWait(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonNoHosts, cassandra.ReasonUnavailable} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, g, _ := unbudgeted()
				c := &cluster{reason: reason, asked: map[int]int{}}
				c.away.Store(true)
				var stored atomic.Int64
				var done sync.WaitGroup
				start := func(id int) {
					done.Go(func() {
						assert.NoError(t, r.do(t.Context(), c.write(id), nothing))
						stored.Add(1)
					})
				}
				for id := range 20 {
					start(id) // all are under way when the store goes
				}
				time.Sleep(200 * time.Millisecond)
				c.reset()
				start(20) // and one comes while it is away
				time.Sleep(time.Minute)
				c.mu.Lock()
				assert.Len(t, c.asked, 1, "one write asks, always the same")
				assert.Equal(t, 1, c.most, "one question at a time")
				for _, times := range c.asked {
					assert.Greater(t, times, 60*10/11-1, "about one question a second, at the least")
					assert.Less(t, times, 60*10/6+1, "and no more than one in half a second and its answer")
				}
				c.mu.Unlock()
				assert.Zero(t, stored.Load())
				assert.Equal(t, []bool{false}, g.set)

				c.away.Store(false)
				back := time.Now()
				done.Wait()
				assert.Equal(t, int64(21), stored.Load(), "then all go on")
				assert.LessOrEqual(t, time.Since(back), 1100*time.Millisecond)
				assert.Equal(t, []bool{false, true}, g.set)
			})
		})
	}
}

func TestTheStoreCanBeAwayTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g, logged := unbudgeted()
		c := &cluster{reason: cassandra.ReasonNoHosts, asked: map[int]int{}}
		for range 2 {
			c.away.Store(true)
			time.AfterFunc(10*time.Second, func() { c.away.Store(false) })
			require.NoError(t, r.do(t.Context(), c.write(1), nothing))
		}
		assert.Equal(t, []bool{false, true, false, true}, g.set)
		assert.Len(t, logged.AllEntries(), 4)
	})
}

func TestAwayIsLoggedOnceAndThenReminded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, logged := unbudgeted()
		c := &cluster{reason: cassandra.ReasonUnavailable, asked: map[int]int{}}
		c.away.Store(true)
		time.AfterFunc(100*time.Second, func() { c.away.Store(false) })
		var done sync.WaitGroup
		for id := range 20 {
			done.Go(func() { assert.NoError(t, r.do(t.Context(), c.write(id), nothing)) })
		}
		done.Wait()
		var lines []string
		for _, e := range logged.AllEntries() {
			lines = append(lines, fmt.Sprintf("%s: %s", e.Level, e.Message))
		}
		assert.Equal(t, []string{
			"warning: store is away; waiting until it takes writes again",
			"warning: store is still away",
			"warning: store is still away",
			"warning: store is still away",
			"info: store takes writes again",
		}, lines)
		entries := logged.AllEntries()
		assert.Equal(t, "unavailable", entries[0].Data["reason"])
		assert.Equal(t, "unavailable", entries[1].Data["reason"])
		assert.Contains(t, entries[1].Data, "away")
		away, err := time.ParseDuration(entries[4].Data["away"].(string))
		require.NoError(t, err)
		assert.InDelta(t, 100, away.Seconds(), 1.5)
		assert.Equal(t, logrus.InfoLevel, entries[4].Level)
	})
}

// Who asks may be told to stop while others still wait: another asks then.
func TestAnotherAsksWhenTheFirstIsToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, g, _ := unbudgeted()
		c := &cluster{reason: cassandra.ReasonNoHosts, asked: map[int]int{}}
		c.away.Store(true)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- r.do(ctx, c.write(1), nothing) }()
		time.Sleep(150 * time.Millisecond)
		go func() { second <- r.do(t.Context(), c.write(2), nothing) }()
		time.Sleep(10 * time.Second)
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		c.reset()
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		assert.Positive(t, c.asked[2])
		c.mu.Unlock()
		assert.Empty(t, second)
		c.away.Store(false)
		require.NoError(t, <-second)
		assert.Equal(t, []bool{false, true, false, true}, g.set)
	})
}

// A store that answers with another error is there; what the error means is the write's affair.
func TestAnotherAnswerEndsTheWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		answer cassandra.Reason
		fails  bool
	}{
		"one that is tried again": {cassandra.ReasonOverloaded, false},
		"one that is not":         {cassandra.ReasonRefused, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, g, _ := unbudgeted()
				tries := 0
				other := make(chan error, 1)
				mine := make(chan error, 1)
				go func() {
					mine <- r.do(t.Context(), func(context.Context) error {
						switch tries++; {
						case tries <= 3:
							return failure(cassandra.ReasonNoHosts)
						case tries <= 5:
							return failure(c.answer)
						default:
							return nil
						}
					}, nothing)
				}()
				synctest.Wait()
				go func() { other <- r.do(t.Context(), func(context.Context) error { return nil }, nothing) }()
				synctest.Wait()
				assert.Empty(t, other, "waits")
				require.NoError(t, <-other)
				err := <-mine
				if c.fails {
					assert.Equal(t, c.answer, cassandra.ReasonOf(err))
				} else {
					assert.NoError(t, err)
				}
				assert.Equal(t, []bool{false, true}, g.set)
			})
		})
	}
}
