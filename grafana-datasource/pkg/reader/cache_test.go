package reader

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSingleflightSharesACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingleflight(time.Minute)
		var calls, sharedCalls atomic.Int32
		for range 8 {
			go func() {
				value, shared, err := s.do(t.Context(), "k", func(context.Context) (any, error) {
					calls.Add(1)
					time.Sleep(time.Second)
					return 7, nil
				})
				assert.NoError(t, err)
				assert.Equal(t, 7, value)
				if shared {
					sharedCalls.Add(1)
				}
			}()
		}
		time.Sleep(2 * time.Second)
		assert.Equal(t, int32(1), calls.Load())
		assert.Equal(t, int32(7), sharedCalls.Load())
		_, shared, err := s.do(t.Context(), "k", func(context.Context) (any, error) { return nil, errors.New("failed") })
		assert.EqualError(t, err, "failed")
		assert.False(t, shared, "the earlier call is done")
		assert.Empty(t, s.calls)
	})
}

func TestSingleflightCancelsWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingleflight(time.Minute)
		canceled := make(chan struct{})
		run := func(ctx context.Context) (any, error) {
			<-ctx.Done()
			close(canceled)
			return nil, ctx.Err()
		}
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for _, ctx := range []context.Context{first, second} {
			go func() {
				_, _, err := s.do(ctx, "k", run)
				done <- err
			}()
		}
		synctest.Wait()
		cancelFirst()
		assert.ErrorIs(t, <-done, context.Canceled)
		synctest.Wait()
		select {
		case <-canceled:
			t.Error("the call was canceled while a caller waits for it")
		default:
		}
		cancelSecond()
		assert.ErrorIs(t, <-done, context.Canceled)
		<-canceled
		value, shared, err := s.do(t.Context(), "k", func(context.Context) (any, error) { return 1, nil })
		assert.NoError(t, err)
		assert.False(t, shared, "a new caller does not join the canceled call")
		assert.Equal(t, 1, value)
	})
}

func TestSingleflightBoundsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSingleflight(time.Second)
		_, _, err := s.do(t.Context(), "k", func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
