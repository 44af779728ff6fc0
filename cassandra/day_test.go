package cassandra

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDayOf(t *testing.T) {
	require.Equal(t, "1970-01-01", DayOf(0).String())
	require.Equal(t, "1969-12-31", DayOf(-1).String())
	require.Equal(t, "2026-11-24", DayOf(1795478400000).String())
	require.Equal(t, []Day{1, 0, -1}, daysBack(-1, msPerDay))
	require.Empty(t, daysBack(1, 0))
}
