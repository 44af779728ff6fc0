package fair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestKeysAreServedInTurn(t *testing.T) {
	q := NewQueue[string](10)
	for i := range 100_000 {
		q.Push("b", 4, fmt.Sprint("b", i))
	}
	q.Push("a", 1, "a0")
	q.Push("a", 1, "a1")
	var got []string
	for range 8 {
		value, ok := q.Pop()
		require.True(t, ok)
		got = append(got, value)
	}
	require.Equal(t, []string{"b0", "b1", "b2", "a0", "a1", "b3", "b4", "b5"}, got)
	require.Equal(t, 99_994, q.Len())
	require.Zero(t, q.LenOf("a"))
}

// Keys with long items get no more than keys with short ones.
func TestTurnsAreSharesOfTheCost(t *testing.T) {
	q := NewQueue[int64](10)
	for range 1000 {
		q.Push("long", 9, 9)
		for range 9 {
			q.Push("short", 1, 1)
		}
	}
	got := map[int64]int64{}
	for range 1000 {
		cost, _ := q.Pop()
		got[cost] += cost
	}
	require.InDelta(t, got[1], got[9], 20)
}

func TestRemoveAndPopIf(t *testing.T) {
	q := NewQueue[int](1)
	q.Push("a", 1, 1)
	q.Push("a", 1, 2)
	q.Push("b", 1, 3)
	value, ok := q.PopIf(func(key string, _ int) bool { return key == "b" })
	require.True(t, ok)
	require.Equal(t, 3, value)
	q.Remove("b", func(int) bool { return true })
	q.Remove("a", func(v int) bool { return v == 1 })
	value, _ = q.Pop()
	require.Equal(t, 2, value)
	_, ok = q.Pop()
	require.False(t, ok)
	require.Empty(t, q.flows)
}

func TestInterleave(t *testing.T) {
	mixed := Interleave([]string{"b1", "b2", "b3", "a1", "c1", "a2"}, func(s string) string { return s[:1] })
	require.Equal(t, []string{"b1", "a1", "c1", "b2", "a2", "b3"}, mixed)
}

func TestSlotsOfManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(32, 100)
		var mu sync.Mutex
		acquired := map[string]int{}
		ask := func(key string, times int) {
			for range times {
				go func() {
					if s.Acquire(t.Context(), key, 1) == nil {
						mu.Lock()
						defer mu.Unlock()
						acquired[key]++
					}
				}()
				synctest.Wait()
			}
		}
		ask("b", 64)
		ask("c", 64)
		ask("d", 64)
		require.Equal(t, map[string]int{"b": 16, "c": 8, "d": 4}, acquired, "as much as it leaves free")
		ask("a", 1)
		require.Equal(t, 1, acquired["a"], "at once")
		require.EqualValues(t, 29, s.Used())
		require.Equal(t, 64*3-28, s.Waiting())
		for range 16 {
			s.Release("b", 1)
		}
		synctest.Wait()
		require.Equal(t, map[string]int64{"b": 8, "c": 8, "d": 8, "a": 1}, s.held, "equal parts")
	})
}

// A key that needs much gets it, even if others with small needs come all the time.
func TestSlotsStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(10, 0)
		require.NoError(t, s.Acquire(t.Context(), "b", 2))
		big := make(chan error, 1)
		go func() { big <- s.Acquire(t.Context(), "a", 10) }()
		synctest.Wait()
		for range 3 {
			go func() { _ = s.Acquire(t.Context(), "c", 1) }()
		}
		synctest.Wait()
		require.EqualValues(t, 2, s.Used(), "a is next")
		s.Release("b", 2)
		require.NoError(t, <-big)
		require.EqualValues(t, 10, s.Used())
		s.Release("a", 10)
		synctest.Wait()
		require.EqualValues(t, 3, s.Used())
	})
}

func TestSlotsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSlots(2, 1)
		require.NoError(t, s.Acquire(t.Context(), "b", 1))
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 2)
		go func() { failed <- s.Acquire(ctx, "b", 1) }()
		synctest.Wait()
		require.ErrorIs(t, s.Acquire(ctx, "b", 1), ErrWaiting)
		require.NoError(t, s.Acquire(t.Context(), "c", 1))
		go func() { failed <- s.Acquire(ctx, "a", 1) }()
		synctest.Wait()
		cancel()
		errs := []error{<-failed, <-failed}
		limited := 0
		for _, err := range errs {
			require.ErrorIs(t, err, context.Canceled)
			if errors.Is(err, ErrLimit) {
				limited++
			}
		}
		require.Equal(t, 1, limited, "b holds its share, a nothing")
		require.Zero(t, s.Waiting())
		s.Release("b", 1)
		s.Release("c", 1)
		require.Zero(t, s.Used())
		require.Empty(t, s.held)
	})
}
