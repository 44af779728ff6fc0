package cassandra

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExpectedOptions(t *testing.T) {
	want, err := expectedOptions("fleet_iot", twoAndTwo)
	require.NoError(t, err)
	require.Len(t, want, len(tables))
	require.Equal(t, map[string]string{"": "86400"}, want[TableHistory]["gc_grace_seconds"].values)
	require.Equal(t, map[string]string{
		"class": "TimeWindowCompactionStrategy", "compaction_window_unit": "DAYS", "compaction_window_size": "1",
	}, want[TableHistory]["compaction"].values)
	require.Equal(t, option{text: "{'class': 'LeveledCompactionStrategy'}", values: map[string]string{"class": "LeveledCompactionStrategy"}}, want[TableLatest]["compaction"])
	require.Empty(t, want[TableFleets])
}
