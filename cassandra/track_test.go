package cassandra

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func track(ms ...int64) *Track {
	t := &Track{}
	for _, at := range ms {
		t.Positions = append(t.Positions, Position{TsMs: at, SpeedKmh: float64(at), Zone: []string{"depot", "road"}[at%2], Fleet: "north"})
	}
	return t
}

func TestTrackBetween(t *testing.T) {
	whole := track(10, 11, 12, 13)
	whole.More = true
	part := whole.Between(11, 12)
	require.Equal(t, []Position{
		{TsMs: 11, SpeedKmh: 11, Zone: "road", Fleet: "north"}, {TsMs: 12, SpeedKmh: 12, Zone: "depot", Fleet: "north"},
	}, part.Positions)
	require.False(t, part.More, "the missing positions are older than the part")
	require.True(t, whole.Between(0, 12).More)
	require.Empty(t, whole.Between(14, 20).Positions)
	require.Empty(t, whole.Between(12, 11).Positions)
	require.Len(t, whole.Positions, 4, "the track is unchanged")
}
