package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func TestTheLimitIsNeverExceededAndServesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2, 1, 10, time.Second, time.Now)
		turns := make(chan int, 6)
		for i := range 6 {
			go func() {
				if l.acquire(t.Context()) == nil {
					turns <- i
					time.Sleep(time.Duration(i+1) * time.Second)
					l.release()
				}
			}()
			synctest.Wait()
			inFlight, limit := l.state()
			require.LessOrEqual(t, inFlight, limit)
		}
		time.Sleep(time.Minute)
		for i := range 6 {
			require.Equal(t, i, <-turns)
		}
		inFlight, _ := l.state()
		require.Zero(t, inFlight)
	})
}

func TestAWaiterThatGivesUpTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 1, 10, time.Second, time.Now)
		require.NoError(t, l.acquire(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- l.acquire(ctx) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-gaveUp, context.Canceled)
		l.release()
		require.NoError(t, l.acquire(t.Context()), "the place is free for the next")
	})
}

func TestTheLimitFollowsTheAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(10, 4, 20, 100*time.Millisecond, time.Now)
		quick := func(n int) {
			for range n {
				l.observe(time.Millisecond, false)
			}
		}
		quick(1000)
		_, limit := l.state()
		require.Equal(t, 10, limit, "a limit that is not reached has not been tested")

		for range 10 {
			require.NoError(t, l.acquire(t.Context()))
		}
		quick(12)
		_, limit = l.state()
		require.Equal(t, 11, limit, "one more for a round of quick answers")

		time.Sleep(time.Second)
		for range 5 {
			l.observe(time.Second, false)
			l.observe(time.Millisecond, true)
		}
		_, limit = l.state()
		require.Equal(t, 8, limit, "a fifth fewer, once for a burst")
		for range 20 {
			time.Sleep(time.Second)
			l.observe(time.Second, false)
		}
		_, limit = l.state()
		require.Equal(t, 4, limit, "never below the least")
		quick(10_000)
		_, limit = l.state()
		require.LessOrEqual(t, limit, 20)
	})
}

func newRetrier(logger logrus.FieldLogger, set func(bool)) *retrier {
	return &retrier{
		budget: rate.NewLimiter(100, 100), first: 20 * time.Millisecond, most: time.Second,
		store: &availability{pause: time.Second, remind: 30 * time.Second, now: time.Now, logger: logger, set: set},
	}
}

func silent() *logrus.Logger {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logger
}

func failure(reason cassandra.Reason) error {
	return &cassandra.Error{Op: "write", Reason: reason, Err: errors.New("of a node")}
}

func TestWhatIsWorthAnotherTry(t *testing.T) {
	for _, reason := range cassandra.Reasons {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, failures := 0, 0
				err := newRetrier(silent(), func(bool) {}).do(t.Context(), func(context.Context) error {
					if tries++; tries < 4 {
						return failure(reason)
					}
					return nil
				}, func(got cassandra.Reason) {
					require.Equal(t, reason, got)
					failures++
				})
				if reason.Advice() == cassandra.GiveUp {
					require.Error(t, err)
					require.Equal(t, 1, tries)
					return
				}
				require.NoError(t, err)
				require.GreaterOrEqual(t, tries, 4)
				require.Positive(t, failures)
			})
		})
	}
	require.Equal(t, cassandra.GiveUp, cassandra.ReasonRefused.Advice())
	require.Equal(t, cassandra.GiveUp, cassandra.ReasonUnauthorized.Advice())
	require.Equal(t, cassandra.Retry, cassandra.ReasonWriteTimeout.Advice())
	require.Equal(t, cassandra.Wait, cassandra.ReasonUnavailable.Advice())
}

func TestRetriesKeepToTheirBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetrier(silent(), func(bool) {})
		r.budget = rate.NewLimiter(10, 1)
		var tries atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 200 {
			go func() {
				_ = r.do(ctx, func(context.Context) error { tries.Add(1); return failure(cassandra.ReasonTimeout) }, func(cassandra.Reason) {})
			}()
		}
		<-ctx.Done()
		synctest.Wait()
		require.LessOrEqual(t, tries.Load(), int64(200+101), "first tries are free, retries are 10 a second")
		require.Greater(t, tries.Load(), int64(200+80))
	})
}

func TestOneWriteAsksWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger, lines := test.NewNullLogger()
		var states []bool
		r := newRetrier(logger, func(up bool) { states = append(states, up) })
		var away atomic.Bool
		var asked atomic.Int64
		away.Store(true)
		write := func(context.Context) error {
			asked.Add(1)
			if away.Load() {
				return failure(cassandra.ReasonNoHosts)
			}
			return nil
		}
		done := make(chan error, 50)
		for range 50 {
			go func() { done <- r.do(t.Context(), write, func(cassandra.Reason) {}) }()
		}
		synctest.Wait()
		first := asked.Load()
		time.Sleep(time.Minute)
		perMinute := asked.Load() - first
		require.LessOrEqual(t, perMinute, int64(120), "one asks, about once a second")
		require.Greater(t, perMinute, int64(50))
		require.Empty(t, done)

		away.Store(false)
		for range 50 {
			require.NoError(t, <-done)
		}
		require.Equal(t, []bool{false, true}, states)
		var said []string
		for _, entry := range lines.AllEntries() {
			said = append(said, entry.Message)
		}
		require.Equal(t, "store is away; waiting until it takes writes again", said[0])
		require.Equal(t, "store takes writes again", said[len(said)-1])
		require.Len(t, said, 3, "said once, reminded of once in a minute")
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRetrier(silent(), func(bool) {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 3)
		for range 3 {
			go func() {
				done <- r.do(ctx, func(context.Context) error { return failure(cassandra.ReasonUnavailable) }, func(cassandra.Reason) {})
			}()
		}
		time.Sleep(5 * time.Second)
		cancel()
		for range 3 {
			require.ErrorIs(t, <-done, context.Canceled)
		}
	})
}

func refused(position int64, raw string) pipeline.Refused {
	return pipeline.Refused{Rejection: telemetry.Reject(telemetry.LatRange, "lat", "91", "give degrees from -90 to 90"), Position: position, Raw: raw}
}

func TestDeadLettersKeepEveryRecordWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "letters")
	second := 0
	at := func() time.Time { second++; return time.Unix(1_790_000_000+int64(second), 0) }
	d := NewDeadLetterFile(dir, 2000, at)
	const n = 40
	for i := range int64(n) {
		require.NoError(t, d.Append("csvfile", "a.csv", []pipeline.Refused{refused(i, fmt.Sprintf("raw \"%d\"\xff", i))}))
	}
	require.NoError(t, d.Append("csvfile", "a.csv", nil))
	require.NoError(t, d.Close())
	files, err := Files(dir)
	require.NoError(t, err)
	require.Greater(t, len(files), 3, "rotated by size")
	require.Equal(t, d.Path(), files[len(files)-1], "the newest last")
	next := int64(0)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.LessOrEqual(t, len(text), 2000)
		for line := range strings.Lines(string(text)) {
			var letter DeadLetter
			require.NoError(t, json.Unmarshal([]byte(line), &letter))
			require.Equal(t, DeadLetter{
				Time: letter.Time, Source: "csvfile", Origin: "a.csv", Position: next, Reason: "lat_range", Field: "lat", Value: "91",
				Remedy: "give degrees from -90 to 90", Raw: fmt.Sprintf("raw \"%d\"\uFFFD", next),
			}, letter)
			next++
		}
	}
	require.EqualValues(t, n, next)
}

func TestATornDeadLetterSpoilsNoOther(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deadletters.ndjson")
	require.NoError(t, os.WriteFile(path, []byte(`{"raw":"torn by a cra`), 0o600))
	d := NewDeadLetterFile(dir, 1<<20, time.Now)
	require.NoError(t, d.Append("s", "o", []pipeline.Refused{refused(1, "whole")}))
	require.NoError(t, d.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 2)
	require.True(t, json.Valid([]byte(lines[1])))
}

func TestDeadLettersSayWhereTheyCouldNotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	err := NewDeadLetterFile(filepath.Join(file, "dir"), 1000, time.Now).Append("s", "o", []pipeline.Refused{refused(1, "x")})
	require.ErrorContains(t, err, "write dead letters to "+file)
}

func clean(records int) pipeline.Clean { return pipeline.Clean{Items: make([]pipeline.Item, records)} }

