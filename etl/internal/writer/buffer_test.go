package writer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
)

func valid(records int) pipeline.ValidBatch {
	return pipeline.ValidBatch{Items: make([]pipeline.Item, records)}
}

// buffering runs a buffer and returns its two ends.
func buffering(t *testing.T, records int, linger time.Duration) (in chan pipeline.ValidBatch, batches chan *Batch, ended chan error) {
	in, batches, ended = make(chan pipeline.ValidBatch), make(chan *Batch), make(chan error, 1)
	go func() { ended <- Buffer{records, linger, time.Now}.Run(t.Context(), in, batches); close(batches) }()
	return in, batches, ended
}

func TestBatchIsSentAfterLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 100, time.Second)
		began := time.Now()
		in <- valid(10)
		time.Sleep(400 * time.Millisecond)
		in <- valid(10)
		got := <-batches
		require.Equal(t, 20, got.records)
		require.Equal(t, time.Second, time.Since(began))
		close(in)
		require.NoError(t, <-ended)
	})
}

func TestBatchGrowsWhileItWaitsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 100, time.Second)
		for range 10 {
			in <- valid(10)
			time.Sleep(time.Second)
		}
		select {
		case in <- valid(10):
			t.Fatal("a full batch accepts no more")
		case <-time.After(time.Hour):
		}
		require.Equal(t, 100, (<-batches).records)
		in <- valid(3)
		close(in)
		require.Equal(t, 3, (<-batches).records, "the rest is sent at the end, without waiting")
		require.NoError(t, <-ended)
	})
}

// Parts without records must not pile up without bound while the store is unavailable.
func TestEmptyPartsFillABatchToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 100, time.Second)
		for range 100 {
			in <- valid(0)
		}
		select {
		case in <- valid(0):
			t.Fatal("a full batch accepts no more")
		case <-time.After(time.Hour):
		}
		require.Len(t, (<-batches).parts, 100)
		close(in)
		require.NoError(t, <-ended)
	})
}

func TestFullBatchIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 100, time.Hour)
		began := time.Now()
		in <- valid(60)
		in <- valid(60)
		got := <-batches
		assert.Equal(t, 120, got.records, "a part is never split")
		assert.Zero(t, time.Since(began))
		close(in)
		require.NoError(t, <-ended)
	})
}

// The first record of a batch waits for Linger, whatever comes after it.
func TestTrickleDoesNotDelayABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 1000, time.Second)
		go func() {
			for range 100 {
				in <- valid(1)
				time.Sleep(90 * time.Millisecond)
			}
			close(in)
		}()
		began, records := time.Now(), 0
		for b := range batches {
			assert.LessOrEqual(t, time.Since(b.opened), time.Second)
			records += b.records
		}
		require.NoError(t, <-ended)
		assert.Equal(t, 100, records)
		assert.Equal(t, 9*time.Second, time.Since(began).Truncate(time.Second))
	})
}

func TestBatchKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 3, time.Second)
		var done []int
		go func() {
			for i := range 7 {
				in <- pipeline.ValidBatch{Items: make([]pipeline.Item, 1), Done: func() { done = append(done, i) }}
			}
			close(in)
		}()
		sizes := []int{}
		for b := range batches {
			sizes = append(sizes, len(b.parts))
			b.Done()
		}
		require.NoError(t, <-ended)
		assert.Equal(t, []int{3, 3, 1}, sizes)
		assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6}, done)
	})
}

func TestBufferEndsWithItsContext(t *testing.T) {
	for name, c := range map[string]struct {
		batches int
		close   bool
	}{
		"nothing came":              {0, false},
		"a batch waits for more":    {1, false},
		"a full batch waits":        {10, false},
		"the last batch waits":      {1, true},
		"a full batch, then closed": {10, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				in, ended := make(chan pipeline.ValidBatch), make(chan error, 1)
				go func() { ended <- Buffer{10, time.Hour, time.Now}.Run(ctx, in, make(chan *Batch)) }()
				for range c.batches {
					in <- valid(1)
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

func TestBufferSendsNoEmptyBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, batches, ended := buffering(t, 10, time.Second)
		close(in)
		require.NoError(t, <-ended)
		_, more := <-batches
		assert.False(t, more)
	})
}
