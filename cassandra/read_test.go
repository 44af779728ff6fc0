package cassandra

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFanOutIsBoundedOrderedAndStopsAtTheFirstError(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	parts := make([]int, 100)
	for i := range parts {
		parts[i] = i
	}
	double := func(_ context.Context, i int) (int, error) {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		return 2 * i, nil
	}
	results, err := fanOut(t.Context(), 4, parts, double)
	require.NoError(t, err)
	require.LessOrEqual(t, most, 4)
	require.Greater(t, most, 1)
	for i, r := range results {
		require.Equal(t, 2*i, r)
	}
	_, err = fanOut(t.Context(), 4, parts, func(ctx context.Context, i int) (int, error) {
		if i == 3 {
			return 0, errors.New("third")
		}
		<-ctx.Done()
		return 0, ctx.Err()
	})
	require.EqualError(t, err, "third")
}

func TestWaveReadsAsManyDaysAsTheLimitIsLikelyToNeed(t *testing.T) {
	for _, c := range []struct {
		name                    string
		limit, rows, days, want int
	}{
		{"the newest day alone", 1000, 0, 0, 1},
		{"a day had half of the limit", 1000, 500, 1, 1},
		{"a day had a tenth", 1000, 100, 1, 9},
		{"a day had almost nothing", 1000, 1, 1, 16},
		{"nothing yet", 1000, 0, 3, 6},
		{"nothing for a month", 1000, 0, 30, 16},
		{"a few rows are missing", 1000, 999, 4, 1},
	} {
		require.Equal(t, c.want, wave(16, c.limit, c.rows, c.days), c.name)
	}
}

func TestRangesAreBounded(t *testing.T) {
	require.NoError(t, checkRange(0, MaxDays-1))
	require.EqualError(t, checkRange(0, MaxDays), "range 1970-01-01 to 1971-02-05: 401 days, at most 400 can be read at once; choose a shorter range")
}

func TestByMonthReturnsOldestFirst(t *testing.T) {
	s := &Session{config: Config{Fanout: 2}}
	from, to := at(t, "2025-11-30T23:00:00Z"), at(t, "2026-02-01T00:00:00Z")
	rows, err := byMonth(t.Context(), s, from, to, func(_ context.Context, month Day) ([]string, error) {
		return []string{month.String() + " later", month.String() + " earlier"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{
		"2025-11-01 earlier", "2025-11-01 later", "2025-12-01 earlier", "2025-12-01 later",
		"2026-01-01 earlier", "2026-01-01 later", "2026-02-01 earlier", "2026-02-01 later",
	}, rows)
}

func TestEnterBoundsReadsInFlight(t *testing.T) {
	s := &Session{reads: make(chan struct{}, 1)}
	leave, err := s.enter(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.enter(ctx)
	require.ErrorIs(t, err, context.Canceled)
	leave()
	_, err = s.enter(t.Context())
	require.NoError(t, err)
}