// gathering runs gather and gives its two ends.
func gathering(t *testing.T, o Options) (in chan pipeline.Clean, windows chan *window, ended chan error) {
	w := &Writer{options: o, now: time.Now}
	in, windows, ended = make(chan pipeline.Clean), make(chan *window), make(chan error, 1)
	go func() { ended <- w.gather(t.Context(), in, windows); close(windows) }()
	return in, windows, ended
}

func TestAWindowGoesWhenItHasWaitedLongEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 100, Linger: time.Second})
		began := time.Now()
		in <- clean(10)
		time.Sleep(400 * time.Millisecond)
		in <- clean(10)
		got := <-windows
		require.Equal(t, 20, got.records)
		require.Equal(t, time.Second, time.Since(began))
		close(in)
		require.NoError(t, <-ended)
	})
}

func TestAWindowGrowsWhileNobodyTakesItAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 100, Linger: time.Second})
		for range 10 {
			in <- clean(10)
			time.Sleep(time.Second)
		}
		select {
		case in <- clean(10):
			t.Fatal("a full window takes no more")
		case <-time.After(time.Hour):
		}
		require.Equal(t, 100, (<-windows).records)
		in <- clean(3)
		close(in)
		require.Equal(t, 3, (<-windows).records, "what is left goes at the end, without waiting")
		require.NoError(t, <-ended)
	})
}

func TestTimeToLive(t *testing.T) {
	const now, day = int64(1_790_000_000_000), int64(86_400)
	require.EqualValues(t, 30*day, ttlSeconds(now, now))
	require.EqualValues(t, 29*day, ttlSeconds(now-day*1000, now))
	require.EqualValues(t, 1, ttlSeconds(now-30*day*1000, now), "never none, which would be for ever")
	require.EqualValues(t, 30*day, ttlSeconds(now+60_000, now), "a clock that runs ahead gains nothing")
}

func TestDevicesAreForgottenOnlyWhenTheirWritesAreDurable(t *testing.T) {
	settled := int64(0)
	s := newDevices(10, func() int64 { return settled })
	for i := range 100 {
		s.put(fmt.Sprint("d", i), 1)
	}
	for i := range 100 {
		require.NotNil(t, s.touch(fmt.Sprint("d", i), 1), "window 1 is under way")
	}
	settled = 1
	for i := range 50 {
		s.put(fmt.Sprint("e", i), 2)
	}
	require.Nil(t, s.touch("d99", 3), "it is durable, and the memory small")
	require.NotNil(t, s.touch("e49", 3))
	settled = 3
	for i := range 1000 {
		s.put(fmt.Sprint("f", i), 3)
	}
	require.LessOrEqual(t, len(s.young)+len(s.old), 10)
}

func TestAMutationIsOfOnePartitionAndBounded(t *testing.T) {
	w := &Writer{options: Options{Mode: Batch, BatchRows: 100}}
	items := make([]*pipeline.Item, 250)
	for i := range items {
		items[i] = &pipeline.Item{Record: telemetry.Record{DeviceID: "vehicle-0001", FleetID: "fleet-001", Zone: "unknown"}}
	}
	require.Equal(t, 97, w.fitting(items), "16 KiB")
	for _, item := range items {
		item.DeviceID, item.FleetID, item.Zone = strings.Repeat("d", 128), strings.Repeat("f", 128), strings.Repeat("z", 128)
	}
	require.Equal(t, batchBytes/(rowBytes+3*128), w.fitting(items), "long names make smaller mutations")
	w.options.BatchRows = 10
	require.Equal(t, 10, w.fitting(items))
	require.Equal(t, 3, w.fitting(items[:3]))
	w.options.Mode = Async
	require.Equal(t, 1, w.fitting(items))

	p := newPlan(4)
	d := &device{id: "d"}
	midnight := int64(1_790_000_000_000 / 86_400_000 * 86_400_000)
	for _, ms := range []int64{midnight - 1, midnight, midnight + 1, midnight - 2} {
		p.add(d, &pipeline.Item{Record: telemetry.Record{DeviceID: "d", FleetID: "f", TimeMs: ms}})
	}
	require.Len(t, p.groups, 2, "a day is a partition")
	require.Len(t, p.groups[0].items, 2)
	require.Len(t, p.groups[1].items, 2)
}
