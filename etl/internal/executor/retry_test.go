package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

var messages = ratelog.Messages{Down: "down", Still: "still down", Up: "up"}

func failure(reason cassandra.Reason) error {
	return &cassandra.Error{Op: "write", Reason: reason, Err: errors.New("of a node")}
}

func TestRetriesKeepToTheirBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := unbudgeted()
		r.budget = rate.NewLimiter(10, 1)
		var tries atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 200 {
			go func() {
				_ = r.do(ctx, func(context.Context) error { tries.Add(1); return failure(cassandra.ReasonTimeout) }, ignore)
			}()
		}
		<-ctx.Done()
		synctest.Wait()
		require.LessOrEqual(t, tries.Load(), int64(200+101), "first tries are free, retries are limited to 10 per second")
		require.Greater(t, tries.Load(), int64(200+80))
	})
}

// gauge records the values that it is set to.
type gauge struct {
	mu  sync.Mutex
	set []bool
}

func (g *gauge) to(up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set = append(g.set, up)
}

// unbudgeted returns a retrier as New makes it, but without a budget, with its gauge and its log.
func unbudgeted() (*retrier, *gauge, *logtest.Hook) {
	logger, logged := logtest.NewNullLogger()
	g := &gauge{}
	return &retrier{
		budget: rate.NewLimiter(rate.Inf, 1), first: 20 * time.Millisecond, most: 2 * time.Second,
		cluster: &availability{pause: time.Second, set: g.to, outage: ratelog.New(logger, time.Now, 30*time.Second, messages)},
	}, g, logged
}

func ignore(cassandra.Reason) {}

func TestReasonsThatAreRetried(t *testing.T) {
	retried := map[cassandra.Reason]bool{
		cassandra.ReasonNoHosts: true, cassandra.ReasonUnavailable: true, // once the cluster is back

		cassandra.ReasonConnection: true, cassandra.ReasonTimeout: true, cassandra.ReasonWriteTimeout: true, cassandra.ReasonReadTimeout: true,
		cassandra.ReasonOverloaded: true, cassandra.ReasonFailure: true, cassandra.ReasonServer: true,

		cassandra.ReasonNotFound: false, cassandra.ReasonInvalid: false, cassandra.ReasonUnauthorized: false,
		cassandra.ReasonCanceled: false, cassandra.ReasonOther: false,
	}
	for _, reason := range cassandra.Reasons {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				want, known := retried[reason]
				require.True(t, known, "a new reason: add it to this table")
				r, _, _ := unbudgeted()
				var reported []cassandra.Reason
				tries, err := 0, failure(reason)
				got := r.do(t.Context(), func(context.Context) error {
					if tries++; tries == 1 {
						return err
					}
					return nil
				}, func(reason cassandra.Reason) { reported = append(reported, reason) })
				assert.Equal(t, []cassandra.Reason{reason}, reported, "each failure is reported once")
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

func TestUnknownErrorIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := unbudgeted()
		tries, odd := 0, errors.New("odd")
		assert.ErrorIs(t, r.do(t.Context(), func(context.Context) error { tries++; return odd }, ignore), odd)
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
		}, ignore))
		pause := 20 * time.Millisecond
		for i := 1; i < len(at); i++ {
			got := at[i].Sub(at[i-1])
			assert.GreaterOrEqual(t, got, pause/2, "pause %d", i)
			assert.LessOrEqual(t, got, pause, "pause %d", i)
			pause = min(2*pause, 2*time.Second)
		}
		assert.Equal(t, 2*time.Second, pause, "the longest pause was reached")
	})
}

func TestContextEndsEveryWait(t *testing.T) {
	for name, c := range map[string]struct {
		reason cassandra.Reason
		spend  bool // spend the budget first
		after  time.Duration
	}{
		"in the pause":            {cassandra.ReasonTimeout, false, 5 * time.Millisecond},
		"for the budget":          {cassandra.ReasonTimeout, true, time.Minute},
		"between two probes":      {cassandra.ReasonUnavailable, false, 100 * time.Millisecond},
		"after an hour of probes": {cassandra.ReasonUnavailable, false, time.Hour},
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
					ended <- r.do(ctx, func(context.Context) error { return failure(c.reason) }, ignore)
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

// A write that fails because ctx ended says nothing about the cluster.
func TestFailureAfterTheContextEndedIsNotCounted(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonCanceled, cassandra.ReasonTimeout, cassandra.ReasonNoHosts, cassandra.ReasonInvalid} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				r, g, _ := unbudgeted()
				err := r.do(ctx, func(context.Context) error { cancel(); return failure(reason) }, func(cassandra.Reason) { t.Error("reported as a failure") })
				require.ErrorIs(t, err, context.Canceled)
				assert.Empty(t, g.set)
			})
		})
	}
}

