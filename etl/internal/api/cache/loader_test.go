package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func always([]byte) bool { return true }

func newTestLoader(t *testing.T, c Cache) *Loader {
	l := NewLoader(c, 10*time.Second, prometheus.NewRegistry())
	t.Cleanup(l.Close)
	return l
}

func TestLoaderReadsThroughCache(t *testing.T) {
	memory := NewMemory(8 << 20)
	defer memory.Close()
	l := newTestLoader(t, memory)
	loads := 0
	get := func(key string, size int, valid func([]byte) bool) {
		t.Helper()
		value, err := l.Get(t.Context(), key, time.Minute, valid, func(context.Context) ([]byte, error) { loads++; return make([]byte, size), nil })
		require.NoError(t, err)
		require.Len(t, value, size)
	}
	get("a", 1, always)
	get("a", 1, always)
	require.Equal(t, 1, loads)
	get("a", 1, func([]byte) bool { return false })
	require.Equal(t, 2, loads, "an invalid value is read again")
	get("b", MaxValue+1, always)
	get("b", MaxValue+1, always)
	require.Equal(t, 4, loads, "a very long value is not cached")
	require.Equal(t, 1.0, testutil.ToFloat64(l.hits))
	require.Equal(t, 4.0, testutil.ToFloat64(l.misses))
}

func TestLoaderDoesNotCacheErrors(t *testing.T) {
	memory := NewMemory(1 << 20)
	defer memory.Close()
	l := newTestLoader(t, memory)
	failure := errors.New("store unavailable")
	for _, want := range []error{failure, nil} {
		_, err := l.Get(t.Context(), "a", time.Minute, always, func(context.Context) ([]byte, error) { return nil, want })
		require.ErrorIs(t, err, want)
	}
}

func TestEqualReadsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLoader(nil, 10*time.Second, prometheus.NewRegistry())
		defer l.Close()
		var loads atomic.Int32
		release := make(chan struct{})
		load := func(context.Context) ([]byte, error) {
			loads.Add(1)
			<-release
			return []byte("x"), nil
		}
		first, leave := context.WithCancel(t.Context())
		results := make(chan error, 10)
		go func() {
			_, err := l.Get(first, "a", time.Minute, always, load)
			results <- err
		}()
		synctest.Wait()
		for range 9 {
			go func() {
				_, err := l.Get(t.Context(), "a", time.Minute, always, load)
				results <- err
			}()
		}
		synctest.Wait()
		leave()
		require.ErrorIs(t, <-results, context.Canceled)
		close(release)
		for range 9 {
			require.NoError(t, <-results, "the read outlives the request that began it")
		}
		require.Equal(t, int32(1), loads.Load())
	})
}

func TestLoaderBoundsAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLoader(nil, 10*time.Second, prometheus.NewRegistry())
		defer l.Close()
		_, err := l.Get(t.Context(), "a", time.Minute, always, func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = l.Get(t.Context(), "b", time.Minute, always, func(context.Context) ([]byte, error) { panic("bug") })
		require.ErrorContains(t, err, "panic: bug")
	})
}
