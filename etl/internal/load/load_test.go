package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

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

func clean(records int) pipeline.ValidBatch {
	return pipeline.ValidBatch{Items: make([]pipeline.Item, records)}
}

// gathering runs gather and gives its two ends.
func gathering(t *testing.T, o Options) (in chan pipeline.ValidBatch, windows chan *window, ended chan error) {
	w := &Writer{options: o, now: time.Now}
	in, windows, ended = make(chan pipeline.ValidBatch), make(chan *window), make(chan error, 1)
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
	require.Equal(t, 91, w.fitting(items), "16 KiB")
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

// Batches of which nothing is left to store would gather without end while the store is away.
func TestEmptyBatchesFillAWindowToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 100, Linger: time.Second})
		for range 100 {
			in <- clean(0)
		}
		select {
		case in <- clean(0):
			t.Fatal("a full window takes no more")
		case <-time.After(time.Hour):
		}
		require.Len(t, (<-windows).batches, 100)
		close(in)
		require.NoError(t, <-ended)
	})
}
