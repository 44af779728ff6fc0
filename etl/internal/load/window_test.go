package load

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

func TestAFullWindowGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 100, Linger: time.Hour})
		began := time.Now()
		in <- clean(60)
		in <- clean(60)
		got := <-windows
		assert.Equal(t, 120, got.records, "a batch is never cut")
		assert.Zero(t, time.Since(began))
		close(in)
		require.NoError(t, <-ended)
	})
}

// The first record of a window waits for Linger, however many come after it.
func TestATrickleDoesNotPutOffAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 1000, Linger: time.Second})
		go func() {
			for range 100 {
				in <- clean(1)
				time.Sleep(90 * time.Millisecond)
			}
			close(in)
		}()
		began, records := time.Now(), 0
		for w := range windows {
			assert.LessOrEqual(t, time.Since(w.opened), time.Second)
			records += w.records
		}
		require.NoError(t, <-ended)
		assert.Equal(t, 100, records)
		assert.Equal(t, 9*time.Second, time.Since(began).Truncate(time.Second))
	})
}

func TestAWindowKeepsItsBatchesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 3, Linger: time.Second})
		var done []int
		go func() {
			for i := range 7 {
				in <- pipeline.ValidBatch{Items: make([]pipeline.Item, 1), Done: func() { done = append(done, i) }}
			}
			close(in)
		}()
		sizes := []int{}
		for w := range windows {
			sizes = append(sizes, len(w.batches))
			w.done()
		}
		require.NoError(t, <-ended)
		assert.Equal(t, []int{3, 3, 1}, sizes)
		assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6}, done)
	})
}

func TestGatherEndsWithItsContext(t *testing.T) {
	for name, c := range map[string]struct {
		batches int
		close   bool
	}{
		"nothing came":              {0, false},
		"a window waits for more":   {1, false},
		"a full window waits":       {10, false},
		"the last of it waits":      {1, true},
		"a full window, then ended": {10, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				w := &Writer{options: Options{WindowRecords: 10, Linger: time.Hour}, now: time.Now}
				in, ended := make(chan pipeline.ValidBatch), make(chan error, 1)
				go func() { ended <- w.gather(ctx, in, make(chan *window)) }()
				for range c.batches {
					in <- clean(1)
				}
				if c.close {
					close(in)
				}
				synctest.Wait()
				assert.Empty(t, ended)
				cancel()
				require.ErrorIs(t, <-ended, context.Canceled)
			})
		})
	}
}

func TestGatherEndsWithoutAWindowWhenNothingCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, windows, ended := gathering(t, Options{WindowRecords: 10, Linger: time.Second})
		close(in)
		require.NoError(t, <-ended)
		_, more := <-windows
		assert.False(t, more)
	})
}

// A batch of which every record was refused or a duplicate needs no store, but somebody waits for its Done.
func TestABatchWithNothingToStoreIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		none := func(context.Context) (*cassandra.Store, error) { return nil, nil }
		w := NewWriter(none, Options{
			Mode: Batch, WindowRecords: 100, Linger: time.Second, BatchRows: 100, MaxInFlight: 8, RetryRate: 1, DevicesKept: 10,
		}, silent(), prometheus.NewRegistry(), time.Now)
		in, ended := make(chan pipeline.ValidBatch), make(chan error, 1)
		go func() { ended <- w.Run(t.Context(), in) }()
		done := make(chan int, 10)
		for i := range 2 {
			in <- pipeline.ValidBatch{Done: func() { done <- i }}
		}
		synctest.Wait()
		assert.Empty(t, done, "it waits with the window that it is in")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Len(t, done, 2)
		close(in)
		require.NoError(t, <-ended)
		assert.Len(t, done, 2, "each once")
		assert.Empty(t, w.windows.windows)
	})
}

func TestSettledIsTheWindowBeforeTheFirstUnderWay(t *testing.T) {
	u := underWay{windows: map[int64]bool{}}
	assert.Equal(t, int64(0), u.settled(), "nothing was written yet")
	for want := int64(1); want <= 3; want++ {
		require.Equal(t, want, u.start())
	}
	assert.Equal(t, int64(0), u.settled())
	u.end(2)
	assert.Equal(t, int64(0), u.settled(), "the first is still under way")
	u.end(1)
	assert.Equal(t, int64(2), u.settled())
	u.end(3)
	assert.Equal(t, int64(3), u.settled())
	assert.Equal(t, int64(4), u.start())
	assert.Equal(t, int64(3), u.settled())
}
