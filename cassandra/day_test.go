package cassandra

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDayOf(t *testing.T) {
	require.Equal(t, "1970-01-01", DayOf(0).String())
	require.Equal(t, "1969-12-31", DayOf(-1).String())
	require.Equal(t, "2026-11-24", DayOf(1795478400000).String())
	read := func(fromMs, toMs int64, limit int) []Day {
		days, err := newestFirst(t.Context(), 4, fromMs, toMs, limit, func(_ context.Context, day Day) ([]Day, error) { return []Day{day}, nil })
		require.NoError(t, err)
		return days
	}
	require.Equal(t, []Day{1, 0, -1}, read(-1, msPerDay, 0))
	require.Equal(t, []Day{1, 0}, read(-1, msPerDay, 2))
	require.Empty(t, read(1, 0, 0))
}
