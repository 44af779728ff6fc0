package stamp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimestampsAdvanceByThreeAtLeast(t *testing.T) {
	now := time.UnixMicro(1_000)
	c := New(func() time.Time { return now })
	require.Equal(t, int64(1_000), c.Next())
	require.Equal(t, int64(1_003), c.Next())
	now = time.UnixMicro(500)
	require.Equal(t, int64(1_006), c.Next(), "a clock that is set back does not matter")
	c.After(5_000)
	require.Greater(t, c.Next(), int64(5_000))
	c.After(4_000)
	now = time.UnixMicro(9_000)
	require.Equal(t, int64(9_000), c.Next())
}