// cluster is a cluster that is unavailable while down is set.
type cluster struct {
	down   atomic.Bool
	reason cassandra.Reason

	mu       sync.Mutex
	probes   map[int]int // tries while it was down, by write
	inFlight int         // tries in flight while it was down
	most     int
}

// write is a try of one write that takes a while.
func (c *cluster) write(id int) func(context.Context) error {
	return func(context.Context) error {
		if !c.down.Load() {
			return nil
		}
		c.mu.Lock()
		c.probes[id]++
		c.inFlight++
		c.most = max(c.most, c.inFlight)
		c.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		c.inFlight--
		c.mu.Unlock()
		return failure(c.reason)
	}
}

func (c *cluster) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probes, c.most = map[int]int{}, 0
}

func TestOneWriteProbesWhileTheOthersWait(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonNoHosts, cassandra.ReasonUnavailable} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, g, _ := unbudgeted()
				c := &cluster{reason: reason, probes: map[int]int{}}
				c.down.Store(true)
				var stored atomic.Int64
				var done sync.WaitGroup
				start := func(id int) {
					done.Go(func() {
						assert.NoError(t, r.do(t.Context(), c.write(id), ignore))
						stored.Add(1)
					})
				}
				for id := range 20 {
					start(id) // all are in flight when the cluster fails
				}
				time.Sleep(200 * time.Millisecond)
				c.reset()
				start(20) // and one starts while it is down
				time.Sleep(time.Minute)
				c.mu.Lock()
				assert.Len(t, c.probes, 1, "one write probes, always the same")
				assert.Equal(t, 1, c.most, "one probe at a time")
				for _, times := range c.probes {
					assert.Greater(t, times, 60*10/11-1, "about one probe per second, at least")
					assert.Less(t, times, 60*10/6+1, "at most one probe per half second")
				}
				c.mu.Unlock()
				assert.Zero(t, stored.Load())
				assert.Equal(t, []bool{false}, g.set)

				c.down.Store(false)
				back := time.Now()
				done.Wait()
				assert.Equal(t, int64(21), stored.Load(), "then all succeed")
				assert.LessOrEqual(t, time.Since(back), 1100*time.Millisecond)
				assert.Equal(t, []bool{false, true}, g.set)
			})
		})
	}
}

func TestClusterCanFailTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, g, logged := unbudgeted()
		c := &cluster{reason: cassandra.ReasonNoHosts, probes: map[int]int{}}
		for range 2 {
			c.down.Store(true)
			time.AfterFunc(10*time.Second, func() { c.down.Store(false) })
			require.NoError(t, r.do(t.Context(), c.write(1), ignore))
		}
		assert.Equal(t, []bool{false, true, false, true}, g.set)
		assert.Len(t, logged.AllEntries(), 4)
	})
}

func TestOutageIsLoggedOnceAndThenReminded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, logged := unbudgeted()
		c := &cluster{reason: cassandra.ReasonUnavailable, probes: map[int]int{}}
		c.down.Store(true)
		time.AfterFunc(100*time.Second, func() { c.down.Store(false) })
		var done sync.WaitGroup
		for id := range 20 {
			done.Go(func() { assert.NoError(t, r.do(t.Context(), c.write(id), ignore)) })
		}
		done.Wait()
		var lines []string
		for _, e := range logged.AllEntries() {
			lines = append(lines, fmt.Sprintf("%s: %s", e.Level, e.Message))
		}
		assert.Equal(t, []string{
			"warning: down", "warning: still down", "warning: still down", "warning: still down", "info: up",
		}, lines)
		entries := logged.AllEntries()
		assert.Equal(t, cassandra.ReasonUnavailable, cassandra.ReasonOf(entries[0].Data[logrus.ErrorKey].(error)))
		lasted, err := time.ParseDuration(entries[4].Data["duration"].(string))
		require.NoError(t, err)
		assert.InDelta(t, 100, lasted.Seconds(), 1.5)
	})
}

// The request that probes may be canceled while others wait: another request probes then.
func TestAnotherRequestProbesWhenTheFirstIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, g, _ := unbudgeted()
		c := &cluster{reason: cassandra.ReasonNoHosts, probes: map[int]int{}}
		c.down.Store(true)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- r.do(ctx, c.write(1), ignore) }()
		time.Sleep(150 * time.Millisecond)
		go func() { second <- r.do(t.Context(), c.write(2), ignore) }()
		time.Sleep(10 * time.Second)
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		c.reset()
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		assert.Positive(t, c.probes[2])
		c.mu.Unlock()
		assert.Empty(t, second)
		c.down.Store(false)
		require.NoError(t, <-second)
		assert.Equal(t, []bool{false, true, false, true}, g.set)
	})
}

// A cluster that returns another error is available; the write itself handles the error.
func TestAnotherErrorEndsTheOutage(t *testing.T) {
	for name, c := range map[string]struct {
		reason cassandra.Reason
		fails  bool
	}{
		"one that is retried": {cassandra.ReasonOverloaded, false},
		"one that is not":     {cassandra.ReasonInvalid, true},
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
							return failure(c.reason)
						default:
							return nil
						}
					}, ignore)
				}()
				synctest.Wait()
				go func() { other <- r.do(t.Context(), func(context.Context) error { return nil }, ignore) }()
				synctest.Wait()
				assert.Empty(t, other, "waits")
				require.NoError(t, <-other)
				err := <-mine
				if c.fails {
					assert.Equal(t, c.reason, cassandra.ReasonOf(err))
				} else {
					assert.NoError(t, err)
				}
				assert.Equal(t, []bool{false, true}, g.set)
			})
		})
	}
}

// busy has a request succeed every so often until the test ends.
func busy(t *testing.T, x *Executor, every time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for backoff.Sleep(ctx, every) == nil {
			_ = x.Do(ctx, cassandra.TableInstances, func(context.Context) error { return nil })
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// A read that fails while others succeed, or takes too long, is given up, and no caller waits for it.
func TestReadThatFailsAloneIsGivenUp(t *testing.T) {
	for name, read := range map[string]func(context.Context) error{
		"at once":       func(context.Context) error { return failure(cassandra.ReasonFailure) },
		"after a while": func(context.Context) error { time.Sleep(5 * time.Second); return failure(cassandra.ReasonTimeout) },
		"never": func(ctx context.Context) error {
			<-ctx.Done()
			return &cassandra.Error{Op: "read", Reason: cassandra.ReasonCanceled, Err: ctx.Err()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger, _ := logtest.NewNullLogger()
				x := New(Options{MaxInFlight: 1, RetryRate: 10}, logger, prometheus.NewRegistry(), time.Now)
				busy(t, x, 5*time.Second)
				began := time.Now()
				err := x.DoWithin(t.Context(), PartitionLimit, cassandra.TableHours, read)
				require.True(t, cassandra.Permanent(err), err)
				require.LessOrEqual(t, time.Since(began), PartitionLimit)
				require.ErrorContains(t, err, cassandra.TableHours)
			})
		})
	}
}

// While nothing succeeds, the fault is in the cluster: a read goes on, and succeeds when the cluster is back.
func TestReadIsNotGivenUpWhileNothingSucceeds(t *testing.T) {
	for _, reason := range []cassandra.Reason{cassandra.ReasonTimeout, cassandra.ReasonUnavailable} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logger, _ := logtest.NewNullLogger()
				x := New(Options{MaxInFlight: 1, RetryRate: 100}, logger, prometheus.NewRegistry(), time.Now)
				back := time.Now().Add(10 * time.Minute)
				request := func(context.Context) error {
					time.Sleep(time.Second)
					if time.Now().Before(back) {
						return failure(reason)
					}
					return nil
				}
				require.NoError(t, x.Do(t.Context(), cassandra.TableInstances, func(context.Context) error { return nil }))
				ended := make(chan error, 1)
				go func() { ended <- x.Do(t.Context(), cassandra.TableInstances, request) }()
				require.NoError(t, x.DoWithin(t.Context(), PartitionLimit, cassandra.TableHours, request))
				require.NoError(t, <-ended)
			})
		})
	}
}
